// What the program's thread tells a thread that works for it by itself, and the other way round.

const WORD = { stop: 0, loaded: 1 } as const

/** Words of shared memory that it takes; more may follow them. */
export const THREAD_CONTROL_WORDS = Object.keys(WORD).length

/** `stop` is written by the program's thread, `loaded` by the other one. */
export class ThreadControl {
  readonly buffer: SharedArrayBuffer
  protected readonly words: Int32Array

  constructor(buffer = new SharedArrayBuffer(4 * THREAD_CONTROL_WORDS)) {
    this.buffer = buffer
    this.words = new Int32Array(buffer)
  }

  /** Asks the thread to end. Pairs with the wait in {@link sleep}. */
  stop(): void {
    this.set(WORD.stop, 1)
  }

  get stopped(): boolean {
    return Atomics.load(this.words, WORD.stop) !== 0
  }

  /** Waits for so long, or until the thread is to end: false then. */
  sleep(ms: number): boolean {
    Atomics.wait(this.words, WORD.stop, 0, Math.max(0, ms))
    return !this.stopped
  }

  /** The thread can be ended from here on. Pairs with the wait in {@link waitLoaded}. */
  noteLoaded(): void {
    this.set(WORD.loaded, 1)
  }

  /** Waits until the thread can be ended, at most `timeoutMs`: for a process that exits. */
  waitLoaded(timeoutMs: number): void {
    Atomics.wait(this.words, WORD.loaded, 0, timeoutMs)
  }

  protected set(word: number, value: number): void {
    Atomics.store(this.words, word, value)
    Atomics.notify(this.words, word)
  }
}
