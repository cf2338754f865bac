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

  /** Calls `visit` with every set page in order, each cleared first, until it returns false. */
  drain(visit: (page: number) => boolean): void {
    for (let at = 0; at < this.#words.length; at++) {
      let word = this.#words[at]!
      while (word !== 0) {
        const bit = trailingZeros(word)
        word &= word - 1
        this.#words[at] = word
        this.#count--
        if (!visit(at * 32 + bit)) return
      }
    }
  }
}
