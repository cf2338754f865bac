// The source's RAM: which pages are still to be sent, and the passes that send them.

import type { StreamWriter } from '../io/stream-writer.js'
import { type RamBlock, ZERO_MASK_PAGES } from '../ram/block.js'
import { DirtyBitmap } from '../ram/dirty-bitmap.js'
import { type DirtyLog, dirtyLogOf } from '../ram/dirty-log.js'
import { COUNTER, PACKETS_AT_ONCE, RING_DEPTH } from '../shm/layout.js'
import type { PageRuns } from '../shm/page-runs.js'
import { type PageKernel, pageKernel } from '../wasm/kernel.js'
import { PACKET_DATA_SIZE } from '../wire/multifd-packet.js'
import { encodeRamWord, RAM_FLAG } from '../wire/ram.js'
import type { Coordinator } from './coordinator.js'
import { Pacer, portionPages } from './pacer.js'
import { RecordWriter } from './record-writer.js'
import type { SendChannels } from './send-channels.js'

const WAIT_MS = 100

export interface RamSaveOptions {
  blocks: RamBlock[]
  /** Bytes of a target page. */
  pageSize: number
  /** Undefined for the single-channel stream. */
  channels: SendChannels | undefined
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
  readonly #kernel: PageKernel
  readonly #dirty: DirtyBitmap[]
  readonly #batch: PageRuns
  readonly #channels: SendChannels | undefined
  #packetPages = 0
  // Whether batches of several packets are worth it: not with a limit on the bandwidth, nor where packets are compressed.
  #large = false
  readonly #pacer: Pacer
  readonly #records: RecordWriter
  #over: () => boolean = () => false

