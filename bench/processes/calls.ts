// What the child processes of the benchmark can be asked, and what they have in common.

import { createHash } from 'node:crypto'
import type { MigrationSource, MigrationStatistics } from '../../src/index.js'
import { ALLOCATE_MAX, RamBlock } from '../../src/ram/block.js'
import { tellSetUp } from '../child.js'
import { type DataSet, eachPiece } from '../data.js'
import type { Method } from '../method.js'

export interface Times {
  setupMs: number
  transferMs: number
  /** Bytes that went as data. */
  dataBytes: number
}

/** A process that sends the same RAM over and over. */
export interface SourceCalls {
  /** Has the RAM ready: `bytes` of a data set, or what the snapshot at `path` holds. */
  prepare(options: { bytes: number; data: DataSet; path?: string }): Promise<void>
  send(options: { uri: string; channels: number; method: Method }): Promise<Times>
  digest(argument: null): string
}

/** One that was given a guest first, and keeps it in its memory. */
export interface GuestSourceCalls extends SourceCalls {
  /** Returns the URI, once connections are accepted. */
  listen(options: { channels: number; method: Method }): Promise<string>
  received(argument: null): Promise<void>
}

/** A process that receives once. */
export interface DestinationCalls {
  /** Has the memory ready, or knows where the snapshot goes. */
  prepare(options: { bytes: number; touched: boolean; path?: string }): Promise<void>
  /** Returns the URI, once connections are accepted. */
  listen(options: { channels: number; method: Method }): Promise<string>
  completed(argument: null): Promise<void>
  digest(argument: null): string
}

/** The process that the program of the downtime bench moves to. */
export interface DowntimeCalls {
  /** Returns the URI, once connections are accepted. */
  listen(options: { size: number; channels: number }): Promise<string>
  /** Lets the program go on once everything came; returns when it did, ms of the system's monotonic clock. */
  goOn(argument: null): Promise<number>
}

const SAMPLES = 256

/** RAM of so many bytes: one block, or as many as it takes. */
export function allocate(bytes: number): RamBlock[] {
  const blocks: RamBlock[] = []
  for (let left = bytes; left > 0; left -= ALLOCATE_MAX) {
    blocks.push(RamBlock.allocate({ idstr: `heap${blocks.length}`, size: Math.min(left, ALLOCATE_MAX) }))
  }
  return blocks
}

/** Fills RAM with a data set. */
export function fill(blocks: readonly RamBlock[], data: DataSet): void {
  for (const block of blocks) eachPiece(data, block.size, (piece, at) => block.bytes(at, piece.length).set(piece))
}

/** Of pages spread over the RAM: tells that what was sent is what came. */
export function digestOf(blocks: readonly RamBlock[]): string {
  const hash = createHash('sha256')
  for (const block of blocks) {
    const step = Math.max(1, Math.floor(block.pages / SAMPLES))
    for (let page = 0; page < block.pages; page += step) {
      hash.update(Buffer.from(block.bytes(page * block.pageSize, block.pageSize)))
    }
  }
  return hash.digest('hex')
}

/** Runs a migration and times its parts as the embedding program sees them. */
export async function timed(source: MigrationSource, migrate: () => Promise<MigrationStatistics>): Promise<Times> {
  let active = Number.NaN
  source.on('status', (status) => {
    if (status !== 'active') return
    active = performance.now()
    tellSetUp()
  })
  const began = performance.now()
  const { ram } = await migrate()
  return { setupMs: active - began, transferMs: performance.now() - active, dataBytes: ram.normalBytes }
}
