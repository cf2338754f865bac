// XBZRLE on the source: of each page that is sent again, what changed since the destination got it.

import { type AddressRange, checkedAddress } from '../io/iovec.js'
import { copyMemory, PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { FaultPoints } from '../shm/fault-points.js'
import { type ByteWords, encodeXbzrle, XBZRLE_HEADER_SIZE } from '../wire/xbzrle.js'
import type { XbzrleRates } from './statistics.js'
import { XbzrleCache } from './xbzrle-cache.js'

const LENGTH_MAX = 0xffff

/** Of {@link XbzrleSave.encode}: the page goes whole. */
export const WHOLE = -1

export class XbzrleSave {
  /** Where a page that goes whole is read from, as of the last {@link encode}. */
  whole: AddressRange
  wholeOffset = 0
  /** Records since {@link takeCounts}. */
  #pages = 0
  #bytes = 0
  #cacheMiss = 0
  #overflow = 0
  // Of the pass: pages found in the cache, pages not found, and bytes that the former took.
  #found = 0
  #missed = 0
  #foundBytes = 0
  #pass = 0
  #last = false
  readonly #pageSize: number
  readonly #cache: XbzrleCache
  // Of each block, its first page's number among all pages.
  readonly #firstPage: number[] = []
  readonly #copy: PinnedBuffer
  readonly #now: ByteWords

  /** @throws MultifdError ERR_MULTIFD_UNSUPPORTED where there is no memory for the cache */
  constructor(blocks: RamBlock[], cacheSize: number, faults?: FaultPoints) {
    const { pageSize } = blocks[0]!
    let pages = 0
    for (const block of blocks) {
      this.#firstPage.push(pages)
      pages += block.pages
    }
    this.#pageSize = pageSize
    this.#cache = new XbzrleCache(cacheSize, pageSize, pages, faults)
    this.#copy = new PinnedBuffer(pageSize)
    this.#now = { bytes: this.#copy.bytes, words: new Int32Array(this.#copy.bytes.buffer, 0, pageSize / 4) }
    this.whole = blocks[0]!
  }

  /** Whether pages may be encoded: the first pass brings the destination every page whole. */
  get active(): boolean {
    return this.#pass > 1
  }

  /** Pages of the pass that were not zero. */
  get passPages(): number {
    return this.#found + this.#missed
  }

  get rates(): XbzrleRates {
    return {
      cacheMissRate: this.#missed / Math.max(1, this.passPages),
      encodingRate: this.#foundBytes === 0 ? 0 : (this.#found * this.#pageSize) / this.#foundBytes,
    }
  }

  /** @param last whether no pass follows it, so that nothing is worth keeping */
  beginPass(last: boolean): void {
    this.#pass++
    this.#last = last
    this.#found = 0
    this.#missed = 0
    this.#foundBytes = 0
  }

  /** The figures since the last call, for the shared counters. */
  takeCounts(): { pages: number; bytes: number; cacheMiss: number; overflow: number } {
    const counts = { pages: this.#pages, bytes: this.#bytes, cacheMiss: this.#cacheMiss, overflow: this.#overflow }
    this.#pages = 0
    this.#bytes = 0
    this.#cacheMiss = 0
    this.#overflow = 0
    return counts
  }

  /** Notes that a page goes as zero. */
  becomesZero(index: number, page: number): void {
    if (!this.active) return
    const place = this.#cache.find(this.#firstPage[index]! + page, this.#pass)
    if (place < 0) return
    const at = this.#cache.offset(place)
    this.#cache.chunk(place).bytes.fill(0, at, at + this.#pageSize)
  }

  /**
   * Encodes a page's change into `into`, from `at` on, where a page's size is free.
   *
   * The program may write to the page meanwhile. It is therefore copied first, and what is encoded, sent and kept is the
   * copy. A place is written to once a pass at most, and what was queued from it left with the pass before.
   *
   * @returns bytes written; 0 when nothing changed; {@link WHOLE} when the page goes whole, from `whole`
   */
  encode(index: number, block: RamBlock, page: number, into: Uint8Array, at: number): number {
    const cache = this.#cache
    const pageSize = this.#pageSize
    const number = this.#firstPage[index]! + page
    const address = checkedAddress(block, page * pageSize, pageSize)
    const place = cache.find(number, this.#pass)
    if (place < 0) {
      this.#cacheMiss++
      this.#missed++
      const taken = this.#last ? -1 : cache.take(number, this.#pass)
      this.whole = taken < 0 ? block : cache.chunk(taken)
      this.wholeOffset = taken < 0 ? page * pageSize : cache.offset(taken)
      if (taken >= 0) copyMemory(checkedAddress(this.whole, this.wholeOffset, pageSize), address, pageSize)
      return WHOLE
    }
    this.#found++
    copyMemory(this.#copy.address, address, pageSize)
    const before = cache.chunk(place)
    const offset = cache.offset(place)
    const room = Math.min(pageSize - XBZRLE_HEADER_SIZE, LENGTH_MAX)
    const length = encodeXbzrle(before, offset, this.#now, into, at, room)
    if (length === 0) return 0
    before.bytes.set(this.#now.bytes, offset)
    if (length > 0) {
      this.#pages++
      this.#bytes += XBZRLE_HEADER_SIZE + length
      this.#foundBytes += XBZRLE_HEADER_SIZE + length
      return length
    }
    this.#overflow++
    this.#foundBytes += pageSize
    this.whole = before
    this.wholeOffset = offset
    return WHOLE
  }
}
