// Slots: batches of pages (MultiFDPages) that the coordinator and the channel threads pass each other by swapping.
//
// A channel's ring has RING_DEPTH places, and each place always holds one slot (or the job that took its turn). The
// coordinator fills a spare slot of its own, puts it into a free place and keeps the slot that lay there. So a slot has
// one owner at any time: the coordinator while it is the spare one or lies in a free place, the channel between `head`
// and `tail`. The block of a slot is read by its owner only.

import { CHANNEL, type JOB, PACKETS_AT_ONCE, RING_DEPTH, RING_LOW, SLOT, shmOffsets } from './layout.js'
import type { MigrationShm } from './migration-shm.js'
import { PageRuns } from './page-runs.js'
import { beLate } from './semaphore.js'

/** A batch of pages of one RAM block. */
export class Slot {
  /** The pages, of at most {@link PACKETS_AT_ONCE} packets. */
  readonly runs: PageRuns
  readonly #block: Uint32Array

  constructor(buffer: SharedArrayBuffer, at: number, pagesPerPacket: number) {
    this.#block = new Uint32Array(buffer, at + 4 * SLOT.block, 1)
    this.runs = new PageRuns(buffer, at + 4 * SLOT.runs, PACKETS_AT_ONCE * pagesPerPacket)
  }

  /** The RAM block's index. */
  get block(): number {
    return this.#block[0]!
  }

  set block(index: number) {
    this.#block[0] = index
  }
}

class SlotTable {
  readonly jobs: Int32Array
  readonly #slots: Slot[] = []

  constructor(shm: MigrationShm) {
    const at = shmOffsets(shm.handle)
    const { buffer } = shm.handle.memory
    this.jobs = new Int32Array(buffer, at.jobs, shm.channels * RING_DEPTH)
    for (let i = 0; i < at.slotCount; i++) {
      this.#slots.push(new Slot(buffer, at.slots + 4 * i * at.slotWords, shm.handle.pagesPerPacket))
    }
  }

  slot(number: number): Slot {
    return this.#slots[number]!
  }
}

/** The coordinator's end of every ring. */
export class SlotDispatcher {
  readonly #shm: MigrationShm
  readonly #table: SlotTable
  // The slot that lies in each place, whether its last job was a batch or not.
  readonly #resting: number[] = []
  readonly #heads: number[]
  readonly #faults
  #spare: number
  #turn = 0
  #active: number

  /** @param active channels that take part at first */
  constructor(shm: MigrationShm, active = shm.channels) {
    this.#shm = shm
    this.#faults = shm.faults
    this.#active = Math.min(active, shm.channels)
    this.#table = new SlotTable(shm)
    for (let place = 0; place < shm.channels * RING_DEPTH; place++) this.#resting.push(place)
    this.#spare = shm.channels * RING_DEPTH
    this.#heads = Array.from({ length: shm.channels }, () => 0)
  }

  /** The slot to fill. It is the coordinator's until {@link dispatch}. */
  get spare(): Slot {
    return this.#table.slot(this.#spare)
  }

  #hasRoom(channel: number): boolean {
    return ((this.#heads[channel]! - this.#shm.channelWord(channel, CHANNEL.tail)) | 0) < RING_DEPTH
  }

  /** Number of channels that take part: the first ones. */
  get active(): number {
    return this.#active
  }

  /** Lets one more channel take part; false when all do. */
  widen(): boolean {
    if (this.#active === this.#shm.channels) return false
    this.#active++
    return true
  }

  /** Hands the spare slot to the next channel that takes part and has room, in turn; false when none has. */
  dispatch(): boolean {
    const active = this.#active
    for (let i = 0; i < active; i++) {
      const channel = (this.#turn + i) % active
      if (!this.#hasRoom(channel)) continue
      const place = channel * RING_DEPTH + (this.#heads[channel]! % RING_DEPTH)
      const handed = this.#spare
      this.#spare = this.#resting[place]!
      this.#resting[place] = handed
      this.#put(channel, handed)
      this.#turn = (channel + 1) % active
      return true
    }
    return false
  }

  /** Queues SYNC or the end of work on one channel; false when its ring is full. */
  command(channel: number, job: (typeof JOB)[keyof typeof JOB]): boolean {
    if (!this.#hasRoom(channel)) return false
    this.#put(channel, job)
    return true
  }

  #put(channel: number, job: number): void {
    const head = this.#heads[channel]!
    this.#table.jobs[channel * RING_DEPTH + (head % RING_DEPTH)] = job
    this.#heads[channel] = head + 1
    // Pairs with the wait in SlotWorker.next: the slot's words and the job are seen by who takes this post.
    this.#shm.setChannelWord(channel, CHANNEL.head, (head + 1) | 0)
    if (this.#faults?.happens('slot-late')) beLate()
    this.#shm.wake(channel).post()
  }
}

/** One channel's end of its ring. */
export class SlotWorker {
  readonly #shm: MigrationShm
  readonly #channel: number
  readonly #table: SlotTable
  readonly #wake
  #tail = 0

  constructor(shm: MigrationShm, channel: number) {
    this.#shm = shm
    this.#channel = channel
    this.#table = new SlotTable(shm)
    this.#wake = shm.wake(channel)
  }

  /** Waits for the next job: a slot's number, or one of JOB. Undefined when the migration was stopped. */
  next(): number | undefined {
    while (!this.#wake.wait(1000)) if (this.#shm.stopped) return undefined
    if (this.#shm.stopped) return undefined
    return this.#table.jobs[this.#channel * RING_DEPTH + (this.#tail % RING_DEPTH)]
  }

  /** Whether another job waits behind the one that {@link next} returned. */
  get moreAfterThis(): boolean {
    return this.#shm.channelWord(this.#channel, CHANNEL.head) !== ((this.#tail + 1) | 0)
  }

  /** A slot that {@link next} returned; this channel's until {@link finish}. */
  slot(number: number): Slot {
    return this.#table.slot(number)
  }

  /** Gives the place back. Pairs with the look at `tail` in SlotDispatcher. */
  finish(): void {
    this.#tail++
    this.#shm.setChannelWord(this.#channel, CHANNEL.tail, this.#tail | 0)
    // A coordinator that waits has found every ring full: each passes this mark on its way down.
    const left = (this.#shm.channelWord(this.#channel, CHANNEL.head) - this.#tail) | 0
    if (left === RING_LOW) this.#shm.coordinator.post()
  }
}
