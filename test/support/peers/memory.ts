// Blocks of memory for tests: filled so that every page says where it belongs, and compared.

import { createHash, randomFillSync } from 'node:crypto'
import { RamBlock } from '../../../src/ram/block.js'
import { type ListedBlock, PAGE } from './stream.js'

const WINDOW = 2 ** 30

export function allocate(blocks: readonly ListedBlock[]): RamBlock[] {
  return blocks.map((block) => RamBlock.allocate(block))
}

/** Of each block's content, by name. */
export function checksums(blocks: readonly RamBlock[]): Record<string, string> {
  return Object.fromEntries(blocks.map((block) => [block.idstr, checksum(block)]))
}

function checksum(block: RamBlock): string {
  const hash = createHash('sha1')
  for (let at = 0; at < block.size; at += WINDOW) hash.update(block.bytes(at, Math.min(WINDOW, block.size - at)))
  return hash.digest('hex')
}

/** Fills a block with a page of every kind in turn: noise, zero, one byte only, the last byte only, text. */
export function fillMixed(block: RamBlock): void {
  const bytes = block.bytes()
  const noise = Buffer.alloc(PAGE)
  for (let page = 0; page < block.pages; page++) {
    const at = bytes.subarray(page * PAGE, (page + 1) * PAGE)
    const kind = page % 5
    at.fill(kind === 2 ? 0xaa : 0)
    if (kind === 0) at.set(randomFillSync(noise))
    else if (kind === 3) at[PAGE - 1] = 1 + (page % 255)
    else if (kind === 4) at.set(Buffer.alloc(PAGE, `page ${page} of ${block.idstr}, `))
  }
}

/** Of the kinds above, how many pages of a block are zero. */
export function zeroPagesOfMixed(block: { size: number }): number {
  return Math.ceil((block.size / PAGE - 1) / 5)
}

export function fillNoise(block: RamBlock): void {
  randomFillSync(block.bytes())
}
