// The program that is migrated on the walk: memory of its own, a thread that writes to it all the time, and a place to go.

import { type DirtyLogKind, RamBlock } from '../../src/index.js'
import { allocate, checksums, fillMixed, misplaced, stampAll, Writer } from '../support/peers/index.js'

const MIB = 2 ** 20
const SHAPES = [
  { idstr: 'heap', size: 8 * MIB },
  { idstr: 'table', size: 2 * MIB },
] as const
const PAUSE_MS = 1
const PAGES = 8
const PATIENCE_MS = 5000

export class Program {
  /** What is written to, and what stays as it is. */
  readonly ram: RamBlock[]
  /** Where it goes. */
  readonly theirs = allocate(SHAPES)
  readonly #heap: RamBlock[]
  readonly #table: string
  #writer: Writer | undefined

  constructor(dirtyLog: DirtyLogKind) {
    this.ram = SHAPES.map((shape) => RamBlock.allocate({ ...shape, dirtyLog }))
    this.#heap = this.ram.slice(0, 1)
    stampAll(this.#heap)
    fillMixed(this.ram[1]!)
    this.#table = checksums(this.ram)['table']!
  }

  async run(): Promise<void> {
    this.#writer ??= await Writer.start(this.#heap, PAUSE_MS, PAGES)
  }

  async halt(): Promise<void> {
    await this.#writer?.stop()
    this.#writer = undefined
  }

  /** What is wrong with it, after a migration that failed. */
  async harm(): Promise<string[]> {
    const problems = this.#tableHarm(this.ram, 'its own')
    const before = this.#writer?.changes ?? Number.POSITIVE_INFINITY
    const deadline = performance.now() + PATIENCE_MS
    while ((this.#writer?.changes ?? 0) <= before && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    if ((this.#writer?.changes ?? 0) <= before) problems.push('the program does not run')
    return problems
  }

  /** What of it is not at the destination, once it has stopped. */
  missing(): string[] {
    return [
      ...misplaced(this.#heap, this.theirs.slice(0, 1)).slice(0, 3),
      ...this.#tableHarm(this.theirs, "the destination's"),
    ]
  }

  /** Has nothing of a migration before in the place that it goes to. */
  forget(): void {
    for (const block of this.theirs) block.bytes().fill(0)
  }

  #tableHarm(ram: readonly RamBlock[], whose: string): string[] {
    return checksums(ram)['table'] === this.#table ? [] : [`memory that nobody writes to has changed: ${whose}`]
  }
}
