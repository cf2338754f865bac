// One thread's view of a migration's shared memory: the only place that reads and writes its words.

import { MultifdError } from '../errors.js'
import type { FaultName } from '../faults.js'
import { addressOf, HOST_PAGE_SIZE } from '../os/memory.js'
import { dropPages } from '../os/residency.js'
import { makeSharedMemory, type SharedMemory } from '../wasm/kernel.js'
import { FaultPoints } from './fault-points.js'
import {
  CHANNEL,
  CHANNEL_WORDS,
  CONTROL,
  CONTROL_WORDS,
  COUNTER,
  COUNTER_WORDS,
  LIMIT_WORDS,
  PACKET,
  type ShmShape,
  shmOffsets,
} from './layout.js'
import { DESCRIPTORS_MAX, OpenDescriptors } from './open-descriptors.js'
import { PacketMemory } from './packet-memory.js'
import { PageRuns } from './page-runs.js'
import { LateSemaphore, Semaphore } from './semaphore.js'

// In the word of the first failure: there is none, and there will be none.
const SUCCEEDED = -1

/** What crosses to a thread: the memory and its shape. */
export interface ShmHandle extends ShmShape {
  memory: SharedMemory
  /** Of the fault points, where any is armed. */
  faults?: Int32Array<SharedArrayBuffer>
}

/** Totals over threads, as far as they have come. */
export interface CounterTotals {
  bytes: number
  packets: number
  normalPages: number
  zeroPages: number
}

export class MigrationShm {
  readonly handle: ShmHandle
  readonly channels: number
  /** Undefined where none is armed, as always but in tests. */
  readonly faults: FaultPoints | undefined
  /** Something happened that the coordinator waits for. */
  readonly coordinator: Semaphore
  /** The embedding thread has answered. */
  readonly answers: Semaphore
  readonly #control: Int32Array
  readonly #channels: Int32Array
  readonly #counters: Float64Array
  readonly #limits: Float64Array

  constructor(handle: ShmHandle) {
    const at = shmOffsets(handle)
    const { buffer } = handle.memory
    this.handle = handle
    this.channels = handle.channels
    this.faults = handle.faults && new FaultPoints(handle.faults)
    this.#control = new Int32Array(buffer, at.control, CONTROL_WORDS)
    this.#channels = new Int32Array(buffer, at.channelAreas, handle.channels * CHANNEL_WORDS)
    this.#counters = new Float64Array(buffer, at.counters, (handle.channels + 1) * COUNTER_WORDS)
    this.#limits = new Float64Array(buffer, at.limits, LIMIT_WORDS)
    this.coordinator = this.#semaphore(this.#control, CONTROL.coordinator)
    this.answers = this.#semaphore(this.#control, CONTROL.answers)
  }

  /** @throws MultifdError ERR_MULTIFD_UNSUPPORTED where there is no memory for it */
  static create(shape: ShmShape, faults?: FaultPoints): MigrationShm {
    const { total } = shmOffsets(shape)
    faults?.fail('no-shared-memory')
    try {
      return new MigrationShm({ ...shape, memory: makeSharedMemory(total), ...(faults && { faults: faults.words }) })
    } catch (cause) {
      const text = `no memory for ${total} bytes of what the threads share`
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', text, { cause })
    }
  }

