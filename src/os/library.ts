// A library's functions as a thread has them: the real ones, or those that fault points put in their place.

export class Library<Calls extends object> {
  readonly #load: () => Calls
  #calls: Calls | undefined
  #real: Calls | undefined

  /** @param load on first use, so that importing the package works on every system */
  constructor(load: () => Calls) {
    this.#load = load
  }

  /** Throws what loading throws. */
  get calls(): Calls {
    this.#calls ??= this.#load()
    return this.#calls
  }

  /** Puts calls in the place of the library's, in this thread. */
  replace(calls: Partial<Calls>): void {
    this.#real ??= this.calls
    this.#calls = { ...this.calls, ...calls }
  }

  /** Puts the library's own back. */
  restore(): void {
    if (this.#real) this.#calls = this.#real
    this.#real = undefined
  }
}
