// A RAM block that is kept in a file, each page at its place. Pages come by way of a staging block that stays in the
// processor's cache: writing them into the file costs less than the faults of a mapping, and a disk that is full is an
// error like any other.

import { readAt, writeAt } from '../os/file.js'
import { SharedBitmap } from '../shm/bitmap.js'
import type { PageRuns } from '../shm/page-runs.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import { type RamBlock, ZERO_MASK_PAGES } from './block.js'
import type { LoadBlock } from './load-block.js'

export interface FileLoadBlockHandle {
  kind: 'file'
  idstr: string
  /** Bytes. */
  size: number
  pageSize: number
  /** The open file, and where the block's first page is in it. */
  fd: number
  offset: number
  /** Of the file, for messages. */
  path: string
  received: SharedArrayBuffer
  populated: SharedArrayBuffer
  stale: SharedArrayBuffer
}

export class FileLoadBlock implements LoadBlock {
  readonly idstr: string
  readonly idstrField: Uint8Array
  readonly size: number
  readonly pageSize: number
  readonly pages: number
  readonly pageShift: number
  readonly received: SharedBitmap
  /** Pages that have data in the file; the others are zero, whatever lies there. */
  readonly populated: SharedBitmap
  /** Pages that had data and are zero now: room to give back. */
  readonly stale: SharedBitmap
  readonly inPlace = undefined
  readonly handle: FileLoadBlockHandle

  constructor(handle: FileLoadBlockHandle) {
    const { idstr, size, pageSize } = handle
    this.handle = handle
    this.idstr = idstr
    this.idstrField = encodeIdstr(idstr)
    this.size = size
    this.pageSize = pageSize
    this.pages = size / pageSize
    this.pageShift = 31 - Math.clz32(pageSize)
    this.received = new SharedBitmap(this.pages, handle.received)
    this.populated = new SharedBitmap(this.pages, handle.populated)
    this.stale = new SharedBitmap(this.pages, handle.stale)
  }

  /** The block of which nothing came yet. */
  static of(place: Pick<FileLoadBlockHandle, 'idstr' | 'size' | 'pageSize' | 'fd' | 'offset' | 'path'>): FileLoadBlock {
    const bitmap = (): SharedArrayBuffer => new SharedBitmap(place.size / place.pageSize).buffer
    return new FileLoadBlock({ kind: 'file', ...place, received: bitmap(), populated: bitmap(), stale: bitmap() })
  }

  aboutToReceive(): void {
    // Pages of a file are not received in place.
  }

  store(runs: PageRuns, staging: RamBlock): void {
    for (let run = 0, staged = 0; run < runs.count; run++) {
      const first = runs.first(run)
      const length = runs.length(run)
      this.received.setRange(first, length)
      this.#write(first, length, staging, staged)
      staged += length
    }
  }

  /** Pages whose data lies in a block of the same shape. */
  storeFrom(block: RamBlock, first: number, count: number): void {
    this.received.setRange(first, count)
    this.#write(first, count, block, first)
  }

  clear(runs: PageRuns): void {
    for (let run = 0; run < runs.count; run++) {
      const first = runs.first(run)
      const end = first + runs.length(run)
      this.received.setRange(first, end - first)
      for (let page = first; page < end; page++) this.#empty(page)
    }
  }

  open(page: number, staging: RamBlock): Uint8Array {
    const { pageSize, handle } = this
    const bytes = staging.bytes(0, pageSize)
    // What lies where a page is zero is anything.
    if (this.populated.has(page))
      readAt(handle.fd, staging.address, pageSize, handle.offset + page * pageSize, handle.path)
    else bytes.fill(0)
    return bytes
  }

  // A file keeps no zero page, not even one that was sent as data.
  #write(first: number, length: number, staging: RamBlock, staged: number): void {
    let from = 0
    for (let done = 0; done < length; done += ZERO_MASK_PAGES) {
      const count = Math.min(ZERO_MASK_PAGES, length - done)
      const zeros = staging.zeroPages(staged + done, count)
      if (zeros === 0) continue
      for (let i = 0; i < count; i++) {
        if ((zeros & (1 << i)) === 0) continue
        this.#put(first + from, done + i - from, staging, staged + from)
        this.#empty(first + done + i)
        from = done + i + 1
      }
    }
    this.#put(first + from, length - from, staging, staged + from)
  }

  #put(page: number, count: number, staging: RamBlock, staged: number): void {
    if (count === 0) return
    const { pageSize, handle } = this
    const address = staging.address + staged * pageSize
    writeAt(handle.fd, address, count * pageSize, handle.offset + page * pageSize, handle.path)
    this.populated.setRange(page, count)
  }

  #empty(page: number): void {
    if (this.populated.clear(page)) this.stale.set(page)
  }
}