  constructor(coordinator: Coordinator, writer: StreamWriter, options: RamSaveOptions) {
    this.#coordinator = coordinator
    this.#writer = writer
    this.#options = options
    this.pageSize = options.pageSize
    const { memory } = coordinator.shm.handle
    this.#kernel = pageKernel(memory)
    let at = coordinator.shm.dirtyAt
    this.#logs = options.blocks.map(dirtyLogOf)
    this.#dirty = options.blocks.map((block) => {
      const bitmap = new DirtyBitmap(block.pages, memory, this.#kernel, at, block)
      at += 4 * DirtyBitmap.words(block.pages)
      return bitmap
    })
    this.#batch = coordinator.shm.batch()
    this.#channels = options.channels
    this.#pacer = new Pacer(() => coordinator.maxBandwidth)
    this.#records = new RecordWriter(coordinator, writer, () => this.#pace(), options)
  }

  /** Pages still to be sent, as of the last {@link synchronise}. */
  get pendingPages(): number {
    return this.#dirty.reduce((sum, bitmap) => sum + bitmap.count, 0)
  }

  /** Bytes of those pages: costs nothing, and leaves the logs alone. */
  get pendingEstimate(): number {
    return this.pendingPages * this.pageSize
  }

  /** Bytes that are left to send by now: looks at the logs. */
  pendingExact(): number {
    this.synchronise()
    return this.pendingEstimate
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

  /**
   * Sends every dirty page once, as the records of one section; the barrier and EOS are the caller's.
   *
   * @param last whether no pass follows it
   * @param over is asked now and then whether the pass ends early: pages are left then
   */
  savePass(last: boolean, over: () => boolean = () => false): void {
    this.#over = over
    this.#choosePortions()
    // While the program stands still nothing is held back, as in QEMU.
    if (last) this.#pacer.free()
    else this.#pacer.restart()
    this.#records.beginPass(last)
    for (const [index, block] of this.#options.blocks.entries()) {
      if (!this.#channels) this.#eachRun(index, (first, count) => this.#writePages(index, block, first, count))
      else if (!this.#options.findZeroPages) this.#queueBlock(index, this.#channels)
      else {
        this.#eachRun(index, (first, count) => this.#sortPages(index, block, first, count))
        this.#closeBatch(index)
      }
    }
    this.#records.endPass()
  }

  #choosePortions(): void {
    const { maxBandwidth, parameters } = this.#coordinator
    this.#packetPages = portionPages(maxBandwidth, this.pageSize, PACKET_DATA_SIZE / this.pageSize)
    this.#large = maxBandwidth === 0 && parameters.multifdCompression === 'none'
  }

  /** Ends a section's records: the barrier, in the peer's dialect, and EOS. */
  endRecords(): void {
    const writer = this.#writer
    const perRound = this.#options.flush === 'per-round'
    if (this.#channels) {
      this.#channels.sendSyncs()
      if (perRound) writer.commit(encodeRamWord(writer.view, writer.reserve(8), 0, RAM_FLAG.flush))
    }
    writer.commit(encodeRamWord(writer.view, writer.reserve(8), 0, RAM_FLAG.eos))
    writer.flush()
    this.#channels?.awaitSyncs()
    this.countMain()
  }

  // Straight from the bitmap into batches.
  #queueBlock(index: number, channels: SendChannels): void {
    const dirty = this.#dirty[index]!
    const { large, rest } = this.#batches(channels)
    for (let word = 0; !dirty.isEnd(word) && !this.#over(); ) {
      const most = dirty.count > rest ? large : this.#packetPages
      word = dirty.take(word, most, channels.spare.runs)
      if (channels.spare.runs.pages >= most) this.#closeBatch(index)
    }
    this.#closeBatch(index)
  }

  // Large batches, until what is left is what all rings hold: the last ones are small, so that channels end together.
  #batches({ count }: SendChannels): { large: number; rest: number } {
    const large = PACKETS_AT_ONCE * this.#packetPages
    return { large, rest: this.#large ? count * RING_DEPTH * large : Number.POSITIVE_INFINITY }
  }

  #eachRun(index: number, visit: (first: number, count: number) => void): void {
    const dirty = this.#dirty[index]!
    const batch = this.#batch
    for (let word = 0; !dirty.isEnd(word) && !this.#over(); ) {
      batch.reset()
      word = dirty.take(word, this.#packetPages, batch)
      for (let run = 0; run < batch.count; run++) visit(batch.first(run), batch.length(run))
    }
  }

  #queueRun(index: number, first: number, count: number): void {
    for (let page = first, left = count; left > 0; ) {
      const { runs } = this.#channels!.spare
      const part = Math.min(left, this.#packetPages - runs.pages)
      runs.push(page, part)
      page += part
      left -= part
      if (runs.pages === this.#packetPages) this.#closeBatch(index)
    }
  }

  #sortPages(index: number, block: RamBlock, first: number, count: number): void {
    for (let done = 0; done < count; done += ZERO_MASK_PAGES) {
      const part = Math.min(ZERO_MASK_PAGES, count - done)
      const zeros = block.zeroPages(first + done, part)
      if (zeros === 0) {
        this.#queueRun(index, first + done, part)
        continue
      }
      for (let i = 0; i < part; i++) {
        if ((zeros & (1 << i)) === 0) this.#queueRun(index, first + done + i, 1)
        else this.#writeZero(index, block, first + done + i)
      }
    }
  }

  // A batch has pages of one block, and is looked at here before it is handed over only: then it is the channel's.
  #closeBatch(index: number): void {
    const { spare } = this.#channels!
    const { pages } = spare.runs
    if (pages === 0) return
    spare.block = index
    this.#channels!.dispatch()
    this.#queuedPages += pages
    this.#coordinator.checkStopped()
    this.#pace()
  }

  #queuedPages = 0
  readonly #sent = (): number => {
    const { shm } = this.#coordinator
    const bytes = shm.sum(COUNTER.bytes, true)
    if (!this.#channels) return bytes
    // Batches that a channel has yet are taken to be like those before them.
    const pages = shm.sum(COUNTER.normalPages, false) + shm.sum(COUNTER.zeroPages, false)
    const size = pages === 0 ? this.pageSize : shm.sum(COUNTER.bytes, false) / pages
    return bytes + Math.max(0, this.#queuedPages - pages) * size
  }

  #pace(): void {
    this.#pacer.hold(this.#sent, (ms) => {
      this.#coordinator.shm.coordinator.wait(Math.min(ms, WAIT_MS))
      this.#coordinator.checkStopped()
    })
  }

  #writeZero(index: number, block: RamBlock, page: number): void {
    this.#records.writeZero(index, block, page)
  }

  #writePages(index: number, block: RamBlock, first: number, count: number): void {
    this.#records.writePages(index, block, first, count)
  }

  /** Brings the main channel's share of the counters up to date. */
  countMain(): void {
    this.#records.count()
  }

  /** The same when all is sent: see {@link RecordWriter.countLast}. */
  countLast(): void {
    this.#records.countLast()
  }

  /** Bytes that a page of the next pass may take on the wire, where this one's took `bytes`. */
  bytesPerPage(bytes: number): number {
    return this.#records.bytesPerPage(bytes, this.pageSize)
  }
}
