// Pages as they are: the kernel reads them from their block, and writes them into it.

import type { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { PacketHeader } from '../wire/multifd-packet.js'
import type { RecvMethod, SendMethod } from './method.js'

export class NoneSend implements SendMethod {
  readonly flag = 0
  #zeroPage: { address: number; size: number; buffer: PinnedBuffer } | undefined

  prepare(header: PacketHeader, block: RamBlock, into: IoVector): void {
    const { pageSize, populated } = block
    for (let i = 0; i < header.normalPages; i++) {
      const offset = header.offsets[i]!
      // A file may have anything where a page is known to be zero.
      if (populated && !populated.has(offset / pageSize)) into.push(this.#zeros(pageSize), 0, pageSize)
      else into.push(block, offset, pageSize)
    }
    header.nextPacketSize = header.normalPages * pageSize
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

  expect(header: PacketHeader, block: RamBlock, into: IoVector): void {
    for (let i = 0; i < header.normalPages; i++) into.push(block, header.offsets[i]!, block.pageSize)
  }

  finish(): void {
    // The pages are where they belong.
  }
}
