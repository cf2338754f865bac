// The demo's memory: what it is filled with, and its checksum.

import { createHash, randomFillSync } from 'node:crypto'
import { setImmediate as breathe } from 'node:timers/promises'
import type { RamBlock } from '../../ram/block.js'

/** Pages of one kind lie together in runs of this many. */
const RUN_PAGES = 16
const RANDOM_SHARE = 40
const TEXT_SHARE = 35
const POOL_PAGES = 1024
const CHECKSUM_STEP = 16 * 1024 * 1024

/** What the memory is filled with, for people. */
export const MIXTURE = `${RANDOM_SHARE}% random pages, ${TEXT_SHARE}% text, ${100 - RANDOM_SHARE - TEXT_SHARE}% zero`

/** Fills new memory with pages of different kinds. Zero pages are not even touched. */
export function fillMixed(block: RamBlock): void {
  const { pageSize, pages } = block
  const bytes = block.bytes(0, block.size)
  const random = randomFillSync(new Uint8Array(POOL_PAGES * pageSize))
  const text = new TextEncoder()
    .encode('All of this is text, and much of it repeats. '.repeat(100))
    .subarray(0, pageSize)
  const stamp = new Float64Array(1)
  for (let page = 0; page < pages; page++) {
    const run = Math.floor(page / RUN_PAGES)
    // Spread over the memory without a pattern that an eye would find.
    const kind = (Math.imul(run, 0x9e3779b1) >>> 0) % 100
    if (kind >= RANDOM_SHARE + TEXT_SHARE) continue
    const at = page * pageSize
    const from = (page % POOL_PAGES) * pageSize
    bytes.set(kind < RANDOM_SHARE ? random.subarray(from, from + pageSize) : text, at)
    // No two pages are equal.
    stamp[0] = page + 1
    bytes.set(new Uint8Array(stamp.buffer), at)
  }
}

/** SHA-256 of the whole block. The event loop goes on meanwhile. */
export async function checksum(block: RamBlock, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for (let at = 0; at < block.size; at += CHECKSUM_STEP) {
    hash.update(block.bytes(at, Math.min(CHECKSUM_STEP, block.size - at)))
    await breathe()
    signal?.throwIfAborted()
  }
  return hash.digest('hex')
}
