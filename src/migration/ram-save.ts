// The source's RAM: which pages are still to be sent, and the passes that send them.

import type { StreamWriter } from '../io/stream-writer.js'
import type { RamBlock } from '../ram/block.js'
import { DirtyBitmap } from '../ram/dirty-bitmap.js'
import { type DirtyLog, dirtyLogOf } from '../ram/dirty-log.js'
import { COUNTER, JOB, SLOT } from '../shm/layout.js'
import { SlotDispatcher } from '../shm/slots.js'
import { PACKET_DATA_SIZE } from '../wire/multifd-packet.js'
import { encodeRamRecord, encodeRamWord, RAM_FLAG } from '../wire/ram.js'
import type { Coordinator } from './coordinator.js'
import { nameChannels } from './coordinator.js'
import { Pacer } from './pacer.js'

const WAIT_MS = 100
// Channels that take part in sending at first, and the wait for room that brings in another.
const ACTIVE_AT_FIRST = 2
const WIDEN_MS = 20

export interface RamSaveOptions {
  blocks: RamBlock[]
  /** Where the barrier's mark stands: see protocol, "barriers". */
  flush: 'per-section' | 'per-round'
  /** Whether the coordinator looks for zero pages and sends them as records on the main channel. */
  findZeroPages: boolean
}

export class RamSave {
  readonly pageSize: number
  readonly #coordinator: Coordinator
  readonly #writer: StreamWriter
  readonly #options: RamSaveOptions
  readonly #logs: DirtyLog[]
  readonly #dirty: DirtyBitmap[]
  readonly #dispatcher: SlotDispatcher | undefined
  readonly #pacer: Pacer
  // The block of the batch in the making, and its pages.
  #batchBlock = -1
  #batchPages = 0
  #recordBlock = -1
  #barriers = 0

  constructor(coordinator: Coordinator, writer: StreamWriter, options: RamSaveOptions) {
    this.#coordinator = coordinator
    this.#writer = writer
    this.#options = options
    this.pageSize = options.blocks[0]!.pageSize
    this.#logs = options.blocks.map(dirtyLogOf)
    this.#dirty = options.blocks.map((block) => new DirtyBitmap(block.pages, block))
    this.#dispatcher = coordinator.shm.channels > 0 ? new SlotDispatcher(coordinator.shm, ACTIVE_AT_FIRST) : undefined
    this.#pacer = new Pacer(coordinator.parameters.maxBandwidth)
  }

  /** Pages still to be sent, as of the last {@link synchronise}. */
  get pendingPages(): number {
    return this.#dirty.reduce((sum, bitmap) => sum + bitmap.count, 0)
  }

  /** Everything is to be sent. What the logs gathered before is part of it. */
  start(): void {
    for (const [index, log] of this.#logs.entries()) {
      log.start()
      this.#dirty[index]!.setAll()
    }
  }

  /** Lets the dirty logs go. Idempotent. */
  stop(): void {
    for (const log of this.#logs) log.stop()
  }

  /** Takes over what the dirty logs gathered. Returns how many pages were new. */
  synchronise(): number {
    let added = 0
    for (const [index, log] of this.#logs.entries()) added += log.synchronise(this.#dirty[index]!)
    return added
  }

  /** Sends every dirty page once, as the records of one section; the barrier and EOS are the caller's. */
  savePass(): void {
    this.#pacer.restart()
    for (const [index, block] of this.#options.blocks.entries()) {
      const save = this.#dispatcher ? this.#queuePages : this.#writePages
      this.#dirty[index]!.drain(PACKET_DATA_SIZE / this.pageSize, (first, count) =>
        save.call(this, index, block, first, count),
      )
    }
    if (this.#dispatcher) this.#closeBatch()
  }

  /** Ends a section's records: the barrier, in the peer's dialect, and EOS. */
  endRecords(): void {
    const writer = this.#writer
    const perRound = this.#options.flush === 'per-round'
    if (this.#dispatcher) {
      if (perRound) writer.commit(encodeRamWord(writer.view, writer.reserve(8), 0, RAM_FLAG.flush))
      writer.commit(encodeRamWord(writer.view, writer.reserve(8), 0, RAM_FLAG.eos))
      writer.flush()
      this.#barrier()
    } else {
      writer.commit(encodeRamWord(writer.view, writer.reserve(8), 0, RAM_FLAG.eos))
      writer.flush()
    }
    this.countMain()
  }

  /** Ends the channels' work once their rings are empty. */
  quit(): void {
    for (let channel = 0; channel < this.#coordinator.shm.channels; channel++) this.#command(channel, JOB.quit)
  }

  #queuePages(index: number, block: RamBlock, first: number, count: number): void {
    const find = this.#options.findZeroPages
    if (index !== this.#batchBlock) this.#closeBatch()
    this.#batchBlock = index
    let slot = this.#dispatcher!.spare
    for (let page = first; page < first + count; page++) {
      if (find && block.isZeroPage(page)) {
        this.#writeZero(index, block, page)
        continue
      }
      slot[SLOT.pages + this.#batchPages++] = page
      if (this.#batchPages === slot.length - SLOT.pages) {
        this.#closeBatch()
        this.#batchBlock = index
        slot = this.#dispatcher!.spare
      }
    }
  }

  // The batch's block and count are kept here and not read back from the slot: once handed over, it is the channel's.
  #closeBatch(): void {
    if (this.#batchPages === 0) return
    const slot = this.#dispatcher!.spare
    slot[SLOT.block] = this.#batchBlock
    slot[SLOT.count] = this.#batchPages
    const bytes = this.#batchPages * this.pageSize
    this.#batchPages = 0
    this.#batchBlock = -1
    const { shm } = this.#coordinator
    this.#dispatch()
    this.#coordinator.checkStopped()
    this.#pacer.sent(bytes, (ms) => {
      shm.coordinator.wait(Math.min(ms, WAIT_MS))
      this.#coordinator.checkStopped()
    })
  }

  // Where the kernel takes everything at once, more threads than cores only get into each other's way: another channel
  // takes part when those that do have had no room for a while, as on every network, and under every compressor.
  #dispatch(): void {
    const dispatcher = this.#dispatcher!
    const { shm } = this.#coordinator
    do {
      const until = performance.now() + WIDEN_MS
      for (let left = WIDEN_MS; left > 0; left = until - performance.now()) {
        if (dispatcher.dispatch()) return
        shm.coordinator.wait(left)
        this.#coordinator.checkStopped()
      }
    } while (dispatcher.widen())
    this.#coordinator.waitFor(
      () => dispatcher.dispatch(),
      () => 'no channel took a batch',
    )
  }

