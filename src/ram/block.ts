// A RAM block: named memory that migrates, by address for the kernel and by views for the program.

import { closeSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { ERRNO, errno, errnoName } from '../os/libc.js'
import {
  addressOf,
  adviseHugePages,
  HOST_PAGE_SIZE,
  isZero,
  type Mapping,
  mapFile,
  NO_ROOM,
  populate,
  populateRead,
  viewOf,
} from '../os/memory.js'
import { SharedBitmap } from '../shm/bitmap.js'
import type { PageRuns } from '../shm/page-runs.js'
import { MEMORY_MAX, makeSharedMemory, type PageKernel, pageKernel, type SharedMemory } from '../wasm/kernel.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import { FileHoles, type FilePlace } from './file-holes.js'

/** Largest block that {@link RamBlock.allocate} makes: what a shared WebAssembly.Memory can hold. */
export const ALLOCATE_MAX = MEMORY_MAX
const WINDOW = 2 ** 30
// Pages that a call of its own maps faster than the faults do, which map some neighbours too.
const WORTH_MAPPING = 8
/** Most pages that {@link RamBlock.zeroPages} looks at. */
export const ZERO_MASK_PAGES = 32

/** A block as another thread gets it: structured clone passes it on, and {@link RamBlock.from} makes a block of it. */
export interface RamBlockHandle {
  idstr: string
  /** Bytes. */
  size: number
  /** Bytes of a target page, the unit of migration. */
  pageSize: number
  /** Of the first byte, in this process. */
  address: number
  /** The memory itself where it is JavaScript's, so that it lives as long as a thread of ours uses its address. */
  memory?: SharedMemory
  /** The explicit dirty log, one bit a page. */
  dirty: SharedArrayBuffer
  /** Pages that have data; the others are zero whatever lies there. Absent: the memory itself tells. */
  populated?: SharedArrayBuffer
  /** The mapped file, where its holes can be asked for. */
  file?: FilePlace
}

export class RamBlock {
  readonly idstr: string
  readonly size: number
  readonly pageSize: number
  readonly address: number
  /** Pages that the program changed since the migration last looked. See {@link markDirty}. */
  readonly dirty: SharedBitmap
  readonly populated: SharedBitmap | undefined
  /** Number of target pages, and log2 of the bytes of one. */
  readonly pages: number
  readonly pageShift: number
  readonly #memory: SharedMemory | undefined
  #kernel: PageKernel | undefined
  readonly #windows: Uint8Array[] = []
  readonly #holes: FileHoles | undefined
  #whole: Uint8Array | undefined
  #mapping: Mapping | undefined

  private constructor(handle: RamBlockHandle, mapping?: Mapping) {
    this.idstr = handle.idstr
    this.size = handle.size
    this.pageSize = handle.pageSize
    this.address = handle.address
    this.#memory = handle.memory
    this.pages = handle.size / handle.pageSize
    this.pageShift = 31 - Math.clz32(handle.pageSize)
    this.dirty = new SharedBitmap(this.pages, handle.dirty)
    this.populated = handle.populated && new SharedBitmap(this.pages, handle.populated)
    this.#holes = handle.file && new FileHoles(handle.file)
    this.#mapping = mapping
  }

  /**
   * Shared, page-aligned memory of this process: the buffer of a shared WebAssembly.Memory, for every worker of the
   * program and for Atomics.
   *
   * @param options.size in bytes, a multiple of 4096, up to 4 GiB; any number of blocks
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a bad name or size, ERR_MULTIFD_UNSUPPORTED off Linux
   */
  static allocate(options: { idstr: string; size: number }): RamBlock {
    const { idstr, size } = checkShape(options)
    return RamBlock.allocateFor({ idstr, size, pageSize: HOST_PAGE_SIZE })
  }

  /** The same for the pages of another machine. */
  static allocateFor({ idstr, size, pageSize }: { idstr: string; size: number; pageSize: number }): RamBlock {
    if (size > ALLOCATE_MAX) {
      throw new MultifdError(
        'ERR_MULTIFD_ARGUMENT',
        `block '${idstr}': allocate makes up to 4 GiB; map a file for more`,
      )
    }
    let memory: SharedMemory
    try {
      memory = makeSharedMemory(size)
    } catch (cause) {
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `block '${idstr}': no memory for ${size} bytes`, { cause })
    }
    const address = addressOf(new Uint8Array(memory.buffer))
    adviseHugePages(address, size)
    return new RamBlock({ idstr, size, pageSize, address, memory, dirty: new SharedBitmap(size / pageSize).buffer })
  }

  /**
   * A region of a file, mapped and shared: of any size, and what arrives lands in the file's page cache.
   * The file is made or lengthened as needed when `writable`.
   *
   * @param options.offset in bytes, a multiple of 4096
   * @throws MultifdError ERR_MULTIFD_ARGUMENT, ERR_MULTIFD_FILE
   */
  static mapFile(options: {
    idstr: string
    path: string
    size: number
    offset?: number
    writable?: boolean
    pageSize?: number
    populated?: SharedBitmap
  }): RamBlock {
    const { idstr, size } = checkShape(options)
    const { path, offset = 0, writable = true, pageSize = HOST_PAGE_SIZE } = options
    if (!Number.isSafeInteger(offset) || offset < 0 || offset % HOST_PAGE_SIZE !== 0) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': offset ${offset} is not a multiple of 4096`)
    }
    let fd: number | undefined
    try {
      fd = openSync(path, writable ? 'r+' : 'r')
    } catch (cause) {
      if (!writable || (cause as NodeJS.ErrnoException).code !== 'ENOENT') throw fileError(path, cause)
    }
    try {
      fd ??= openSync(path, 'w+')
      const length = fstatSync(fd).size
      if (length < offset + size) {
        if (!writable) {
          throw new MultifdError(
            'ERR_MULTIFD_FILE',
            `${path} has ${length} bytes, block '${idstr}' needs ${offset + size}`,
          )
        }
        ftruncateSync(fd, offset + size)
      }
      const mapping = mapFile(fd, offset, size, writable)
      const dirty = new SharedBitmap(size / pageSize).buffer
      const handle: RamBlockHandle = { idstr, size, pageSize, address: mapping.address, dirty }
      if (options.populated) handle.populated = options.populated.buffer
      else if (FileHoles.trusted(path)) {
        handle.file = { fd, offset }
        fd = undefined
      }
      return new RamBlock(handle, mapping)
    } catch (cause) {
      throw cause instanceof MultifdError ? cause : fileError(path, cause)
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }

  /** Memory of a thread's own, in which pages lie between a connection and where they belong. */
  static staging(pages: number, pageSize: number): RamBlock {
    const size = pages * pageSize
    const memory = makeSharedMemory(size)
    const address = addressOf(new Uint8Array(memory.buffer))
    return new RamBlock({ idstr: 'staging', size, pageSize, address, memory, dirty: new SharedArrayBuffer(0) })
  }

  /** The block of a handle, in another thread of the same process. */
  static from(handle: RamBlockHandle): RamBlock {
    return new RamBlock(handle)
  }

  /** The memory itself where it is JavaScript's: for Atomics, and for the program's other threads. */
  get memory(): SharedArrayBuffer | undefined {
    return this.#memory?.buffer
  }

  /** What another thread needs of this block. It must not outlive the block where that maps a file. */
  get handle(): RamBlockHandle {
    const { idstr, size, pageSize, address, dirty, populated } = this
    const memory = this.#memory
    const handle: RamBlockHandle = { idstr, size, pageSize, address, dirty: dirty.buffer }
    if (memory) handle.memory = memory
    if (populated) handle.populated = populated.buffer
    if (this.#holes) handle.file = this.#holes.place
    return handle
  }

  /** Whether the memory is a mapped file's. */
  get fileBacked(): boolean {
    return this.#memory === undefined
  }

  /**
   * A view of bytes [offset, offset + length), which may not cross a multiple of 1 GiB in a mapped file.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a range outside the block, ERR_MULTIFD_STATE after `close`
   */
  bytes(offset = 0, length = Math.min(this.size - offset, WINDOW)): Uint8Array {
    this.#checkRange(offset, length)
    if (this.#memory) return new Uint8Array(this.#memory.buffer, offset, length)
    const start = offset - (offset % WINDOW)
    if (offset + length > start + WINDOW) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${this.idstr}': a view may not cross a multiple of 1 GiB`)
    }
    return this.#window(start).subarray(offset - start, offset - start + length)
  }

  #window(start: number): Uint8Array {
    const length = Math.min(WINDOW, this.size - start)
    const index = start / WINDOW
    this.#windows[index] ??= new Uint8Array(viewOf(this.address + start, length))
    return this.#windows[index]
  }

  /**
   * Bytes from `offset` on, up to `length` of them, as an array that begins somewhere before: for codecs that want one.
   * Shorter than asked for where a window of a mapped file ends.
   */
  place(offset: number, length: number): { bytes: Uint8Array; at: number; length: number } {
    this.#checkRange(offset, length)
    if (this.#memory) {
      this.#whole ??= new Uint8Array(this.#memory.buffer, 0, this.size)
      return { bytes: this.#whole, at: offset, length }
    }
    const at = offset % WINDOW
    return { bytes: this.#window(offset - at), at, length: Math.min(length, WINDOW - at) }
  }

  /**
   * Tells the migration that bytes [offset, offset + length) changed. Call it after the write, from any thread: a page
   * that is marked and then written could be sent as it was before.
   */
  markDirty(offset: number, length: number): void {
    this.#checkRange(offset, length)
    if (length === 0) return
    const first = Math.floor(offset / this.pageSize)
    this.dirty.setRange(first, Math.floor((offset + length - 1) / this.pageSize) - first + 1)
  }

  /** Whether a page is zero. Reading does not make untouched memory resident. */
  isZeroPage(page: number): boolean {
    return this.zeroPages(page, 1) !== 0
  }

  /**
   * Which of `count` pages from `first` on are zero, as a mask: bit i is the i-th. At most {@link ZERO_MASK_PAGES}, all in
   * the block. Where a bitmap of populated pages is kept, it is believed.
   */
  zeroPages(first: number, count: number): number {
    const { populated, pageSize } = this
    if (populated) return ~populated.bits(first) & (count === 32 ? -1 : (1 << count) - 1)
    if (this.#memory) {
      this.#kernel ??= pageKernel(this.#memory)
      return this.#kernel.zeroPages(first, count, this.pageShift)
    }
    let mask = 0
    for (let i = 0; i < count; i++) {
      const offset = (first + i) * pageSize
      if (this.#holes?.isHole(offset, pageSize) || isZero(this.address + offset, pageSize)) mask |= 1 << i
    }
    return mask
  }

  /** Whether any of `count` pages from `first` on is zero. All must lie in the block. */
  hasZeroPage(first: number, count: number): boolean {
    if (this.#memory && !this.populated) {
      this.#kernel ??= pageKernel(this.#memory)
      return this.#kernel.findZeroPage(first, count, this.pageShift) < count
    }
    for (let done = 0; done < count; done += ZERO_MASK_PAGES) {
      if (this.zeroPages(first + done, Math.min(ZERO_MASK_PAGES, count - done)) !== 0) return true
    }
    return false
  }

  /**
   * Makes a range of a mapped file writable for code of ours. Where the disk is full, the kernel refuses this with an
   * error; a write to the memory itself would end the process.
   *
   * @throws MultifdError ERR_MULTIFD_FILE
   */
  makeRoom(offset: number, length: number): void {
    if (!this.fileBacked) return
    this.#checkRange(offset, length)
    const lead = offset % HOST_PAGE_SIZE
    const whole = Math.ceil((lead + length) / HOST_PAGE_SIZE) * HOST_PAGE_SIZE
    if (populate(this.address + offset - lead, whole)) return
    const number = errno()
    if (number === ERRNO.invalid) return // a kernel before 5.14 does not know the request
    throw new MultifdError('ERR_MULTIFD_FILE', NO_ROOM, { errno: number, errnoName: errnoName(number) })
  }

  /** Pages are to be read now, by a system call: a mapped file's are mapped at once instead of by a fault each. */
  aboutToRead(runs: PageRuns): void {
    if (!this.fileBacked) return
    for (let run = 0; run < runs.count; run++) {
      if (runs.length(run) < WORTH_MAPPING) continue
      populateRead(this.address + runs.first(run) * this.pageSize, runs.length(run) * this.pageSize)
    }
  }

  /** Unmaps a mapped file. No thread may use the block afterwards. Idempotent. */
  close(): void {
    this.#windows.length = 0
    // Of those that know the file, only the block that mapped it holds it open.
    if (this.#mapping && this.#holes) closeSync(this.#holes.place.fd)
    this.#mapping?.unmap()
    this.#mapping = undefined
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${this.idstr}': [${offset}, +${length}) is outside of it`)
    }
  }
}

function checkShape({ idstr, size }: { idstr: string; size: number }): { idstr: string; size: number } {
  encodeIdstr(idstr) // throws for a name that can not be on the wire
  if (!Number.isSafeInteger(size) || size <= 0 || size % HOST_PAGE_SIZE !== 0) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': size ${size} is not a multiple of 4096`)
  }
  return { idstr, size }
}

function fileError(path: string, cause: unknown): MultifdError {
  const { code, message } = cause as NodeJS.ErrnoException
  return new MultifdError('ERR_MULTIFD_FILE', `${path}: ${code ?? message}`, { errnoName: code, cause })
}
