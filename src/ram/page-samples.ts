// Samples of memory: pages picked at random, and which of them have changed since.

import { createHash } from 'node:crypto'
import type { RamBlock } from './block.js'

const GIB = 2 ** 30
/** Bytes of a digest that are kept: two that differ agree in so many once in 2^48. */
const DIGEST_BYTES = 6
/** Of a page that is zero, which no digest of six bytes is. */
const ZERO = 2 ** (8 * DIGEST_BYTES)

interface Sampled {
  block: RamBlock
  pages: Float64Array
  digests: Float64Array
}

export class PageSamples {
  /** Bytes that have content: what the samples stand for. */
  readonly bytes: number
  readonly #sampled: Sampled[]

  /**
   * Picks one page at random out of each of as many equal parts, so that writing in one place is met as often as it is due.
   *
   * @param perGib samples a GiB; memory of less than 1 GiB gets as many as that, or all of its pages
   */
  constructor(blocks: readonly RamBlock[], perGib: number) {
    const ranges = blocks.map((block) => ({ block, pages: populatedPages(block) }))
    this.bytes = ranges.reduce((sum, { block, pages }) => sum + pages.length * block.pageSize, 0)
    const wanted = perGib * Math.max(1, this.bytes / GIB)
    this.#sampled = ranges.map(({ block, pages }) => {
      const share = (pages.length * block.pageSize) / Math.max(1, this.bytes)
      const count = Math.min(pages.length, Math.ceil(wanted * share))
      const part = pages.length / count
      const picked = Float64Array.from({ length: count }, (_, at) => {
        const first = Math.floor(at * part)
        const next = Math.max(first + 1, Math.floor((at + 1) * part))
        return pages.at(first + Math.floor(Math.random() * (next - first)))
      })
      return { block, pages: picked, digests: new Float64Array(count) }
    })
  }

  get count(): number {
    return this.#sampled.reduce((sum, { pages }) => sum + pages.length, 0)
  }

  /** Looks at each page for the first time. */
  take(): void {
    for (const { block, pages, digests } of this.#sampled) {
      for (const [at, page] of pages.entries()) digests[at] = digestOf(block, page)
    }
  }

  /** Looks at each page again, in the same order. Returns how many have changed. */
  changed(): number {
    let changed = 0
    for (const { block, pages, digests } of this.#sampled) {
      for (const [at, page] of pages.entries()) if (digests[at] !== digestOf(block, page)) changed++
    }
    return changed
  }
}

/** The pages of a block that have content, by their place among them. */
function populatedPages(block: RamBlock): { length: number; at(place: number): number } {
  const ranges: { first: number; count: number }[] = []
  block.replayPopulated((offset, length) => {
    ranges.push({ first: offset / block.pageSize, count: length / block.pageSize })
  })
  const at = (place: number): number => {
    let left = place
    for (const { first, count } of ranges) {
      if (left < count) return first + left
      left -= count
    }
    throw new RangeError(`page ${place} is not among those of '${block.idstr}'`)
  }
  return { length: ranges.reduce((sum, { count }) => sum + count, 0), at }
}

// Memory that was never touched is not made resident by that.
function digestOf(block: RamBlock, page: number): number {
  if (block.isZeroPage(page)) return ZERO
  const bytes = block.bytes(page * block.pageSize, block.pageSize)
  return createHash('sha1').update(bytes).digest().readUIntBE(0, DIGEST_BYTES)
}
