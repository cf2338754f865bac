// A receiving channel's rehearsal: the loop takes packets of its own before the first real ones come.
//
// Code that runs for the first time is read, compiled and looked up piece by piece, which takes milliseconds, and in every
// thread anew. A destination waits for its source anyway; a source's first packets find warm code then.

import type { Channel } from '../io/channel.js'
import type { Connection } from '../io/connection.js'
import { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import { closeDescriptor, openPair, shutdownBoth } from '../os/socket.js'
import { RamBlock } from '../ram/block.js'
import { MemoryLoadBlock } from '../ram/load-block.js'
import { PacketMemory } from '../shm/packet-memory.js'
import {
  encodeBlockName,
  encodeIdstr,
  encodeSyncPacket,
  packetHeaderSize,
  pagesPerPacket,
} from '../wire/multifd-packet.js'

const PAGE_SIZE = 4096
const PAGES = 16
// Packets in a round: what a pair of sockets has room for.
const PACKETS = 16

/** What is played: the bytes of a channel's stream, and the block that they are for. */
export class Rehearsal {
  readonly block: MemoryLoadBlock
  readonly pageSize = PAGE_SIZE
  readonly #stream: PinnedBuffer
  readonly #connect: (connection: Connection) => Channel

  /** @param connect as the channel's own connection is made */
  constructor(connect: (connection: Connection) => Channel) {
    this.#connect = connect
    const block = RamBlock.staging(PAGES, PAGE_SIZE)
    this.block = new MemoryLoadBlock(block)
    const packet = PacketMemory.alone()
    const { kernel, normal, zero } = packet
    const { view, at } = packet.headers[0]!
    const perPacket = pagesPerPacket(PAGE_SIZE)
    const headerSize = packetHeaderSize(perPacket)
    const header = new Uint8Array(view.buffer, at, headerSize)
    this.#stream = new PinnedBuffer((PACKETS + 2) * headerSize + PACKETS * PAGE_SIZE)
    let end = 0
    const put = (payload: number): void => {
      this.#stream.bytes.set(header, end)
      end += headerSize + payload
    }
    encodeSyncPacket(view, 0, perPacket, 0)
    put(0)
    encodeBlockName(view, 0, encodeIdstr(block.idstr))
    for (let i = 0; i < PACKETS; i++) {
      normal.reset()
      normal.push(i % PAGES, 1)
      kernel.encodePacket(at, 0, PAGE_SIZE, i, normal.at, zero.at, block.pageShift, perPacket)
      put(PAGE_SIZE)
    }
    encodeSyncPacket(view, 0, perPacket, 0)
    put(0)
  }

  /** Plays it once. `run` has a channel with all of it, to its end. */
  play(run: (channel: Channel) => void): void {
    const [ours, theirs] = openPair()
    try {
      const sender = this.#connect({ fd: theirs })
      const { address, bytes } = this.#stream
      const vector = new IoVector(1)
      vector.push({ address, size: bytes.length }, 0, bytes.length)
      sender.writeFull(vector)
      shutdownBoth(theirs)
      run(this.#connect({ fd: ours }))
    } finally {
      closeDescriptor(ours)
      closeDescriptor(theirs)
    }
  }
}
