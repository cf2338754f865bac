// The pages of one block that are still to be sent: the coordinator's own, one bit a page.

import { popCount, type SharedBitmap, trailingZeros } from '../shm/bitmap.js'

export class DirtyBitmap {
  readonly pages: number
  readonly #words: Int32Array
  #count = 0

  constructor(pages: number) {
    this.pages = pages
    this.#words = new Int32Array(Math.ceil(pages / 32))
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
