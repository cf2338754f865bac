// The pages of one block that are still to be sent: the coordinator's own, one bit a page.

import { popCount, type SharedBitmap, trailingZeros } from '../shm/bitmap.js'

/** A sparse block: tells the runs of pages that have no content. */
export interface DiscardedPages {
  replayDiscardedPages(visit: (first: number, count: number) => void): void
}

export class DirtyBitmap {
  readonly pages: number
  readonly #sparse: DiscardedPages | undefined
  readonly #words: Int32Array
  #count = 0

  /** @param sparse whose discarded pages are never to be sent */
  constructor(pages: number, sparse?: DiscardedPages) {
    this.pages = pages
    this.#sparse = sparse
    this.#words = new Int32Array(Math.ceil(pages / 32))
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
    for (let at = 0; at < this.#words.length; at++) {
      if (log.word(at) === 0) continue
      const old = this.#words[at]!
      const merged = old | log.takeWord(at)
      added += popCount(merged & ~old)
      this.#words[at] = merged
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

  /** Calls `visit` with every run of set pages in order, none longer than `longest`, and clears them. */
  drain(longest: number, visit: (first: number, count: number) => void): void {
    const words = this.#words
    let first = 0
    let count = 0
    for (let at = 0; at < words.length; at++) {
      let word = words[at]!
      if (word === 0) continue
      words[at] = 0
      while (word !== 0) {
        const bit = trailingZeros(word)
        // Ones from there on: up to the next zero, or to the end of the word.
        const ones = trailingZeros(~(word >>> bit))
        const length = Math.min(ones, 32 - bit)
        word = bit + length === 32 ? 0 : word & (-1 << (bit + length))
        const page = at * 32 + bit
        if (count > 0 && page === first + count) count += length
        else {
          this.#hand(first, count, longest, visit)
          first = page
          count = length
        }
        while (count >= longest) {
          this.#hand(first, longest, longest, visit)
          first += longest
          count -= longest
        }
      }
    }
    this.#hand(first, count, longest, visit)
  }

  #hand(first: number, count: number, longest: number, visit: (first: number, count: number) => void): void {
    if (count === 0) return
    this.#count -= count
    visit(first, Math.min(count, longest))
  }
}
