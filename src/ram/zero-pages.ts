// Which pages of a block are zero: by its bitmap, by the page kernel, or by what the file and the memory say.

import { isZero } from '../os/memory.js'
import type { SharedBitmap } from '../shm/bitmap.js'
import { type PageKernel, pageKernel, type SharedMemory } from '../wasm/kernel.js'
import type { FileHoles } from './file-holes.js'

/** Most pages that {@link ZeroPages.mask} looks at. */
export const ZERO_MASK_PAGES = 32

/** What is asked, of one block. */
export interface ZeroPagesOf {
  readonly address: number
  readonly pageSize: number
  readonly pageShift: number
  /** Believed where it is kept. */
  readonly populated: SharedBitmap | undefined
}

export class ZeroPages {
  readonly #block: ZeroPagesOf
  readonly #memory: SharedMemory | undefined
  readonly #holes: FileHoles | undefined
  #kernel: PageKernel | undefined

  constructor(block: ZeroPagesOf, memory: SharedMemory | undefined, holes: FileHoles | undefined) {
    this.#block = block
    this.#memory = memory
    this.#holes = holes
  }

  /** See RamBlock.zeroPages. */
  mask(first: number, count: number): number {
    const { populated, pageSize, pageShift, address } = this.#block
    if (populated) return ~populated.bits(first) & (count === 32 ? -1 : (1 << count) - 1)
    if (this.#memory) {
      this.#kernel ??= pageKernel(this.#memory)
      return this.#kernel.zeroPages(first, count, pageShift)
    }
    let mask = 0
    for (let i = 0; i < count; i++) {
      const offset = (first + i) * pageSize
      if (this.#holes?.isHole(offset, pageSize) || isZero(address + offset, pageSize)) mask |= 1 << i
    }
    return mask
  }

  /** See RamBlock.hasZeroPage. */
  any(first: number, count: number): boolean {
    if (this.#memory && !this.#block.populated) {
      this.#kernel ??= pageKernel(this.#memory)
      return this.#kernel.findZeroPage(first, count, this.#block.pageShift) < count
    }
    for (let done = 0; done < count; done += ZERO_MASK_PAGES) {
      if (this.mask(first + done, Math.min(ZERO_MASK_PAGES, count - done)) !== 0) return true
    }
    return false
  }
}
