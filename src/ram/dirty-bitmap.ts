// The pages of one block that are still to be sent: the coordinator's own, one bit a page.

import { popCount, type SharedBitmap } from '../shm/bitmap.js'
import type { PageRuns } from '../shm/page-runs.js'
import type { PageKernel, SharedMemory } from '../wasm/kernel.js'

export class DirtyBitmap {
  readonly pages: number
  readonly #kernel: PageKernel
  readonly #at: number
  readonly #words: Int32Array
  #count = 0

  /** @param at where its {@link DirtyBitmap.words} are in the memory, bytes */
  constructor(pages: number, memory: SharedMemory, kernel: PageKernel, at: number) {
    this.pages = pages
    this.#kernel = kernel
    this.#at = at
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

  /** Every page is to be sent: the first pass. */
  setAll(): void {
    this.#words.fill(-1)
    const rest = this.pages & 31
    if (rest !== 0) this.#words[this.#words.length - 1] = (1 << rest) - 1
    this.#count = this.pages
  }

  /** Takes over what a log has gathered and clears it there. Returns how many pages were new. */
  takeFrom(log: SharedBitmap): number {
    let added = 0
    for (let at = 0; at < this.#words.length; at++) {
      if (log.word(at) === 0) continue
      const old = this.#words[at]!
      const merged = old | log.takeWord(at)
      added += popCount(merged & ~old)
      this.#words[at] = merged
    }
    this.#count += added
    return added
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
