// Huge pages that several threads would touch first: the kernel lets each of them clear one, and keeps one.

import { HUGE_PAGE_SIZE, populate } from '../os/memory.js'
import type { PageRuns } from './page-runs.js'

const HUGE_PAGE_SHIFT = Math.log2(HUGE_PAGE_SIZE)
const UNTOUCHED = 0
const TOUCHING = 1
const TOUCHED = 2
// Far more than a huge page takes; whoever waits longer goes on, and clears one of its own at worst.
const PATIENCE_MS = 20

/** Pages, and where they lie. */
export interface PagesAt {
  readonly address: number
  readonly pages: number
  readonly pageShift: number
}

/** For memory that threads receive into side by side: one of them touches a huge page, the others wait for it. */
export class FirstTouch {
  readonly states: SharedArrayBuffer
  readonly #block: PagesAt
  readonly #words: Int32Array
  // Pages of the first huge page that lie before the block, and log2 of a huge page's pages.
  readonly #lead: number
  readonly #shift: number

  /** @param states of another thread's, for the same memory */
  constructor(block: PagesAt, states?: SharedArrayBuffer) {
    this.#block = block
    this.#shift = HUGE_PAGE_SHIFT - block.pageShift
    this.#lead = (block.address % HUGE_PAGE_SIZE) / 2 ** block.pageShift
    const count = ((this.#lead + block.pages - 1) >>> this.#shift) + 1
    this.states = states ?? new SharedArrayBuffer(4 * count)
    this.#words = new Int32Array(this.states)
  }

  /** To be called before bytes arrive in pages, which lie in the block. */
  before(runs: PageRuns): void {
    const shift = this.#shift
    for (let run = 0; run < runs.count; run++) {
      const first = runs.first(run) + this.#lead
      const last = (first + runs.length(run) - 1) >>> shift
      for (let at = first >>> shift; at <= last; at++) {
        if (Atomics.load(this.#words, at) !== TOUCHED) this.#touch(at, Math.max(first, at << shift))
      }
    }
  }

  #touch(at: number, page: number): void {
    if (Atomics.compareExchange(this.#words, at, UNTOUCHED, TOUCHING) === TOUCHING) {
      Atomics.wait(this.#words, at, TOUCHING, PATIENCE_MS)
      return
    }
    const size = 2 ** this.#block.pageShift
    populate(this.#block.address + (page - this.#lead) * size, size)
    Atomics.store(this.#words, at, TOUCHED)
    Atomics.notify(this.#words, at)
  }
}
