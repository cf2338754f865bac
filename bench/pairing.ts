// What every pairing is to the benchmark: a name, the memory it can be measured with, and one run.

import type { DataSet } from './data.js'
import type { Method } from './method.js'

/**
 * What the arriving bytes are written into. `touched`: memory that is resident already; `untouched`: fresh memory;
 * `tmpfs` and `disk`: a new file there (a receiver that keeps a snapshot has no other memory).
 */
export const MEMORIES = ['touched', 'untouched', 'tmpfs', 'disk'] as const
export type Memory = (typeof MEMORIES)[number]

/** What is varied. */
export interface Shape {
  channels: number
  memory: Memory
  method: Method
}

export interface Side<T> {
  source: T
  destination: T
}

/** One migration. Times in ms, memory in bytes. */
export interface Measurement {
  /** From the order to migrate until the first page may go: threads, connections, the stream's introduction. */
  setupMs: number
  /** From there until the source knows that the destination has everything. */
  transferMs: number
  /** User and system time of the whole process, in seconds, from the order to the end. */
  cpu: Side<number>
  /** Highest resident memory during the run, without the RAM that is migrated. */
  beyondRam: Side<number>
}

export interface Pairing extends AsyncDisposable {
  /** As `--pairs` has it, with a QEMU's version where there is one. */
  readonly name: string
  /** Source → destination, for people. */
  readonly label: string
  readonly memories: readonly Memory[]
  /** Why it can not be measured here, or undefined. */
  available(): string | undefined
  /** Measures one migration. What is dear to set up (a source's random bytes) stays for the next call. */
  run(shape: Shape): Promise<Measurement>
}

/** What all pairings of one session are made with. */
export interface Session {
  /** What the RAM holds. */
  data: DataSet
  /** Of RAM. */
  bytes: number
  /** Folders for temporary files: in memory, and on a disk. */
  tmpfs: string
  disk: string
}

/** Longest time that a step of a run may take, ms. */
export const STEP_MS = 180_000
