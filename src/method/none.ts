// Pages as they are: the kernel reads them from their block, and writes them into it.

import type { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import { type PacketHeader, runLength } from '../wire/multifd-packet.js'
import type { RecvMethod, SendMethod } from './method.js'

export class NoneSend implements SendMethod {
  readonly flag = 0
  #zeroPage: { address: number; size: number; buffer: PinnedBuffer } | undefined

  prepare(header: PacketHeader, block: RamBlock, into: IoVector): void {
    const { pageSize, populated } = block
    const { normalPages, offsets } = header
    for (let i = 0; i < normalPages; ) {
      const offset = offsets[i]!
      // A file may have anything where a page is known to be zero.
      const known = populated && !populated.has(offset / pageSize)
      const run = populated ? 1 : runLength(offsets, i, normalPages, pageSize)
      if (known) into.push(this.#zeros(pageSize), 0, pageSize)
      else into.push(block, offset, run * pageSize)
      i += run
    }
    header.nextPacketSize = normalPages * pageSize
  }

  #zeros(size: number): { address: number; size: number } {
    if (!this.#zeroPage) {
      const buffer = new PinnedBuffer(size)
      this.#zeroPage = { address: buffer.address, size, buffer }
    }
    return this.#zeroPage
  }
}

export class NoneRecv implements RecvMethod {
  readonly flag = 0

  expect({ normalPages, offsets }: PacketHeader, block: RamBlock, into: IoVector): void {
    const { pageSize } = block
    for (let i = 0; i < normalPages; ) {
      const run = runLength(offsets, i, normalPages, pageSize)
      into.push(block, offsets[i]!, run * pageSize)
      i += run
    }
  }

  finish(): void {
    // The pages are where they belong.
  }
}
