// What the child processes of the benchmark can be asked, and what they have in common.

import { createHash, randomFillSync } from 'node:crypto'
import type { MigrationSource, MigrationStatistics } from '../../src/index.js'
import type { RamBlock } from '../../src/ram/block.js'

export interface Times {
  setupMs: number
  transferMs: number
  /** Bytes that went as data. */
  dataBytes: number
}

/** A process that sends the same RAM over and over. */
export interface SourceCalls {
  /** Has the RAM ready: `bytes` random ones, or what the snapshot at `path` holds. */
  prepare(options: { bytes: number; path?: string }): Promise<void>
  send(options: { uri: string; channels: number }): Promise<Times>
  digest(argument: null): string
}

/** A process that receives once. */
export interface DestinationCalls {
  /** Has the memory ready, or knows where the snapshot goes. */
  prepare(options: { bytes: number; touched: boolean; path?: string }): Promise<void>
  /** Returns the URI, once connections are accepted. */
  listen(options: { channels: number }): Promise<string>
  completed(argument: null): Promise<void>
  digest(argument: null): string
}

const CHUNK = 16 * 1024 ** 2
const SAMPLES = 256

/** Fills a block with random bytes. */
export function fillRandom(block: RamBlock): void {
  // Random numbers do not go into shared memory directly.
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK, block.size))
  for (let at = 0; at < block.size; at += chunk.length) {
    const length = Math.min(chunk.length, block.size - at)
    block.bytes(at, length).set(randomFillSync(chunk).subarray(0, length))
  }
}

/** Of pages spread over the block: tells that what was sent is what came. */
export function digestOf(block: RamBlock): string {
  const hash = createHash('sha256')
  const step = Math.max(1, Math.floor(block.pages / SAMPLES))
  for (let page = 0; page < block.pages; page += step) {
    hash.update(Buffer.from(block.bytes(page * block.pageSize, block.pageSize)))
  }
  return hash.digest('hex')
}

/** Runs a migration and times its parts as the embedding program sees them. */
export async function timed(source: MigrationSource, migrate: () => Promise<MigrationStatistics>): Promise<Times> {
  let active = Number.NaN
  source.on('status', (status) => {
    if (status === 'active') active = performance.now()
  })
  const began = performance.now()
  const { ram } = await migrate()
  return { setupMs: active - began, transferMs: performance.now() - active, dataBytes: ram.normalBytes }
}