  #writeZero(index: number, block: RamBlock, page: number): void {
    this.#record(index, block, page, RAM_FLAG.zero)
    const writer = this.#writer
    const at = writer.reserve(1)
    writer.view.setUint8(at, 0)
    writer.commit(at + 1)
    this.#coordinator.shm.count(this.#coordinator.shm.coordinatorPlace, COUNTER.zeroPages, 1)
  }

  #writePages(index: number, block: RamBlock, first: number, count: number): void {
    const { pageSize } = block
    for (let page = first; page < first + count; page++) {
      if (this.#options.findZeroPages && block.isZeroPage(page)) {
        this.#writeZero(index, block, page)
        continue
      }
      this.#record(index, block, page, RAM_FLAG.page)
      this.#writer.putRange(block, page * pageSize, pageSize)
      if (++this.#normalPages === COUNT_EVERY) this.countMain()
    }
  }

  #normalPages = 0

  #record(index: number, block: RamBlock, page: number, kind: typeof RAM_FLAG.zero | typeof RAM_FLAG.page): void {
    const writer = this.#writer
    const at = writer.reserve(8 + 256)
    const idstr = index === this.#recordBlock ? undefined : block.idstr
    writer.commit(encodeRamRecord(writer.view, at, page * block.pageSize, kind, idstr))
    this.#recordBlock = index
  }

  #counted = 0

  /** Brings the main channel's share of the counters up to date: so often that a reader sees it move. */
  countMain(): void {
    const { shm } = this.#coordinator
    const bytes = this.#writer.bytes - this.#counted
    this.#counted = this.#writer.bytes
    shm.count(shm.coordinatorPlace, COUNTER.bytes, bytes)
    shm.count(shm.coordinatorPlace, COUNTER.normalPages, this.#normalPages)
    this.#normalPages = 0
    this.#coordinator.checkStopped()
    this.#pacer.sent(bytes, (ms) => {
      shm.coordinator.wait(Math.min(ms, WAIT_MS))
      this.#coordinator.checkStopped()
    })
  }

  // SYNC on every channel, and every channel at it: all pages queued before are on their way.
  #barrier(): void {
    const { shm } = this.#coordinator
    this.#closeBatch()
    for (let channel = 0; channel < shm.channels; channel++) this.#command(channel, JOB.sync)
    this.#barriers++
    const behind = (channel: number): boolean => shm.syncs(channel) < this.#barriers
    this.#coordinator.waitFor(
      () => this.#coordinator.firstShortOf(this.#barriers) === undefined,
      () => `${nameChannels(shm.channels, behind)}: the peer took nothing`,
    )
  }

  #command(channel: number, job: typeof JOB.sync | typeof JOB.quit): void {
    if (this.#dispatcher!.command(channel, job)) return
    this.#coordinator.waitFor(
      () => this.#dispatcher!.command(channel, job),
      () => `channel ${channel}: the peer took nothing`,
    )
  }
}

const COUNT_EVERY = 1024
