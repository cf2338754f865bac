// A RAM block on the destination: which of its pages came, and what a page that comes does to it.

import { MultifdError } from '../errors.js'
import { clearMemory } from '../os/memory.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { FirstTouch } from '../shm/first-touch.js'
import type { PageRuns } from '../shm/page-runs.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import { RamBlock, type RamBlockHandle, ZERO_MASK_PAGES } from './block.js'
import { FileLoadBlock, type FileLoadBlockHandle } from './file-load-block.js'

/** What a block has, wherever its pages go. */
export interface LoadBlock {
  readonly idstr: string
  /** The name as a packet's header has it. */
  readonly idstrField: Uint8Array
  /** Bytes. */
  readonly size: number
  readonly pageSize: number
  readonly pages: number
  readonly pageShift: number
  /** Pages that came at least once. */
  readonly received: SharedBitmap
  readonly handle: LoadBlockHandle
  /** The memory that pages are received into straight away; where there is none, they come by way of a staging block. */
  readonly inPlace: RamBlock | undefined
  /** Pages are to be received in place. */
  aboutToReceive(runs: PageRuns): void
  /** Pages whose data is there now: in place, or one after the other from the start of `staging`. */
  store(runs: PageRuns, staging: RamBlock | undefined): void
  /** Pages that are zero now. Nothing is written over what is zero already, so untouched memory stays untouched. */
  clear(runs: PageRuns): void
  /** A page's bytes to be changed: in place, or a copy in `staging`. {@link store} afterwards. */
  open(page: number, staging: RamBlock | undefined): Uint8Array
}

/** A {@link LoadBlock} as another thread gets it. */
export type LoadBlockHandle = MemoryLoadBlockHandle | FileLoadBlockHandle

interface MemoryLoadBlockHandle {
  kind: 'memory'
  block: RamBlockHandle
  received: SharedArrayBuffer
  /** See {@link FirstTouch}. Absent: the memory has no huge pages. */
  touched?: SharedArrayBuffer
}

export function loadBlockFrom(handle: LoadBlockHandle): LoadBlock {
  return handle.kind === 'file' ? new FileLoadBlock(handle) : new MemoryLoadBlock(RamBlock.from(handle.block), handle)
}

/** A block whose pages are received where they belong. */
export class MemoryLoadBlock implements LoadBlock {
  readonly inPlace: RamBlock
  readonly received: SharedBitmap
  readonly idstrField: Uint8Array
  readonly #firstTouch: FirstTouch | undefined

  constructor(block: RamBlock, handle?: MemoryLoadBlockHandle) {
    if (block.hugePages) this.#firstTouch = new FirstTouch(block, handle?.touched)
    this.inPlace = block
    this.received = new SharedBitmap(block.pages, handle?.received)
    this.idstrField = encodeIdstr(block.idstr)
  }

  get idstr(): string {
    return this.inPlace.idstr
  }

  get size(): number {
    return this.inPlace.size
  }

  get pageSize(): number {
    return this.inPlace.pageSize
  }

  get pages(): number {
    return this.inPlace.pages
  }

  get pageShift(): number {
    return this.inPlace.pageShift
  }

  get handle(): LoadBlockHandle {
    const touched = this.#firstTouch && { touched: this.#firstTouch.states }
    return { kind: 'memory', block: this.inPlace.handle, received: this.received.buffer, ...touched }
  }

  aboutToReceive(runs: PageRuns): void {
    this.#firstTouch?.before(runs)
  }

  store(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) this.received.setRange(runs.first(run), runs.length(run))
  }

  clear(runs: PageRuns): void {
    const { inPlace: block, received } = this
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      received.setRange(runs.first(run), runs.length(run))
      for (let page = runs.first(run); page < end; page += ZERO_MASK_PAGES) {
        const count = Math.min(ZERO_MASK_PAGES, end - page)
        const zeros = block.zeroPages(page, count)
        if (zeros === (count === 32 ? -1 : (1 << count) - 1)) continue
        for (let i = 0; i < count; i++) if ((zeros & (1 << i)) === 0) this.#clearPage(page + i)
      }
    }
  }

  open(page: number): Uint8Array {
    const { pageSize } = this
    this.inPlace.makeRoom(page * pageSize, pageSize)
    return this.inPlace.bytes(page * pageSize, pageSize)
  }

  #clearPage(page: number): void {
    const { pageSize, address } = this.inPlace
    clearMemory(address + page * pageSize, pageSize)
  }
}

/**
 * Checks a page offset that a peer named; it is page-aligned already.
 *
 * @throws MultifdError ERR_MULTIFD_PROTOCOL
 */
export function checkPage(block: LoadBlock, offset: number): void {
  const { idstr, size, pageSize } = block
  if (offset > size - pageSize) {
    const message = `page offset 0x${offset.toString(16)} is beyond block '${idstr}' of ${size} bytes`
    throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
  }
  if (block.inPlace?.discardManager?.isPopulated(offset, pageSize) === false) throw discarded(block, offset / pageSize)
}

/** Whether no page of a block has come. */
export function nothingCame({ received, pages }: LoadBlock): boolean {
  return received.next(0, true) >= pages
}

/** Whether pages, all of them in the block, have content on this side: every page of a block that is not sparse. */
export function arePopulated(block: LoadBlock, runs: PageRuns): boolean {
  return firstDiscarded(block, runs) < 0
}

/** @throws MultifdError ERR_MULTIFD_PROTOCOL unless {@link arePopulated} */
export function checkPopulated(block: LoadBlock, runs: PageRuns): void {
  const page = firstDiscarded(block, runs)
  if (page >= 0) throw discarded(block, page)
}

/** Counts the pages that have no content on this side as come: nobody sends them. For the look at the end. */
export function excuseDiscarded({ inPlace, received }: LoadBlock): void {
  inPlace?.replayDiscardedPages((first, count) => received.setRange(first, count))
}

function firstDiscarded({ inPlace, pageSize }: LoadBlock, runs: PageRuns): number {
  const manager = inPlace?.discardManager
  if (!manager) return -1
  for (let run = 0; run < runs.count; run++) {
    const from = runs.first(run) * pageSize
    const length = runs.length(run) * pageSize
    if (!manager.isPopulated(from, length)) return manager.firstDiscarded(from) / pageSize
  }
  return -1
}

function discarded({ idstr, pageSize }: LoadBlock, page: number): MultifdError {
  const at = (page * pageSize).toString(16)
  const message = `page 0x${at} of block '${idstr}' lies in a granule that is discarded here`
  return new MultifdError('ERR_MULTIFD_PROTOCOL', message)
}
