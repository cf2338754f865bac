// A process of its own that embeds the library: a test starts it, tells it what to do, and hears how far it is.

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { MigrationDestination, type MigrationParameters, MigrationSource } from '../../../src/index.js'
import { plainEnvironment } from '../environment.js'
import { allocate, checksums, fillMixed } from './memory.js'
import type { ListedBlock } from './stream.js'

const PATIENCE_MS = 60_000

/** What the process does. */
export interface Job {
  role: 'source' | 'destination'
  uri: string
  blocks: ListedBlock[]
  parameters?: Partial<MigrationParameters>
  machineType?: string
}

/** What it says, one JSON object a line. */
export type Said =
  | { type: 'listening'; uri: string }
  | { type: 'status'; status: string }
  | { type: 'completed'; sums: Record<string, string> }
  | { type: 'failed'; code: string; message: string }

/** What it is told, one word a line: to end the process. */
export type Order = 'exit' | 'throw'

export class Child {
  readonly process: ChildProcess
  readonly #lines: Interface
  readonly #heard: Said[] = []
  #wake: (() => void)[] = []
  #over = false

  /** @param fd passed on as descriptor 3 */
  constructor(job: Job, fd?: number) {
    const stdio = ['pipe', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])] as ('pipe' | number)[]
    const path = fileURLToPath(import.meta.url)
    this.process = spawn(process.execPath, [path, JSON.stringify(job)], { stdio, env: plainEnvironment() })
    this.process.stderr!.resume()
    this.#lines = createInterface({ input: this.process.stdout! })
    this.#lines.on('line', (line) => {
      this.#heard.push(JSON.parse(line) as Said)
      this.#notify()
    })
    this.process.once('close', () => {
      this.#over = true
      this.#notify()
    })
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake()
  }

  /** The first thing of a kind that it says. */
  async says<T extends Said['type']>(type: T, matches: (said: Said & { type: T }) => boolean = () => true) {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const found = this.#heard.find((said): said is Said & { type: T } => said.type === type && matches(said as never))
      if (found) return found
      const failure = this.#heard.find((said) => said.type === 'failed')
      if (failure || this.#over || performance.now() > deadline) {
        throw new Error(`the child did not say '${type}'; it said ${JSON.stringify(this.#heard)}`)
      }
      await new Promise<void>((resolve) => {
        this.#wake.push(resolve)
        setTimeout(resolve, 100).unref()
      })
    }
  }

  tell(order: Order): void {
    this.process.stdin!.write(`${order}\n`)
  }

  /** Resolves once it ended. */
  async ended(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (!this.#over) await new Promise((resolve) => this.process.once('close', resolve))
    return { code: this.process.exitCode, signal: this.process.signalCode }
  }

  /** Ends it, whatever it does. */
  async destroy(): Promise<void> {
    if (!this.#over) this.process.kill('SIGKILL')
    await this.ended()
  }
}

function say(said: Said): void {
  process.stdout.write(`${JSON.stringify(said)}\n`)
}

async function work({ role, uri, blocks, parameters = {}, machineType }: Job): Promise<void> {
  const ram = allocate(blocks)
  const options = { ram, parameters, ...(machineType === undefined ? {} : { machineType }) }
  if (role === 'source') {
    for (const block of ram) fillMixed(block)
    const source = new MigrationSource(options)
    source.on('status', (status) => say({ type: 'status', status }))
    await source.migrate(uri, { stop: () => {} })
  } else {
    const destination = new MigrationDestination(options)
    destination.on('status', (status) => say({ type: 'status', status }))
    say({ type: 'listening', uri: await destination.listen(uri) })
    await destination.completed
  }
  say({ type: 'completed', sums: checksums(ram) })
}

async function main(job: Job): Promise<void> {
  createInterface({ input: process.stdin }).on('line', (line) => {
    if (line === 'exit') process.exit(0)
    if (line === 'throw') throw new Error('the program has a defect')
  })
  try {
    await work(job)
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    say({ type: 'failed', code, message })
  }
  process.stdin.destroy()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2]!) as Job)
