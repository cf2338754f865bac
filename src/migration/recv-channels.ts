// The destination's channels: which of them are their threads' already, and the barrier over all of them.
//
// A source that has fewer threads than channels sends nothing but SYNCs on the others. A thread that had to be woken for each
// of these, and for their end, would only be in the way of those that have work. So the first so many channels are their
// threads' from the start; from the others the coordinator takes the SYNCs, until pages come on any of these.

import { availableParallelism } from 'node:os'
import { NOTHING, type RecvBlocks, type RecvConnection } from '../channel/recv.js'
import { truncated } from '../channel/recv-loop.js'
import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { type Connection, openChannel } from '../io/connection.js'
import { CALL_MS } from '../io/descriptor-channel.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import { limitReceive, POLL, pollDescriptors, shutdownRead } from '../os/socket.js'
import type { LoadBlock } from '../ram/load-block.js'
import {
  decodePacketFields,
  MULTIFD_FLAG,
  PacketHeader,
  packetHeaderSize,
  pagesPerPacket,
} from '../wire/multifd-packet.js'
import { type Coordinator, LOOK_MS, nameChannels } from './coordinator.js'

// Longest time that pages wait for their thread.
const LOOK_AFTER_MS = 5

/** Channels that are their threads' from the start: a QEMU sends on all that it has. */
export function threadsFromStart(): number {
  return Math.max(8, 2 * availableParallelism())
}

/** One that is the coordinator's: its thread has no connection. */
interface RestingChannel {
  id: number
  connection: Connection
  channel: Channel
  ended: boolean
}

export class RecvChannels {
  readonly #coordinator: Coordinator
  readonly #connections: Connection[]
  readonly #main: Connection
  readonly #pageSize: number
  readonly #perPacket: number
  // Of the packet at hand.
  readonly #bytes: PinnedBuffer
  readonly #range: AddressRange
  readonly #header: PacketHeader
  readonly #vector = new IoVector(1)
  readonly #resting = new Map<number, RestingChannel>()
  // Whether pages came on any of these.
  #spread = false
  #blocks: RecvBlocks | undefined
  #barriers = 0
  #lookedAt = 0

