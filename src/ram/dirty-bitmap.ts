// The pages of one block that are still to be sent: the coordinator's own, one bit a page.

import { CHUNK_WORDS, popCount, type SharedBitmap } from '../shm/bitmap.js'
import type { PageRuns } from '../shm/page-runs.js'
import type { PageKernel, SharedMemory } from '../wasm/kernel.js'

/** A sparse block: tells the runs of pages that have no content. */
export interface DiscardedPages {
  replayDiscardedPages(visit: (first: number, count: number) => void): void
}

export class DirtyBitmap {
  readonly pages: number
  readonly #kernel: PageKernel
  readonly #at: number
  readonly #sparse: DiscardedPages | undefined
  readonly #words: Int32Array
  #count = 0

  /**
   * @param at where its {@link DirtyBitmap.words} are in the memory, bytes
   * @param sparse whose discarded pages are never to be sent
   */
  constructor(pages: number, memory: SharedMemory, kernel: PageKernel, at: number, sparse?: DiscardedPages) {
    this.pages = pages
    this.#kernel = kernel
    this.#at = at
    this.#sparse = sparse
    this.#words = new Int32Array(memory.buffer, at, DirtyBitmap.words(pages))
  }

  /** Number of 32-bit words for so many pages. */
  static words(pages: number): number {
    return Math.ceil(pages / 32)
  }

  /** Pages still to be sent. */
  get count(): number {
    return this.#count
  }

  /** Every page that has content is to be sent: the first pass. */
  setAll(): void {
    this.#words.fill(-1)
    const rest = this.pages & 31
    if (rest !== 0) this.#words[this.#words.length - 1] = (1 << rest) - 1
    this.#count = this.pages
    this.#leaveOutDiscarded()
  }

  /** Takes over what a log has gathered and clears it there. Returns how many pages were new. */
  takeFrom(log: SharedBitmap): number {
    const before = this.#count
    let added = 0
    for (let chunk = 0; chunk < this.#words.length; chunk += CHUNK_WORDS) {
      if (log.isClear(chunk)) continue
      const end = Math.min(chunk + CHUNK_WORDS, this.#words.length)
      for (let at = chunk; at < end; at++) {
        if (log.word(at) === 0) continue
        const old = this.#words[at]!
        const merged = old | log.takeWord(at)
        added += popCount(merged & ~old)
        this.#words[at] = merged
      }
    }
    this.#count += added
    this.#leaveOutDiscarded()
    return Math.max(this.#count - before, 0)
  }

  /** Pages [first, first + count) are to be sent. Returns how many of them were new. */
  setRange(first: number, count: number): number {
    const before = this.#count
    this.#eachWord(first, count, (at, mask) => {
      const old = this.#words[at]!
      this.#count += popCount(mask & ~old)
      this.#words[at] = old | mask
    })
    return this.#count - before
  }

  /** Pages [first, first + count) are not to be sent: bits and count. */
  clearRange(first: number, count: number): void {
    this.#eachWord(first, count, (at, mask) => {
      const old = this.#words[at]!
      this.#count -= popCount(mask & old)
      this.#words[at] = old & ~mask
    })
  }

  #eachWord(first: number, count: number, change: (at: number, mask: number) => void): void {
    const end = Math.min(first + count, this.pages)
    for (let page = first; page < end; ) {
      const from = page & 31
      const bits = Math.min(32 - from, end - page)
      change(page >>> 5, bits === 32 ? -1 : ((1 << bits) - 1) << from)
      page += bits
    }
  }

  #leaveOutDiscarded(): void {
    this.#sparse?.replayDiscardedPages((first, count) => this.clearRange(first, count))
  }

  /**
   * Moves set pages in order, from word `from` on, to the end of a list in the same memory, until that has `most` pages.
   *
   * @returns the word to go on from; the number of words once there are no more
   */
  take(from: number, most: number, into: PageRuns): number {
    const before = into.pages
    const next = this.#kernel.takePages(this.#at, this.#words.length, from, most, into.at)
    this.#count -= into.pages - before
    return next
  }

  /** Whether {@link take} has come to the end. */
  isEnd(word: number): boolean {
    return word === this.#words.length
  }
}
