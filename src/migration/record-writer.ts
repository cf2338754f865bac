// The records of RAM sections on the main channel: pages whole, zero, or as what changed in them.

import type { AddressRange } from '../io/iovec.js'
import type { StreamWriter } from '../io/stream-writer.js'
import type { RamBlock } from '../ram/block.js'
import { COUNTER } from '../shm/layout.js'
import { encodeRamRecord, RAM_FLAG, type RamRecordKind } from '../wire/ram.js'
import { XBZRLE_ENCODING, XBZRLE_HEADER_SIZE } from '../wire/xbzrle.js'
import type { Coordinator } from './coordinator.js'
import { portionPages } from './pacer.js'
import { XbzrleSave } from './xbzrle-save.js'

// Pages after which the counters are brought up to date, and a stop is looked for; fewer with a limit on the bandwidth.
const COUNT_EVERY = 1024
// Longest word and block id of a record.
const ID_MAX = 8 + 256

export interface RecordWriterOptions {
  blocks: RamBlock[]
  /** Bytes of a target page. */
  pageSize: number
  findZeroPages: boolean
}

export class RecordWriter {
  readonly #coordinator: Coordinator
  readonly #writer: StreamWriter
  readonly #pace: () => void
  readonly #findZeroPages: boolean
  readonly #xbzrle: XbzrleSave | undefined
  readonly #countEvery: number
  #recordBlock = -1
  #pages = 0
  // Since the counters were brought up to date.
  #normalPages = 0
  #zeroPages = 0
  #countedBytes = 0

  /** @param pace waits until what was counted may have been sent */
  constructor(coordinator: Coordinator, writer: StreamWriter, pace: () => void, options: RecordWriterOptions) {
    const { xbzrle, xbzrleCacheSize, maxBandwidth } = coordinator.parameters
    this.#coordinator = coordinator
    this.#writer = writer
    this.#pace = pace
    this.#findZeroPages = options.findZeroPages
    this.#countEvery = portionPages(maxBandwidth, options.pageSize, COUNT_EVERY)
    this.#xbzrle =
      xbzrle && options.blocks.length > 0
        ? new XbzrleSave(options.blocks, xbzrleCacheSize, coordinator.shm.faults)
        : undefined
  }

  /** @param last whether no pass follows it */
  beginPass(last: boolean): void {
    this.#xbzrle?.beginPass(last)
  }

  endPass(): void {
    if (!this.#xbzrle?.active) return
    this.#coordinator.tell({ type: 'figures', figures: { xbzrleRates: this.#xbzrle.rates } })
  }

  /**
   * Bytes that a page may take in the next pass: as many as in this one, of `bytes`, where pages are encoded. Zero pages
   * cost next to nothing and may have data when they are sent again, so they are not counted in.
   */
  bytesPerPage(bytes: number, pageSize: number): number {
    const pages = this.#xbzrle?.passPages ?? 0
    return pages === 0 ? pageSize : Math.min(pageSize, bytes / pages)
  }

  writePages(index: number, block: RamBlock, first: number, count: number): void {
    const { pageSize } = block
    const xbzrle = this.#xbzrle?.active ? this.#xbzrle : undefined
    for (let page = first; page < first + count; page++) {
      // Where a file's bitmap says zero, anything may lie: such pages are never sent as they are.
      const known = block.populated !== undefined
      if ((this.#findZeroPages || known) && block.isZeroPage(page)) this.writeZero(index, block, page)
      else if (xbzrle) this.#writeChange(xbzrle, index, block, page)
      else this.#writeWhole(index, block, page, block, page * pageSize)
    }
  }

  writeZero(index: number, block: RamBlock, page: number): void {
    this.#xbzrle?.becomesZero(index, page)
    const end = this.#encodeId(index, block, page, RAM_FLAG.zero, 1)
    this.#writer.view.setUint8(end, 0)
    this.#commit(index, end + 1)
    this.#zeroPages++
    this.#countNow()
  }

  /** Brings the main channel's share of the counters up to date: so often that a reader sees it move. */
  count(): void {
    this.countLast()
    this.#coordinator.checkStopped()
    this.#pace()
  }

  /** The same once all is sent, when nothing stops the migration any more but the destination's word. */
  countLast(): void {
    const { shm } = this.#coordinator
    const place = shm.coordinatorPlace
    const bytes = this.#writer.bytes - this.#countedBytes
    this.#countedBytes = this.#writer.bytes
    shm.count(place, COUNTER.bytes, bytes)
    shm.count(place, COUNTER.normalPages, this.#normalPages)
    shm.count(place, COUNTER.zeroPages, this.#zeroPages)
    this.#normalPages = 0
    this.#zeroPages = 0
    if (this.#xbzrle?.active) {
      const { pages, bytes, cacheMiss, overflow } = this.#xbzrle.takeCounts()
      shm.count(place, COUNTER.xbzrlePages, pages)
      shm.count(place, COUNTER.xbzrleBytes, bytes)
      shm.count(place, COUNTER.xbzrleCacheMiss, cacheMiss)
      shm.count(place, COUNTER.xbzrleOverflow, overflow)
    }
  }

  #writeWhole(index: number, block: RamBlock, page: number, from: AddressRange, offset: number): void {
    this.#commit(index, this.#encodeId(index, block, page, RAM_FLAG.page, 0))
    this.#writer.putRange(from, offset, block.pageSize)
    this.#normalPages++
    this.#countNow()
  }

  #writeChange(xbzrle: XbzrleSave, index: number, block: RamBlock, page: number): void {
    const { view, buffer } = this.#writer
    const end = this.#encodeId(index, block, page, RAM_FLAG.xbzrle, XBZRLE_HEADER_SIZE + block.pageSize)
    const length = xbzrle.encode(index, block, page, buffer, end + XBZRLE_HEADER_SIZE)
    if (length < 0) {
      this.#writeWhole(index, block, page, xbzrle.whole, xbzrle.wholeOffset)
      return
    }
    if (length > 0) {
      view.setUint8(end, XBZRLE_ENCODING)
      view.setUint16(end + 1, length)
      this.#commit(index, end + XBZRLE_HEADER_SIZE + length)
    }
    this.#countNow()
  }

  #countNow(): void {
    if (++this.#pages % this.#countEvery !== 0) return
    // What is gathered is not sent, nor counted.
    if (this.#countEvery < COUNT_EVERY) this.#writer.flush()
    this.count()
  }

  /** Encodes a record's word and block id, with room for `more` bytes; returns where those go. */
  #encodeId(index: number, block: RamBlock, page: number, kind: RamRecordKind, more: number): number {
    const at = this.#writer.reserve(ID_MAX + more)
    const idstr = index === this.#recordBlock ? undefined : block.idstr
    return encodeRamRecord(this.#writer.view, at, page * block.pageSize, kind, idstr)
  }

  #commit(index: number, end: number): void {
    this.#writer.commit(end)
    this.#recordBlock = index
  }
}
