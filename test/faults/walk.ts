// Walks fault points: every point × every method × every side, each a migration or a snapshot that is broken there, and what
// must hold of it. One process has both sides, so that nothing of either can be left behind unseen.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FAULT_POINTS, type FaultName, type FaultPoint, type FaultSide } from '../../src/faults.js'
import { type DirtyLogKind, endIdleThreads, FaultPoints } from '../../src/index.js'
import { libcLibrary } from '../../src/os/libc.js'
import { noKernelLog } from '../support/kernel.js'
import {
  leftovers,
  mappingsLeft,
  type OwnMappings,
  openDescriptors,
  ownMappings,
  sharedMemory,
  sharedMemoryLeft,
} from '../support/peers/index.js'
import { onProcessEnd } from '../support/qemu/cleanup.js'
import type { MethodName } from './methods.js'
import { breakMigration } from './migrations.js'
import { Program } from './program.js'
import { breakSave } from './saves.js'

export interface Case {
  point: FaultName
  side: FaultSide
  method: MethodName
  /** The time at which it happens, from 1 on. */
  at: number
  /** Whether it is received into a snapshot, where the point needs none. */
  intoFile?: true
}

export interface Result extends Case {
  /** How each side ended that there is: a code, `completed`, `waits`, or `hangs`. */
  outcomes: string[]
  messages: string[]
  ms: number
  /** What does not hold. */
  problems: string[]
}

interface Before {
  descriptors: Map<number, string>
  mappings: OwnMappings
}

export class Walk {
  readonly #folder = mkdtempSync(join(tmpdir(), 'multifd-faults-'))
  readonly #remove = (): void => rmSync(this.#folder, { recursive: true, force: true, maxRetries: 3 })
  readonly #untrack = onProcessEnd(this.#remove)
  // Both at once, and first: what shared memory there is from then on is not theirs.
  readonly #programs: Record<DirtyLogKind, Program> = {
    explicit: new Program('explicit'),
    kernel: new Program(noKernelLog ? 'explicit' : 'kernel'),
  }
  #sharedMemory = sharedMemory()
  readonly #uncaught: string[] = []
  readonly #hear = (error: Error): void => void this.#uncaught.push(error.message)
  // A second close of one descriptor hits whoever has its number by then, and most often nobody has.
  readonly #closedTwice: number[] = []

  constructor() {
    process.on('uncaughtException', this.#hear)
    const { close } = libcLibrary.calls
    libcLibrary.replace({
      close: (fd) => {
        const result = close(fd)
        if (result !== 0) this.#closedTwice.push(fd)
        return result
      },
    })
  }

  async close(): Promise<void> {
    for (const program of Object.values(this.#programs)) await program.halt()
    process.off('uncaughtException', this.#hear)
    libcLibrary.restore()
    this.#untrack()
    this.#remove()
  }

  /** Breaks one migration or snapshot, and holds it to what the table says. */
  async step(one: Case): Promise<Result> {
    const point: FaultPoint = FAULT_POINTS[one.point]
    const faults = new FaultPoints([`${one.point}@${one.at}`])
    // The kernel's log has calls of its own to interrupt.
    const logged = point.needs === 'kernel-log' || one.point === 'calls-interrupted'
    const program = this.#programs[logged ? 'kernel' : 'explicit']
    await program.run()
    program.forget()
    const before = { descriptors: openDescriptors(), mappings: ownMappings() }
    const breakIt = one.side === 'snapshot' ? breakSave : breakMigration
    const { ended, ms, problems, again } = await breakIt(one, faults, program, this.#folder)
    if (faults.happened(one.point) === 0) problems.push('it never happened')
    faults.disarm()
    if (ended.source?.outcome === 'completed') await program.run()
    else problems.push(...(await program.harm()))
    problems.push(...(await this.#left(before)))
    program.forget()
    problems.push(...(await again()))
    problems.push(...(await this.#left(before)))
    for (const fd of this.#closedTwice.splice(0)) problems.push(`descriptor ${fd} was closed twice`)
    for (const message of this.#uncaught.splice(0)) problems.push(`nobody caught: ${message}`)
    const outcomes = Object.values(ended).map(({ outcome }) => outcome)
    const messages = Object.values(ended).flatMap(({ error }) => (error ? [error.message] : []))
    return { ...one, outcomes, messages, ms: Math.round(ms), problems }
  }

  /** Ends the threads that wait for a migration, which hold on to memory of their last one; says what is left then. */
  async settle(): Promise<string[]> {
    for (const program of Object.values(this.#programs)) await program.halt()
    await endIdleThreads()
    const left = await sharedMemoryLeft(this.#sharedMemory)
    // Told once.
    if (left.length > 0) this.#sharedMemory = sharedMemory()
    return left.map((what) => `left: ${what}`)
  }

  async #left(before: Before): Promise<string[]> {
    const { threads, descriptors } = await leftovers(before.descriptors)
    const files = readdirSync(this.#folder).filter((name) => name !== 'psk')
    return [
      ...threads.map((name) => `thread left: ${name}`),
      ...descriptors.map((what) => `descriptor left: ${what}`),
      ...files.map((name) => `file left: ${name}`),
      ...mappingsLeft(before.mappings).map((what) => `mapping left: ${what}`),
    ]
  }
}
