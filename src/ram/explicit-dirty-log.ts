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
    this.#block.dirty.clearAll()
  }

  synchronise(into: DirtyBitmap): number {
    return into.takeFrom(this.#block.dirty)
  }

  stop(): void {
    // What is marked from here on is the next migration's.
  }
}
