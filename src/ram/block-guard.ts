// The blocks of a migration, in the thread of the program: fit to migrate at its start, and still the same at its end.

import type { RamBlock } from './block.js'
import { claimLog } from './log-use.js'

export class BlockGuard {
  readonly #blocks: readonly RamBlock[]
  #held: RamBlock[] = []
  #unclaim: (() => void) | undefined

  /**
   * Checks the blocks, and keeps what is populated of them as it is until {@link release}.
   *
   * @param tracked whether the kernel's log of them is claimed as well; wait for `logFree` first
   * @throws MultifdError ERR_MULTIFD_STATE when adopted memory has grown, or a sparse block is being changed
   */
  constructor(blocks: readonly RamBlock[], { tracked = false } = {}) {
    this.#blocks = blocks
    this.checkSame()
    try {
      for (const block of blocks) {
        block.discardManager?.hold()
        this.#held.push(block)
      }
    } catch (error) {
      this.release()
      throw error
    }
    if (tracked) this.#unclaim = claimLog(blocks)
  }

  /** Whether there is memory whose owner may have let it grow. */
  get adopted(): boolean {
    return this.#blocks.some(({ adopted }) => adopted)
  }

  /** @throws MultifdError ERR_MULTIFD_STATE */
  checkSame(): void {
    for (const block of this.#blocks) block.checkSame()
  }

  /** Idempotent. */
  release(): void {
    for (const { discardManager } of this.#held) discardManager?.release()
    this.#held = []
    this.#unclaim?.()
  }
}
