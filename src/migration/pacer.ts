// Holds a source to its bandwidth: a bucket that fills at the allowed rate and may hold a few milliseconds of it.

// What a thread that woke late has missed is made up for, as far as a second's average bears it.
const BURST_MS = 15
// What is sent at a time: smooth within a second, and large enough that a packet's header does not count.
const PORTION_MS = 4
const PORTION_MIN_PAGES = 32

/** Pages that are sent at a time, where `most` would be without a limit. */
export function portionPages(maxBandwidth: number, pageSize: number, most: number): number {
  if (maxBandwidth === 0) return most
  const pages = Math.floor((maxBandwidth * PORTION_MS) / 1000 / pageSize)
  return Math.min(most, Math.max(PORTION_MIN_PAGES, pages))
}

export class Pacer {
  readonly #maxBandwidth: () => number
  #free = false
  #limited = false
  // Bytes that may be sent now; below zero they are owed.
  #allowance = 0
  #filledAt = 0
  // Bytes that the allowance has paid for.
  #charged = 0

  /** @param maxBandwidth bytes a second, 0 for no limit; it may change */
  constructor(maxBandwidth: () => number) {
    this.#maxBandwidth = maxBandwidth
  }

  /** Forgets what was saved up or owed: a pass begins. */
  restart(): void {
    this.#allowance = 0
    this.#filledAt = performance.now()
  }

  /** Holds nothing back from now on. */
  free(): void {
    this.#free = true
  }

  /**
   * Waits until what is sent may be. Of bytes that are on their way yet, `sent` has an estimate, and better ones as they
   * go: it is asked again after each wait.
   *
   * @param sent bytes, of the whole migration
   * @param wait returns after at most the time it is given, ms
   */
  hold(sent: () => number, wait: (ms: number) => void): void {
    for (;;) {
      const bytesPerMs = this.#free ? 0 : this.#maxBandwidth() / 1000
      const began = !this.#limited
      this.#limited = bytesPerMs > 0
      if (!this.#limited) return
      const total = sent()
      // Nothing is owed from the time without a limit.
      if (began) {
        this.#charged = total
        this.restart()
      }
      this.#allowance -= total - this.#charged
      this.#charged = total
      const now = performance.now()
      const filled = this.#allowance + (now - this.#filledAt) * bytesPerMs
      this.#allowance = Math.min(filled, BURST_MS * bytesPerMs)
      this.#filledAt = now
      if (this.#allowance >= 0) return
      wait(-this.#allowance / bytesPerMs)
    }
  }
}
