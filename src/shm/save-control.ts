// What the program's thread and the thread of a background snapshot tell each other besides messages.

import { OpenDescriptors } from './open-descriptors.js'
import { Semaphore } from './semaphore.js'
import { THREAD_CONTROL_WORDS, ThreadControl } from './thread-control.js'

/** `holding` and `descriptors` are written by the snapshot's thread. */
const WORD = {
  begin: THREAD_CONTROL_WORDS,
  holding: THREAD_CONTROL_WORDS + 1,
  descriptors: THREAD_CONTROL_WORDS + 2,
} as const
// It has the file open, and what holds writes up.
const DESCRIPTORS = 8

export class SaveControl extends ThreadControl {
  /** Posted once the program stands still. */
  readonly begin: Semaphore

  constructor(buffer = new SharedArrayBuffer(4 * (WORD.descriptors + DESCRIPTORS))) {
    super(buffer)
    this.begin = new Semaphore(this.words, WORD.begin)
  }

  override stop(): void {
    super.stop()
    this.begin.post()
  }

  /** Whether writes are held up. Pairs with the wait in {@link waitGone}. */
  noteHolding(holding: boolean): void {
    this.set(WORD.holding, holding ? 1 : 0)
  }

  /** What the snapshot's thread has open. */
  descriptors(): OpenDescriptors {
    return new OpenDescriptors(this.words.subarray(WORD.descriptors, WORD.descriptors + DESCRIPTORS))
  }

  /** Waits until the thread can be ended and holds nobody up, at most `timeoutMs`: for a process that exits. */
  waitGone(timeoutMs: number): void {
    this.waitLoaded(timeoutMs)
    Atomics.wait(this.words, WORD.holding, 1, timeoutMs)
  }
}
