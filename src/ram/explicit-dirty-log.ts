// The explicit dirty log: the program marks what it changes.

import type { RamBlock } from './block.js'
import type { DirtyBitmap } from './dirty-bitmap.js'
import type { DirtyLog } from './dirty-log.js'

export class ExplicitDirtyLog implements DirtyLog {
  readonly #block: RamBlock

  constructor(block: RamBlock) {
    this.#block = block
  }

  start(): void {
    const { dirty } = this.#block
    for (let at = 0; at < dirty.wordCount; at++) if (dirty.word(at) !== 0) dirty.takeWord(at)
  }

  synchronise(into: DirtyBitmap): number {
    return into.takeFrom(this.#block.dirty)
  }

  stop(): void {
    // What is marked from here on is the next migration's.
  }
}