  #semaphore(words: Int32Array, at: number): Semaphore {
    const { faults } = this
    if (!faults?.armed('semaphore-late')) return new Semaphore(words, at)
    return new LateSemaphore(words, at, () => faults.happens('semaphore-late'))
  }

  /** The coordinator's list of pages on their way from the bitmaps to a packet or a record. */
  batch(): PageRuns {
    const { memory, pagesPerPacket } = this.handle
    return new PageRuns(memory.buffer, shmOffsets(this.handle).batch, pagesPerPacket)
  }

  /**
   * Gives back the memory that only threads used; for the embedding thread, when none of them uses it any more. It may
   * hold the rest for long: the figures of a migration outlive it.
   */
  giveBack(): void {
    const { buffer } = this.handle.memory
    const first = Math.ceil(shmOffsets(this.handle).jobs / HOST_PAGE_SIZE) * HOST_PAGE_SIZE
    if (first < buffer.byteLength) dropPages(addressOf(new Uint8Array(buffer)) + first, buffer.byteLength - first)
  }

  /** What the coordinator's thread has open. */
  descriptors(): OpenDescriptors {
    const { memory } = this.handle
    return new OpenDescriptors(new Int32Array(memory.buffer, shmOffsets(this.handle).descriptors, DESCRIPTORS_MAX))
  }

  /** Where the bitmaps of pages to be sent are, bytes. */
  get dirtyAt(): number {
    return shmOffsets(this.handle).dirty
  }

  /** The memory for a channel's packets; for its own thread. */
  packetMemory(channel: number): PacketMemory {
    return new PacketMemory(this.handle.memory, shmOffsets(this.handle).packets + channel * PACKET.size)
  }

  /** Place of the coordinator among the threads; channels have 0 … n-1. */
  get coordinatorPlace(): number {
    return this.channels
  }

  get stopped(): boolean {
    return Atomics.load(this.#control, CONTROL.stop) !== 0
  }

  /** Tells every thread to stop and wakes those that wait. Descriptors are shut down by whoever holds them. */
  stop(): void {
    Atomics.store(this.#control, CONTROL.stop, 1)
    this.coordinator.post()
    this.answers.post()
    for (let channel = 0; channel < this.channels; channel++) this.wake(channel).post()
    Atomics.notify(this.#control, CONTROL.released)
  }

  /** Adds a thread that is started now: see {@link waitLoaded}. */
  noteStarting(): void {
    Atomics.add(this.#control, CONTROL.loading, 1)
  }

  /** Takes the calling thread off those that load their code. Pairs with {@link waitLoaded}. */
  noteLoaded(): void {
    Atomics.sub(this.#control, CONTROL.loading, 1)
    Atomics.notify(this.#control, CONTROL.loading)
  }

  /** Waits until every thread has its code, or the time is over. */
  waitLoaded(timeoutMs: number): void {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const loading = Atomics.load(this.#control, CONTROL.loading)
      const leftMs = deadline - performance.now()
      if (loading <= 0 || leftMs <= 0) return
      Atomics.wait(this.#control, CONTROL.loading, loading, leftMs)
    }
  }

  /** Claims the place of the first failure. Only the thread that gets it has the error that is told. */
  claimFailure(place: number): boolean {
    return Atomics.compareExchange(this.#control, CONTROL.failed, 0, place + 1) === 0
  }

  /**
   * Settles the outcome as success, whoever claims a failure or cancels from now on, or did so just before: the
   * destination has everything and says so, and two programs that both go on would be worse than one that was cancelled.
   */
  succeed(): void {
    Atomics.store(this.#control, CONTROL.failed, SUCCEEDED)
  }

  /** The thread that failed first, or undefined. */
  get failedPlace(): number | undefined {
    const place = Atomics.load(this.#control, CONTROL.failed)
    return place === 0 || place === SUCCEEDED ? undefined : place - 1
  }

  /** Whether a fault point happens now. */
  fault(name: FaultName): boolean {
    return this.faults?.happens(name) ?? false
  }

  /** Whether both sides know that each packet may have its own method. */
  get adaptive(): boolean {
    return Atomics.load(this.#control, CONTROL.adaptive) !== 0
  }

  agreeAdaptive(): void {
    Atomics.store(this.#control, CONTROL.adaptive, 1)
  }

  /** Whether the destination's devices agree to the switchover. */
  get approved(): boolean {
    return Atomics.load(this.#control, CONTROL.approved) !== 0
  }

  /** Pairs with the coordinator's look at {@link approved}, which it takes now and then. */
  approve(): void {
    Atomics.store(this.#control, CONTROL.approved, 1)
  }

  /** Notes a compression method's flag as in use on a channel; for the channel's own thread. */
  noteMethod(channel: number, flag: number): void {
    this.setCounter(channel, COUNTER.methods, this.counter(channel, COUNTER.methods) | flag)
  }

  /** Flags of the compression methods in use. */
  get methods(): number {
    let flags = 0
    for (let channel = 0; channel < this.channels; channel++) flags |= this.counter(channel, COUNTER.methods)
    return flags
  }

  nextPacketNum(): number {
    return Atomics.add(this.#control, CONTROL.packetNum, 1) >>> 0
  }

  /** The semaphore that a channel's thread waits on. */
  wake(channel: number): Semaphore {
    return this.#semaphore(this.#channels, channel * CHANNEL_WORDS + CHANNEL.wake)
  }

  channelWord(channel: number, word: number): number {
    return Atomics.load(this.#channels, channel * CHANNEL_WORDS + word)
  }

  setChannelWord(channel: number, word: number, value: number): void {
    Atomics.store(this.#channels, channel * CHANNEL_WORDS + word, value)
  }

  /**
   * Counts one more SYNC of a channel, and wakes the coordinator if it was the last one that {@link expectSyncs} wants.
   * Pairs with `syncs` in the coordinator's wait.
   */
  reachSync(channel: number): number {
    const syncs = Atomics.add(this.#channels, channel * CHANNEL_WORDS + CHANNEL.syncs, 1) + 1
    const reached = Atomics.add(this.#control, CONTROL.syncsReached, 1) + 1
    if (reached >= Atomics.load(this.#control, CONTROL.syncsExpected)) this.coordinator.post()
    return syncs
  }

  /** For the coordinator, before it looks at `syncs` and waits: each channel is to have had so many. */
  expectSyncs(syncs: number): void {
    Atomics.store(this.#control, CONTROL.syncsExpected, syncs * this.channels)
  }

  syncs(channel: number): number {
    return this.channelWord(channel, CHANNEL.syncs)
  }

  /** Lets every channel pass barrier number `count` and those before it. */
  release(count: number): void {
    Atomics.store(this.#control, CONTROL.released, count)
    Atomics.notify(this.#control, CONTROL.released)
  }

  get released(): number {
    return Atomics.load(this.#control, CONTROL.released)
  }

  /** Waits until barrier `count` is released or the time is over. Pairs with {@link release}. */
  waitReleased(count: number, timeoutMs: number): boolean {
    const released = this.released
    if (released >= count) return true
    Atomics.wait(this.#control, CONTROL.released, released, timeoutMs)
    return this.released >= count
  }

  get ending(): boolean {
    return Atomics.load(this.#control, CONTROL.ending) !== 0
  }

  /** Declares the main stream over and lets the channels that are parked at a SYNC go on to their end. */
  end(): void {
    Atomics.store(this.#control, CONTROL.ending, 1)
    this.release(0x7fffffff)
  }

  /** One of {@link LIMIT}. Its writer is the embedding thread. */
  limit(which: number): number {
    return this.#limits[which]!
  }

  setLimit(which: number, value: number): void {
    this.#limits[which] = value
  }

  // A counter has one writer, and is one store on every machine this runs on: no Atomics, which would want BigInts here.

  /** Adds to one of a thread's counters; the thread's own only. */
  count(place: number, counter: number, by: number): void {
    const at = place * COUNTER_WORDS + counter
    this.#counters[at] = this.#counters[at]! + by
  }

  /** The same for what every packet counts. */
  countPackets(place: number, bytes: number, packets: number, normalPages: number, zeroPages: number): void {
    const counters = this.#counters
    const at = place * COUNTER_WORDS
    counters[at + COUNTER.bytes] = counters[at + COUNTER.bytes]! + bytes
    counters[at + COUNTER.packets] = counters[at + COUNTER.packets]! + packets
    counters[at + COUNTER.normalPages] = counters[at + COUNTER.normalPages]! + normalPages
    counters[at + COUNTER.zeroPages] = counters[at + COUNTER.zeroPages]! + zeroPages
  }

  setCounter(place: number, counter: number, value: number): void {
    this.#counters[place * COUNTER_WORDS + counter] = Math.floor(value)
  }

  counter(place: number, counter: number): number {
    return this.#counters[place * COUNTER_WORDS + counter]!
  }

  /** Sum over the channels, or over the channels and the coordinator. */
  sum(counter: number, withCoordinator: boolean): number {
    let total = withCoordinator ? this.counter(this.coordinatorPlace, counter) : 0
    for (let channel = 0; channel < this.channels; channel++) total += this.counter(channel, counter)
    return total
  }
}
