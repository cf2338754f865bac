// What a compression method does for a channel: one file each behind these two interfaces.

import type { IoVector } from '../io/iovec.js'
import type { RamBlock } from '../ram/block.js'
import type { PacketHeader } from '../wire/multifd-packet.js'

/** One channel's sending half, with its state for the life of the channel. */
export interface SendMethod {
  /** Bits of the packet's flags. */
  readonly flag: number

  /** Appends the payload of the header's normal pages and sets its `nextPacketSize`. */
  prepare(header: PacketHeader, block: RamBlock, into: IoVector): void
}

/** One channel's receiving half. */
export interface RecvMethod {
  readonly flag: number

  /** Appends the places that the payload of the header's normal pages goes to: `nextPacketSize` bytes. */
  expect(header: PacketHeader, block: RamBlock, into: IoVector): void

  /** The payload is there; after this the pages are in their block. */
  finish(header: PacketHeader, block: RamBlock): void
}
