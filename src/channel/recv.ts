// The receive loop of one channel: reads packets, puts their pages where they belong, rests at every SYNC.

import { MultifdError } from '../errors.js'
import { FAULT } from '../faults.js'
import type { Channel } from '../io/channel.js'
import { DescriptorChannel, describe } from '../io/descriptor-channel.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import type { RecvMethod } from '../method/method.js'
import { NoneRecv } from '../method/none.js'
import { PinnedBuffer } from '../os/memory.js'
import { LoadBlock, type LoadBlockHandle } from '../ram/load-block.js'
import { COUNTER } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import {
  decodeIdstr,
  decodePacketHeader,
  IDSTR_OFFSET,
  METHOD_MASK,
  MULTIFD_FLAG,
  PacketHeader,
  packetHeaderSize,
  pagesPerPacket,
  runLength,
  sameIdstr,
} from '../wire/multifd-packet.js'
import {
  type ChannelTask,
  channelWait,
  runChannelThread,
  Stopped,
  type ThreadOutcome,
  takeHandOver,
  waitHandOver,
} from './thread.js'

const LOOK_MS = 100

/** The coordinator's first hand-over: the connection, its initial packet already read. */
export interface RecvConnection {
  fd: number
  /** Bytes of a target page, from the main channel's configuration. */
  pageSize: number
}

/** Its second, before the first barrier is released: the blocks of the RAM set-up. */
export interface RecvBlocks {
  blocks: LoadBlockHandle[]
}

/** What a receive loop needs of the rest of the migration. Tests put their own in its place. */
export interface RecvContext {
  channel: Channel
  pageSize: number
  /** The blocks of the RAM set-up, or undefined before it came. */
  blocks(): LoadBlock[] | undefined
  /** Called at a SYNC, with everything before it in place; returns when the barrier is released. */
  barrier(): void
  /** Whether the main stream is over, so that no page may come any more. */
  ending(): boolean
  counted(bytes: number, normalPages: number, zeroPages: number): void
}

/** Runs a channel to the end of its stream. The descriptor stays the coordinator's to close. */
export function runRecv(task: ChannelTask): ThreadOutcome {
  const { channel } = task
  return runChannelThread(task, `mig/dst/recv_${channel}`, (shm) => {
    const { fd, pageSize } = waitHandOver<RecvConnection>(shm, task)
    let blocks: LoadBlock[] | undefined
    new RecvLoop({
      channel: new DescriptorChannel(fd, channel, channelWait(shm, channel, task.stallTimeoutMs)),
      pageSize,
      blocks() {
        blocks ??= takeHandOver<RecvBlocks>(task)?.blocks.map((handle) => LoadBlock.from(handle))
        return blocks
      },
      barrier: () => waitBarrier(shm, channel),
      ending: () => shm.ending,
      counted(bytes, normalPages, zeroPages) {
        shm.count(channel, COUNTER.bytes, bytes)
        shm.count(channel, COUNTER.packets, 1)
        if (normalPages > 0) shm.count(channel, COUNTER.normalPages, normalPages)
        if (zeroPages > 0) shm.count(channel, COUNTER.zeroPages, zeroPages)
      },
    }).run()
  })
}

function waitBarrier(shm: MigrationShm, channel: number): void {
  const reached = shm.reachSync(channel)
  if (shm.faultArmed(FAULT.recvWithoutBarrier)) return
  // A stop wakes those who wait already: whoever comes later looks first, and whoever comes in between waits shortly.
  while (!shm.stopped && !shm.waitReleased(reached, LOOK_MS));
  if (shm.stopped) throw new Stopped()
}

/** Exported for tests that feed it bytes without threads. */
export class RecvLoop {
  readonly #context: RecvContext
  readonly #method: RecvMethod = new NoneRecv()
  readonly #header: PacketHeader
  readonly #packet: PinnedBuffer
  readonly #packetRange: AddressRange
  readonly #vector = new IoVector()
  // Packets have one block each, and mostly the one of the packet before.
  #block: LoadBlock | undefined
  #pagesSinceSync = 0
  #synced = false

  constructor(context: RecvContext) {
    const perPacket = pagesPerPacket(context.pageSize)
    const size = packetHeaderSize(perPacket)
    this.#context = context
    this.#header = new PacketHeader(perPacket)
    this.#packet = new PinnedBuffer(size)
    this.#packetRange = { address: this.#packet.address, size }
  }

