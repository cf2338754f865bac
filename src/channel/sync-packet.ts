// A channel's SYNC packets: always the same but for the number.

import type { AddressRange, IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import { encodePacketNum, encodeSyncPacket, packetHeaderSize } from '../wire/multifd-packet.js'

export class SyncPacket {
  readonly #memory: PinnedBuffer
  readonly #range: AddressRange

  constructor(pagesPerPacket: number) {
    const size = packetHeaderSize(pagesPerPacket)
    this.#memory = new PinnedBuffer(size)
    this.#range = { address: this.#memory.address, size }
    encodeSyncPacket(this.#memory.view, 0, pagesPerPacket, 0)
  }

  /** Bytes. */
  get size(): number {
    return this.#range.size
  }

  /** Appends it to a list, which is to be sent before the next one is made. */
  push(packetNum: number, to: IoVector): void {
    encodePacketNum(this.#memory.view, 0, packetNum)
    to.push(this.#range, 0, this.#range.size)
  }
}
