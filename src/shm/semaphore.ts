// A counting semaphore in one word of shared memory.

/** Posted by any thread; waited for by threads that may block, which the embedding program's main thread may not. */
export class Semaphore {
  readonly #words: Int32Array
  readonly #at: number

  constructor(words: Int32Array, at: number) {
    this.#words = words
    this.#at = at
  }

  /** Adds one and wakes one waiter. Pairs with the exchange in {@link tryWait}: what came before is seen after it. */
  post(): void {
    Atomics.add(this.#words, this.#at, 1)
    Atomics.notify(this.#words, this.#at, 1)
  }

  /** Whether there is one to take, at this instant. */
  get posted(): boolean {
    return Atomics.load(this.#words, this.#at) > 0
  }

  /** Takes one if there is one. */
  tryWait(): boolean {
    for (;;) {
      const count = Atomics.load(this.#words, this.#at)
      if (count <= 0) return false
      if (Atomics.compareExchange(this.#words, this.#at, count, count - 1) === count) return true
    }
  }

  /** Takes one, waiting up to `timeoutMs`. Returns false when the time is over. */
  wait(timeoutMs: number): boolean {
    if (this.tryWait()) return true
    const end = performance.now() + timeoutMs
    for (;;) {
      const left = end - performance.now()
      if (left <= 0) return false
      Atomics.wait(this.#words, this.#at, 0, left)
      if (this.tryWait()) return true
    }
  }

  /** Takes all there are: for a waiter that looks at the state itself after it wakes. */
  drain(): void {
    Atomics.exchange(this.#words, this.#at, 0)
  }
}

/** How long a fault point that makes something late makes it late. */
export const LATE_MS = 20
const never = new Int32Array(new SharedArrayBuffer(4))

/** Rests for {@link LATE_MS}; for threads that may block. */
export function beLate(): void {
  Atomics.wait(never, 0, 0, LATE_MS)
}

/** One whose waiter goes on later than it could. */
export class LateSemaphore extends Semaphore {
  readonly #happens: () => boolean

  constructor(words: Int32Array, at: number, happens: () => boolean) {
    super(words, at)
    this.#happens = happens
  }

  override wait(timeoutMs: number): boolean {
    const taken = super.wait(timeoutMs)
    if (taken && this.#happens()) beLate()
    return taken
  }
}
