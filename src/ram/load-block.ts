// A RAM block on the destination: which of its pages came, and what a page that comes does to it.

import { MultifdError } from '../errors.js'
import { clearMemory } from '../os/memory.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import { RamBlock, type RamBlockHandle } from './block.js'

/** A {@link LoadBlock} as another thread gets it. */
export interface LoadBlockHandle {
  block: RamBlockHandle
  received: SharedArrayBuffer
  stale?: SharedArrayBuffer
}

export class LoadBlock {
  readonly block: RamBlock
  /** Pages that came at least once. */
  readonly received: SharedBitmap
  /** In a file, pages that had data and are zero now: room to give back. */
  readonly stale: SharedBitmap | undefined
  /** The name as a packet's header has it. */
  readonly idstr: Uint8Array

  private constructor(block: RamBlock, received: SharedBitmap, stale: SharedBitmap | undefined) {
    this.block = block
    this.received = received
    this.stale = stale
    this.idstr = encodeIdstr(block.idstr)
  }

  static of(block: RamBlock): LoadBlock {
    return new LoadBlock(block, new SharedBitmap(block.pages), block.populated && new SharedBitmap(block.pages))
  }

  static from(handle: LoadBlockHandle): LoadBlock {
    const block = RamBlock.from(handle.block)
    const stale = handle.stale && new SharedBitmap(block.pages, handle.stale)
    return new LoadBlock(block, new SharedBitmap(block.pages, handle.received), stale)
  }

  get handle(): LoadBlockHandle {
    const handle: LoadBlockHandle = { block: this.block.handle, received: this.received.buffer }
    if (this.stale) handle.stale = this.stale.buffer
    return handle
  }

  /**
   * Checks a page offset that a peer named; it is page-aligned already.
   *
   * @throws MultifdError ERR_MULTIFD_PROTOCOL
   */
  checkPage(offset: number): void {
    const { block } = this
    if (offset > block.size - block.pageSize) {
      const message = `page offset 0x${offset.toString(16)} is beyond block '${block.idstr}' of ${block.size} bytes`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
    if (block.discardManager && !block.discardManager.isPopulated(offset, block.pageSize)) {
      const message = `page 0x${offset.toString(16)} of block '${block.idstr}' lies in a granule that is discarded here`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
  }

  /** Counts the pages that have no content on this side as come: nobody sends them. For the look at the end. */
  excuseDiscarded(): void {
    this.block.replayDiscardedPages((first, count) => this.received.setRange(first, count))
  }

  /** Pages whose data lies in place now: `count` of them, from the one at `offset` on. */
  gotData(offset: number, count = 1): void {
    const { block } = this
    const first = offset / block.pageSize
    this.received.setRange(first, count)
    if (!block.populated) return
    block.populated.setRange(first, count)
    // A snapshot keeps no zero page, not even one that was sent as data.
    for (let page = first; page < first + count; page++) if (block.isZeroPage(page)) this.#empty(block.populated, page)
  }

  /**
   * A page's bytes as they are, to be changed in place; {@link gotData} afterwards.
   *
   * @throws MultifdError ERR_MULTIFD_PROTOCOL when it never came, ERR_MULTIFD_FILE when its disk is full
   */
  openPage(offset: number): Uint8Array {
    const { block } = this
    const page = offset / block.pageSize
    if (!this.received.has(page)) {
      const message = `a change to page 0x${offset.toString(16)} of block '${block.idstr}', which never came`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
    block.makeRoom(offset, block.pageSize)
    // In a file, what lies where a page is zero is anything.
    if (block.populated && !block.populated.has(page)) clearMemory(block.address + offset, block.pageSize)
    return block.bytes(offset, block.pageSize)
  }

  /** A page that is zero now. Nothing is written over what is zero already, so untouched memory stays untouched. */
  gotZero(offset: number): void {
    const { block } = this
    const page = offset / block.pageSize
    this.received.set(page)
    if (block.populated) this.#empty(block.populated, page)
    else if (!block.isZeroPage(page)) clearMemory(block.address + offset, block.pageSize)
  }

  #empty(populated: SharedBitmap, page: number): void {
    if (populated.clear(page)) this.stale?.set(page)
  }
}
