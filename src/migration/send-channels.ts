// The source's channels: which of them have a thread, who gets the next batch, and the barrier over all of them.
//
// Where the kernel takes everything at once, more threads than cores only get into each other's way, and every thread
// takes time to start. So as many channels as there are cores begin; another one gets its thread when those that have
// one had no room for a while, as on every network, and under every compressor. For channels without a thread the
// coordinator sends the SYNC packets, for a barrier is one of all channels.

import type { Introduction } from '../channel/introduce.js'
import type { SendHandOver } from '../channel/send.js'
import { SyncPacket } from '../channel/sync-packet.js'
import type { Channel } from '../io/channel.js'
import type { Connection } from '../io/connection.js'
import { IoVector } from '../io/iovec.js'
import type { RamBlockHandle } from '../ram/block.js'
import { CHANNEL, CHANNEL_STATE, JOB } from '../shm/layout.js'
import { type Slot, SlotDispatcher } from '../shm/slots.js'
import { MULTIFD_FLAG, pagesPerPacket } from '../wire/multifd-packet.js'
import { type Coordinator, nameChannels } from './coordinator.js'

/** Wait for room that brings in another channel. */
const WIDEN_MS = 20

export class SendChannels {
  readonly #coordinator: Coordinator
  readonly #pageSize: number
  readonly #blocks: RamBlockHandle[]
  readonly #dispatcher: SlotDispatcher
  // Connections of the channels that have no thread yet.
  readonly #idle: (Channel | undefined)[] = []
  readonly #syncPacket: SyncPacket
  readonly #vector = new IoVector(1)
  #barriers = 0

  constructor(coordinator: Coordinator, pageSize: number, blocks: RamBlockHandle[]) {
    const { shm } = coordinator
    const started = Array.from({ length: shm.channels }, (_, id) => shm.channelWord(id, CHANNEL.state))
    const active = started.filter((state) => state !== CHANNEL_STATE.absent).length
    this.#coordinator = coordinator
    this.#pageSize = pageSize
    this.#blocks = blocks
    this.#dispatcher = new SlotDispatcher(shm, active)
    this.#syncPacket = new SyncPacket(pagesPerPacket(pageSize))
  }

  /** The batch to fill: the coordinator's until {@link dispatch}. */
  get spare(): Slot {
    return this.#dispatcher.spare
  }

  /** Number of channels that take part. */
  get count(): number {
    return this.#dispatcher.active
  }

  /** Whether a channel's thread is there from the start. */
  hasThread(id: number): boolean {
    return id < this.#dispatcher.active
  }

  /**
   * Takes a channel into the set. Its connection stays the coordinator's to close.
   *
   * @param introduction what its thread is to begin with, where the destination does not know it yet
   * @param channel for a channel without a thread yet
   */
  add(id: number, connection: Connection, introduction: Introduction | undefined, channel?: Channel): void {
    const handOver: SendHandOver = {
      connection,
      pageSize: this.#pageSize,
      blocks: this.#blocks,
      ...(introduction && { introduction }),
    }
    this.#coordinator.handOver(id, handOver, true)
    if (!this.hasThread(id)) this.#idle[id] = channel
  }

  /** Hands the spare batch to a channel that has room, and waits for one if need be. */
  dispatch(): void {
    const dispatcher = this.#dispatcher
    const { shm } = this.#coordinator
    if (!dispatcher.dispatch()) {
      do {
        const until = performance.now() + WIDEN_MS
        for (let left = WIDEN_MS; left > 0; left = until - performance.now()) {
          shm.coordinator.wait(left)
          this.#coordinator.checkStopped()
          if (dispatcher.dispatch()) {
            this.spare.runs.reset()
            return
          }
        }
      } while (this.#widen())
      this.#coordinator.waitFor(
        () => dispatcher.dispatch(),
        () => 'no channel took a batch',
      )
    }
    this.spare.runs.reset()
  }

  /** SYNC on every channel, behind the batches that are queued. */
  sendSyncs(): void {
    const { shm } = this.#coordinator
    this.#barriers++
    shm.expectSyncs(this.#barriers)
    for (let channel = 0; channel < shm.channels; channel++) {
      const idle = this.#idle[channel]
      if (idle) this.#sendSync(channel, idle)
      else this.#command(channel, JOB.sync)
    }
  }

  /** Waits until every channel's SYNC has gone: all batches queued before are on their way. */
  awaitSyncs(): void {
    const { shm } = this.#coordinator
    const behind = (channel: number): boolean => shm.syncs(channel) < this.#barriers
    this.#coordinator.waitFor(
      () => this.#coordinator.firstShortOf(this.#barriers) === undefined,
      () => `${nameChannels(shm.channels, behind)}: the peer took nothing`,
    )
    this.#coordinator.log.trace({ barrier: this.#barriers }, 'barrier')
  }

  /** Ends the channels, and the threads' work once their rings are empty. */
  quit(): void {
    for (const channel of this.#idle) channel?.end()
    for (let channel = 0; channel < this.#dispatcher.active; channel++) this.#command(channel, JOB.quit)
  }

  #widen(): boolean {
    const { active } = this.#dispatcher
    if (!this.#dispatcher.widen()) return false
    this.#idle[active] = undefined
    this.#coordinator.shm.setChannelWord(active, CHANNEL.state, CHANNEL_STATE.starting)
    this.#coordinator.tell({ type: 'start-channel', channel: active })
    return true
  }

  #sendSync(id: number, channel: Channel): void {
    const { shm } = this.#coordinator
    const number = shm.nextPacketNum()
    this.#vector.reset()
    this.#syncPacket.push(number, this.#vector)
    channel.writeFull(this.#vector)
    // The thread, whose counters these are, is not there yet.
    shm.countPackets(id, this.#syncPacket.size, 1, 0, 0)
    const barrier = shm.reachSync(id)
    const { log } = this.#coordinator
    if (log.tracing) log.trace({ packet: number, flags: MULTIFD_FLAG.sync, channel: id, barrier }, 'SYNC sent')
  }

  #command(channel: number, job: typeof JOB.sync | typeof JOB.quit): void {
    if (this.#dispatcher.command(channel, job)) return
    this.#coordinator.waitFor(
      () => this.#dispatcher.command(channel, job),
      () => `channel ${channel}: the peer took nothing`,
    )
  }
}
