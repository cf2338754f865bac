// The destination's channels: which of them have a thread, and the barrier over all of them.
//
// A source that has fewer threads than channels sends nothing but SYNCs on the others, and each thread takes time to start
// and memory to keep. So only the first so many have one from the start; what comes on another one is taken by the
// coordinator as long as it is SYNCs, and by a thread of its own from its first pages on.

import { availableParallelism } from 'node:os'
import type { RecvBlocks, RecvConnection } from '../channel/recv.js'
import { truncated } from '../channel/recv-loop.js'
import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { type Connection, openChannel } from '../io/connection.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import { POLL, pollDescriptors, shutdownRead } from '../os/socket.js'
import type { LoadBlock } from '../ram/load-block.js'
import { CHANNEL, CHANNEL_STATE } from '../shm/layout.js'
import { type PageKernel, pageKernel } from '../wasm/kernel.js'
import { MULTIFD_FLAG, packetHeaderSize, pagesPerPacket } from '../wire/multifd-packet.js'
import { type Coordinator, LOOK_MS, nameChannels } from './coordinator.js'

// Time between two looks at the channels without a thread, ms, where nobody waits for them.
const LOOK_AFTER_MS = 50

/** Threads that a destination starts with: each channel's may well be needed at once, by a QEMU. */
export function recvThreadsAtOnce(): number {
  return Math.max(8, 2 * availableParallelism())
}

/** One without a thread. */
interface IdleChannel {
  id: number
  connection: Connection
  channel: Channel
  /** Where its next packet's header goes: the thread will look for it there. */
  header: AddressRange & { at: number }
}

export class RecvChannels {
  readonly #coordinator: Coordinator
  readonly #connections: Connection[]
  readonly #pageSize: number
  readonly #kernel: PageKernel | undefined
  readonly #vector = new IoVector(1)
  #idle: IdleChannel[] = []
  #blocks: RecvBlocks | undefined
  #barriers = 0
  #lookedAt = 0

  /**
   * Hands each channel's connection to its thread, where it has one. They stay the coordinator's to close.
   *
   * @param connections in the order of the channels' numbers, the initial packets read
   * @param pageSize of the target, bytes
   */
  constructor(coordinator: Coordinator, connections: Connection[], pageSize: number) {
    const { shm } = coordinator
    this.#coordinator = coordinator
    this.#connections = connections
    this.#pageSize = pageSize
    for (const [id, connection] of connections.entries()) {
      if (shm.channelWord(id, CHANNEL.state) !== CHANNEL_STATE.absent) this.#handOver(id, connection, false)
      else {
        const { at, address } = shm.packetMemory(id).headers[0]!
        const channel = openChannel(connection, id, coordinator.channelWait(id))
        const header = { at, address, size: packetHeaderSize(pagesPerPacket(pageSize)) }
        this.#idle.push({ id, connection, channel, header })
      }
    }
    if (this.#idle.length > 0) this.#kernel = pageKernel(shm.handle.memory)
  }

  /** Gives the threads the blocks of the RAM set-up. */
  setBlocks(blocks: readonly LoadBlock[]): void {
    const { shm } = this.#coordinator
    this.#blocks = { blocks: blocks.map(({ handle }) => handle) }
    const idle = new Set(this.#idle.map(({ id }) => id))
    for (let id = 0; id < shm.channels; id++) if (!idle.has(id)) this.#coordinator.handOver(id, this.#blocks, false)
  }

  /** Looks now and then, without waiting, whether a channel needs a thread. */
  look(): void {
    if (this.#idle.length === 0 || performance.now() - this.#lookedAt < LOOK_AFTER_MS) return
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

  /** Waits until every channel is at its end. @throws MultifdError ERR_MULTIFD_TIMEOUT when one is not closed */
  drain(): void {
    this.#coordinator.waitFor(
      () => this.#connections.every((_, id) => this.#hasEnded(id)),
      () => 'the main channel is at its end, and a multifd channel was not closed',
      { wait: () => this.#wait(this.#idle) },
    )
  }

  /** Without a thread, and not at a barrier that is not passed yet. */
  get #going(): IdleChannel[] {
    const { shm } = this.#coordinator
    return this.#idle.filter(({ id }) => shm.syncs(id) <= shm.released)
  }

  #hasEnded(id: number): boolean {
    return this.#coordinator.channelEnded(id) && !this.#idle.some((one) => one.id === id)
  }

  // For those without a thread, if any are to be waited for, or else for the threads. Returns whether anything came.
  #wait(idle: IdleChannel[]): boolean {
    return idle.length > 0 ? this.#takeWhatCame(idle, LOOK_MS) : this.#coordinator.shm.coordinator.wait(LOOK_MS)
  }

  #takeWhatCame(idle: IdleChannel[], timeoutMs: number): boolean {
    const ready = pollDescriptors(
      idle.map(({ connection: { fd } }) => ({ fd, events: POLL.in })),
      timeoutMs,
    )
    for (const [at, one] of idle.entries()) if (ready[at] !== 0) this.#take(one)
    return ready.some((events) => events !== 0)
  }

  #take(one: IdleChannel): void {
    const { id, channel, header } = one
    this.#vector.reset()
    this.#vector.push(header, 0, header.size)
    const got = channel.readFull(this.#vector, 0)
    if (got > 0 && got < header.size) throw truncated(id, "a packet's header", header.size - got)
    if (got === 0) this.#idle = this.#idle.filter((other) => other !== one)
    else if (this.#kernel!.isSync(header.at, pagesPerPacket(this.#pageSize)) !== 0) this.#takeSync(one)
    else this.#start(one)
  }

  #takeSync({ id, header }: IdleChannel): void {
    const { shm, log } = this.#coordinator
    // The thread, whose counters these are, is not there yet.
    shm.countPackets(id, header.size, 1, 0, 0)
    const barrier = shm.reachSync(id)
    if (log.tracing) log.trace({ flags: MULTIFD_FLAG.sync, channel: id, barrier }, 'SYNC')
  }

  #start(one: IdleChannel): void {
    const { id, connection } = one
    this.#idle = this.#idle.filter((other) => other !== one)
    this.#coordinator.shm.setChannelWord(id, CHANNEL.state, CHANNEL_STATE.starting)
    // Before it starts: a thread that has nothing yet rehearses, where the header is.
    this.#handOver(id, connection, true)
    if (this.#blocks) this.#coordinator.handOver(id, this.#blocks, false)
    this.#coordinator.tell({ type: 'start-channel', channel: id })
  }

  #handOver(id: number, connection: Connection, begun: boolean): void {
    const { shm } = this.#coordinator
    const message: RecvConnection = { connection, pageSize: this.#pageSize, begun, synced: shm.syncs(id) > 0 }
    this.#coordinator.handOver(id, message, true)
  }
}
