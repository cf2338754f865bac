// What the program's thread and the thread of a background snapshot tell each other besides messages.

import { Semaphore } from './semaphore.js'
import { THREAD_CONTROL_WORDS, ThreadControl } from './thread-control.js'

/** `holding` is written by the snapshot's thread. */
const WORD = { begin: THREAD_CONTROL_WORDS, holding: THREAD_CONTROL_WORDS + 1 } as const

export class SaveControl extends ThreadControl {
  /** Posted once the program stands still. */
  readonly begin: Semaphore

  constructor(buffer = new SharedArrayBuffer(4 * (THREAD_CONTROL_WORDS + Object.keys(WORD).length))) {
    super(buffer)
    this.begin = new Semaphore(this.words, WORD.begin)
  }

  override stop(): void {
    super.stop()
    this.begin.post()
  }

  /** Writes are held up by this descriptor; undefined: no more. Pairs with the wait in {@link waitGone}. */
  noteHolding(descriptor: number | undefined): void {
    this.set(WORD.holding, descriptor === undefined ? 0 : descriptor + 1)
  }

  /** The descriptor that holds writes up, if any. */
  get holding(): number | undefined {
    const word = Atomics.load(this.words, WORD.holding)
    return word === 0 ? undefined : word - 1
  }

  /** Waits until the thread can be ended and holds nobody up, at most `timeoutMs`: for a process that exits. */
  waitGone(timeoutMs: number): void {
    this.waitLoaded(timeoutMs)
    const holding = Atomics.load(this.words, WORD.holding)
    if (holding !== 0) Atomics.wait(this.words, WORD.holding, holding, timeoutMs)
  }
}
