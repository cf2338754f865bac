// What the program's thread and the thread of a background snapshot tell each other besides messages.

import { Semaphore } from './semaphore.js'

/** `stop` is written by the program's thread, `loaded` and `holding` by the snapshot's. */
const WORD = { begin: 0, stop: 1, loaded: 2, holding: 3 } as const

export class SaveControl {
  readonly buffer: SharedArrayBuffer
  /** Posted once the program stands still. */
  readonly begin: Semaphore
  readonly #words: Int32Array

  constructor(buffer = new SharedArrayBuffer(4 * Object.keys(WORD).length)) {
    this.buffer = buffer
    this.#words = new Int32Array(buffer)
    this.begin = new Semaphore(this.#words, WORD.begin)
  }

  /** Asks the thread to end. */
  stop(): void {
    Atomics.store(this.#words, WORD.stop, 1)
    this.begin.post()
  }

  get stopped(): boolean {
    return Atomics.load(this.#words, WORD.stop) !== 0
  }

  /** The thread can be ended from here on. Pairs with the wait in {@link waitGone}. */
  noteLoaded(): void {
    this.#set(WORD.loaded, 1)
  }

  /** Writes are held up by this descriptor; undefined: no more. Pairs with the wait in {@link waitGone}. */
  noteHolding(descriptor: number | undefined): void {
    this.#set(WORD.holding, descriptor === undefined ? 0 : descriptor + 1)
  }

  /** The descriptor that holds writes up, if any. */
  get holding(): number | undefined {
    const word = Atomics.load(this.#words, WORD.holding)
    return word === 0 ? undefined : word - 1
  }

  /** Waits until the thread can be ended and holds nobody up, at most `timeoutMs`: for a process that exits. */
  waitGone(timeoutMs: number): void {
    Atomics.wait(this.#words, WORD.loaded, 0, timeoutMs)
    const holding = Atomics.load(this.#words, WORD.holding)
    if (holding !== 0) Atomics.wait(this.#words, WORD.holding, holding, timeoutMs)
  }

  #set(word: number, value: number): void {
    Atomics.store(this.#words, word, value)
    Atomics.notify(this.#words, word)
  }
}