  /**
   * Hands the first channels' connections to their threads. All stay the coordinator's to close.
   *
   * @param connections in the order of the channels' numbers, the initial packets read
   * @param main is waited for so shortly, where that is needed, that its wait hook can {@link look} in time
   * @param pageSize of the target, bytes
   */
  constructor(coordinator: Coordinator, connections: Connection[], main: Connection, pageSize: number) {
    this.#coordinator = coordinator
    this.#connections = connections
    this.#main = main
    this.#pageSize = pageSize
    this.#perPacket = pagesPerPacket(pageSize)
    this.#bytes = new PinnedBuffer(packetHeaderSize(this.#perPacket))
    this.#range = { address: this.#bytes.address, size: packetHeaderSize(this.#perPacket) }
    this.#header = new PacketHeader(this.#perPacket)
    // OpenSSL's connections can be readable and have nothing to read: only a thread of their own may wait for the rest.
    const atOnce = main.tls ? connections.length : threadsFromStart()
    for (const [id, connection] of connections.entries()) {
      if (id < atOnce) this.#handOver(id, connection)
      else {
        const channel = openChannel(connection, id, coordinator.channelWait(id))
        this.#resting.set(id, { id, connection, channel, ended: false })
      }
    }
    if (this.#resting.size > 0) limitReceive(main.fd, LOOK_AFTER_MS)
  }

  /** Gives the threads the blocks of the RAM set-up. */
  setBlocks(blocks: readonly LoadBlock[]): void {
    this.#blocks = { blocks: blocks.map(({ handle }) => handle) }
    for (const id of this.#connections.keys()) {
      if (!this.#resting.has(id)) this.#coordinator.handOver(id, this.#blocks, false)
    }
  }

  /** Looks now and then, without waiting, whether pages came on a channel that is not its thread's yet. */
  look(): void {
    if (this.#resting.size === 0 || performance.now() - this.#lookedAt < LOOK_AFTER_MS) return
    this.#takeWhatCame(this.#going, 0)
    this.#lookedAt = performance.now()
  }

  /**
   * Takes exactly one SYNC of every channel; then all may go on.
   *
   * @param quiet is called whenever no channel had anything to report for a while
   * @throws MultifdError ERR_MULTIFD_CLOSED when a channel ends before its SYNC, ERR_MULTIFD_TIMEOUT when nothing comes
   */
  barrier(quiet: () => void): void {
    const { shm } = this.#coordinator
    const barrier = ++this.#barriers
    const behind = (channel: number): boolean => shm.syncs(channel) < barrier
    shm.expectSyncs(barrier)
    this.#coordinator.waitFor(
      () => {
        const channel = this.#coordinator.firstShortOf(barrier)
        if (channel === undefined) return true
        // Ended first, short then still: it can not have reached it in between.
        if (this.#hasEnded(channel) && behind(channel)) {
          this.#coordinator.checkStopped()
          const message = `channel ${channel}: the peer closed it before barrier ${barrier}`
          throw new MultifdError('ERR_MULTIFD_CLOSED', message, { channel })
        }
        return false
      },
      () => `${nameChannels(shm.channels, behind)}: no SYNC for barrier ${barrier}, and nothing else came`,
      { quiet, wait: () => this.#wait(this.#going) },
    )
    shm.release(barrier)
    if (this.#spread) this.#wakeAll()
    this.#coordinator.log.trace({ barrier }, 'barrier')
  }

  /**
   * Nothing may come any more.
   *
   * @param shut makes the channels' end here: the source keeps them open
   */
  end(shut: boolean): void {
    this.#coordinator.shm.end()
    if (shut) for (const { fd } of this.#connections) shutdownRead(fd)
  }

  /** Lets those threads end that had nothing to do. The others end with their channels. */
  dismiss(): void {
    for (const id of this.#resting.keys()) this.#coordinator.handOver(id, NOTHING, true)
    this.#resting.clear()
  }

  /** Waits until every channel is at its end. @throws MultifdError ERR_MULTIFD_TIMEOUT when one is not closed */
  drain(): void {
    this.#coordinator.waitFor(
      () => this.#connections.every((_, id) => this.#hasEnded(id)),
      () => 'the main channel is at its end, and a multifd channel was not closed',
      { wait: () => this.#wait(this.#going) },
    )
  }

  /** The coordinator's, and not at a barrier that is not passed yet. */
  get #going(): RestingChannel[] {
    const { shm } = this.#coordinator
    return [...this.#resting.values()].filter(({ id, ended }) => !ended && shm.syncs(id) <= shm.released)
  }

  #hasEnded(id: number): boolean {
    return this.#resting.get(id)?.ended ?? this.#coordinator.channelEnded(id)
  }

  // For these channels, if there are any, or else for the threads. Returns whether anything came.
  #wait(resting: RestingChannel[]): boolean {
    return resting.length > 0 ? this.#takeWhatCame(resting, LOOK_MS) : this.#coordinator.shm.coordinator.wait(LOOK_MS)
  }

  #takeWhatCame(resting: RestingChannel[], timeoutMs: number): boolean {
    const ready = pollDescriptors(
      resting.map(({ connection: { fd } }) => ({ fd, events: POLL.in })),
      timeoutMs,
    )
    for (const [at, one] of resting.entries()) if (ready[at] !== 0) this.#take(one)
    if (this.#spread) this.#wakeAll()
    return ready.some((events) => events !== 0)
  }

  #take(one: RestingChannel): void {
    const { id, channel } = one
    const { size } = this.#range
    this.#vector.reset()
    this.#vector.push(this.#range, 0, size)
    const got = channel.readFull(this.#vector, 0)
    if (got > 0 && got < size) throw truncated(id, "a packet's header", size - got)
    if (got === 0) one.ended = true
    else if (this.#isSync()) this.#takeSync(id)
    else {
      this.#spread = true
      this.#wake(one, this.#bytes.bytes.slice())
    }
  }

  #isSync(): boolean {
    const header = this.#header
    try {
      decodePacketFields(this.#bytes.view, 0, this.#perPacket, header)
    } catch {
      // Its thread knows what to say.
      return false
    }
    const { flags, normalPages, zeroPages, nextPacketSize } = header
    return (flags & MULTIFD_FLAG.sync) !== 0 && normalPages + zeroPages + nextPacketSize === 0
  }

  #takeSync(id: number): void {
    const { shm, log } = this.#coordinator
    // The thread, whose counters these are, has nothing to count yet.
    shm.countPackets(id, this.#range.size, 1, 0, 0)
    const barrier = shm.reachSync(id)
    const { packetNum, flags } = this.#header
    if (log.tracing) log.trace({ packet: packetNum, flags, channel: id, barrier }, 'SYNC')
  }

  // Whoever sends pages on one of these sends on all of them soon.
  #wakeAll(): void {
    for (const one of this.#going) this.#wake(one)
  }

  #wake({ id, connection }: RestingChannel, header?: Uint8Array): void {
    this.#resting.delete(id)
    this.#handOver(id, connection, { ...(header && { header }), ...this.#blocks })
    if (this.#resting.size === 0) limitReceive(this.#main.fd, CALL_MS)
  }

  #handOver(id: number, connection: Connection, begun: Pick<RecvConnection, 'header' | 'blocks'> = {}): void {
    const message: RecvConnection = { connection, pageSize: this.#pageSize, ...begun }
    this.#coordinator.handOver(id, message, true)
  }
}
