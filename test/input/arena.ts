// RAM blocks with guard pages around them, whose every byte is known: a write outside a block shows.

import { libc } from '../../src/os/libc.js'
import { mapAnonymous, PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock } from '../../src/ram/block.js'
import { type LoadBlock, MemoryLoadBlock } from '../../src/ram/load-block.js'
import { SharedBitmap } from '../../src/shm/bitmap.js'

export const PAGE = 4096
/** Bytes of a guard, before each block and after the last. */
const GUARD = 256 * 1024
/** Bytes on each side of a block that are looked at after every run; the whole guards from time to time. */
const NEAR = 2 * PAGE

export interface BlockShape {
  idstr: string
  /** Bytes. */
  size: number
}

export class Arena {
  readonly blocks: RamBlock[] = []
  readonly #guards: number[] = []
  readonly #pattern = new PinnedBuffer(GUARD)

  constructor(shapes: readonly BlockShape[]) {
    const { bytes } = this.#pattern
    for (let i = 0; i < GUARD; i++) bytes[i] = 0x80 | (i * 37) | (i >> 8)
    const sizes = shapes.reduce((sum, { size }) => sum + size, 0)
    let at = mapAnonymous(sizes + GUARD * (shapes.length + 1)).address
    const guard = (): void => {
      libc().memcpy(at, this.#pattern.address, GUARD)
      this.#guards.push(at)
      at += GUARD
    }
    guard()
    for (const { idstr, size } of shapes) {
      const dirty = new SharedBitmap(size / PAGE).buffer
      this.blocks.push(RamBlock.from({ idstr, size, pageSize: PAGE, address: at, dirty }))
      at += size
      guard()
    }
  }

  /** Fresh load blocks over the same memory. */
  load(): LoadBlock[] {
    return this.blocks.map((block) => new MemoryLoadBlock(block))
  }

  /** Whether the guards next to the blocks are as they were. */
  get nearIntact(): boolean {
    const { address } = this.#pattern
    const { memcmp } = libc()
    const far = GUARD - NEAR
    return this.#guards.every((at) => memcmp(at, address, NEAR) === 0 && memcmp(at + far, address + far, NEAR) === 0)
  }

  /** Whether every byte of every guard is as it was. */
  get intact(): boolean {
    return this.#guards.every((at) => libc().memcmp(at, this.#pattern.address, GUARD) === 0)
  }

  /** Clears the blocks, so that {@link untouched} tells whether something was written into them. */
  clear(): void {
    for (const { address, size } of this.blocks) libc().memset(address, 0, size)
  }

  /** Whether every page of every block is zero. */
  get untouched(): boolean {
    return this.blocks.every((block) => {
      for (let page = 0; page < block.pages; page++) if (!block.isZeroPage(page)) return false
      return true
    })
  }
}