  run(): void {
    const headerSize = this.#packetRange.size
    let haveHeader = this.#readHeader()
    while (haveHeader) {
      this.#decode()
      const { flags, nextPacketSize, normalPages, zeroPages } = this.#header
      const block = this.#block
      const sync = (flags & MULTIFD_FLAG.sync) !== 0
      this.#vector.reset()
      if (normalPages > 0) this.#method.expect(this.#header, block!.block, this.#vector)
      // The next header rides on this read; not on a SYNC's, after which nothing may come before the barrier is passed.
      if (!sync) this.#vector.push(this.#packetRange, 0, headerSize)
      const got = this.#readFull(nextPacketSize)
      if (got < nextPacketSize) throw this.#truncated('page data', nextPacketSize - got)
      if (normalPages > 0) this.#method.finish(this.#header, block!.block)
      this.#apply(block)
      this.#context.counted(headerSize + nextPacketSize, normalPages, zeroPages)
      if (sync) {
        this.#pagesSinceSync = 0
        this.#synced = true
        this.#context.barrier()
        haveHeader = this.#readHeader()
      } else haveHeader = this.#isHeader(got - nextPacketSize)
    }
    if (this.#pagesSinceSync > 0) {
      const { name } = this.#context.channel
      throw new MultifdError('ERR_MULTIFD_BARRIER', `${describe(name)}: ended with pages after its last SYNC`)
    }
  }

  #readHeader(): boolean {
    this.#vector.reset()
    this.#vector.push(this.#packetRange, 0, this.#packetRange.size)
    return this.#isHeader(this.#readFull(0))
  }

  #readFull(boundary: number): number {
    return this.#vector.length === 0 ? 0 : this.#context.channel.readFull(this.#vector, boundary)
  }

  #isHeader(got: number): boolean {
    const { size } = this.#packetRange
    if (got === 0) return false
    if (got < size) throw this.#truncated("a packet's header", size - got)
    return true
  }

  #decode(): void {
    const { channel } = this.#context
    const header = this.#header
    try {
      decodePacketHeader(this.#packet.view, 0, header.offsets.length, header)
      const pages = header.normalPages + header.zeroPages
      if (pages === 0) return
      if (!this.#synced) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages came before the first SYNC')
      if (this.#context.ending()) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages after the last barrier')
      const method = header.flags & METHOD_MASK
      if (method !== this.#method.flag) {
        throw new MultifdError(
          'ERR_MULTIFD_PROTOCOL',
          `compression method 0x${method.toString(16)} is not the agreed one`,
        )
      }
      this.#findBlock().checkPage(header.largestOffset)
    } catch (error) {
      if (!(error instanceof MultifdError)) throw error
      throw new MultifdError(error.code, `${describe(channel.name)}: ${error.message}`, {
        channel: channel.name,
        packetNum: header.packetNum,
        cause: error,
      })
    }
  }

  #findBlock(): LoadBlock {
    const { view } = this.#packet
    if (this.#block && sameIdstr(view, IDSTR_OFFSET, this.#block.idstr)) return this.#block
    const blocks = this.#context.blocks()
    if (!blocks) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages came before the RAM set-up')
    const found = blocks.find(({ idstr }) => sameIdstr(view, IDSTR_OFFSET, idstr))
    if (!found) throw new MultifdError('ERR_MULTIFD_BLOCK', `unknown RAM block '${decodeIdstr(view, IDSTR_OFFSET)}'`)
    this.#block = found
    return found
  }

  #apply(block: LoadBlock | undefined): void {
    const { normalPages, zeroPages, offsets } = this.#header
    for (let i = 0; i < normalPages; ) {
      const run = runLength(offsets, i, normalPages, this.#context.pageSize)
      block!.gotData(offsets[i]!, run)
      i += run
    }
    for (let i = normalPages; i < normalPages + zeroPages; i++) block!.gotZero(offsets[i]!)
    this.#pagesSinceSync += normalPages + zeroPages
  }

  #truncated(what: string, missing: number): MultifdError {
    const { name } = this.#context.channel
    const message = `${describe(name)}: the peer closed it inside ${what}, ${missing} bytes short`
    const { packetNum } = this.#header
    return new MultifdError('ERR_MULTIFD_TRUNCATED', message, { channel: name, packetNum })
  }
}
