// A RAM block: named memory that migrates, by address for the kernel and by views for the program.

import { closeSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { type Backing, MEMORY_BACKING } from '../os/backing.js'
import type { Inode } from '../os/file.js'
import { ERRNO, errno, errnoName } from '../os/libc.js'
import { HOST_PAGE_SIZE, type Mapping, NO_ROOM, populate, populateRead, viewOf } from '../os/memory.js'
import { cachedBytes, dropPages, ownedBytes, removePages } from '../os/residency.js'
import { SharedBitmap } from '../shm/bitmap.js'
import type { PageRuns } from '../shm/page-runs.js'
import { MEMORY_MAX, type SharedMemory } from '../wasm/kernel.js'
import { type AdoptableMemory, AdoptedMemory } from './adopted-memory.js'
import type { MapFileOptions, RamBlockHandle, RamBlockOptions } from './block-handle.js'
import { adoptMemory, allocateMemory, freshMemory, mapFileMemory, stagingMemory } from './block-memory.js'
import type { DirtyLogKind } from './dirty-log.js'
import { RamDiscardManager } from './discard-manager.js'
import { FileHoles, type FilePlace } from './file-holes.js'
import { ZeroPages } from './zero-pages.js'

export type { RamBlockHandle, RamBlockOptions } from './block-handle.js'
export { ZERO_MASK_PAGES } from './zero-pages.js'

/** Largest block that {@link RamBlock.allocate} makes: what a shared WebAssembly.Memory can hold. */
export const ALLOCATE_MAX = MEMORY_MAX
const WINDOW = 2 ** 30
// Pages that a call of its own maps faster than the faults do, which map some neighbours too.
const WORTH_MAPPING = 8

export class RamBlock {
  readonly idstr: string
  readonly size: number
  readonly pageSize: number
  readonly address: number
  /** Pages that the program changed since the migration last looked. See {@link markDirty}. */
  readonly dirty: SharedBitmap
  readonly populated: SharedBitmap | undefined
  /** How a migration learns what the program changes. */
  readonly dirtyLog: DirtyLogKind
  /** What stands behind the memory. */
  readonly backing: Backing
  /** Of a mapped file: which one. */
  readonly inode: Inode | undefined
  /** Of a sparse block: what of it has content. */
  readonly discardManager: RamDiscardManager | undefined
  /** Whether the other side of a migration maps the same memory: see `mapFile`. */
  readonly shared: boolean
  /** Number of target pages, and log2 of the bytes of one. */
  readonly pages: number
  readonly pageShift: number
  readonly #memory: SharedMemory | undefined
  readonly #keep: SharedArrayBuffer | undefined
  readonly #adopted: AdoptedMemory | undefined
  readonly #zeroPages: ZeroPages
  readonly #windows: Uint8Array[] = []
  readonly #file: FilePlace | undefined
  #whole: Uint8Array | undefined
  #mapping: Mapping | undefined
  #allocated = false

  private constructor(handle: RamBlockHandle, mapping?: Mapping, adopted?: AdoptedMemory) {
    this.idstr = handle.idstr
    this.size = handle.size
    this.pageSize = handle.pageSize
    this.address = handle.address
    this.#memory = handle.memory
    this.#keep = handle.keep
    this.pages = handle.size / handle.pageSize
    this.pageShift = 31 - Math.clz32(handle.pageSize)
    this.dirty = new SharedBitmap(this.pages, handle.dirty)
    this.populated = handle.populated && new SharedBitmap(this.pages, handle.populated)
    this.dirtyLog = handle.dirtyLog ?? 'explicit'
    this.backing = handle.backing ?? MEMORY_BACKING
    this.discardManager = handle.sparse && new RamDiscardManager(this, handle.sparse)
    this.#file = handle.file
    this.inode = handle.inode
    this.shared = handle.shared ?? false
    const holes = handle.file && !handle.populated ? new FileHoles(handle.file) : undefined
    this.#zeroPages = new ZeroPages(this, handle.memory, holes)
    this.#mapping = mapping
    this.#adopted = adopted
  }

  /**
   * Shared, page-aligned memory of this process: the buffer of a shared WebAssembly.Memory, for every worker of the
   * program and for Atomics.
   *
   * @param options.size in bytes, a multiple of 4096, up to 4 GiB; any number of blocks
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a bad name or size, ERR_MULTIFD_UNSUPPORTED off Linux
   */
  static allocate(options: RamBlockOptions): RamBlock {
    const block = new RamBlock(allocateMemory(options))
    block.#allocated = true
    if (options.prealloc) block.#populate()
    return block
  }

  /** The same for the pages of another machine. */
  static allocateFor(shape: { idstr: string; size: number; pageSize: number }): RamBlock {
    const block = new RamBlock(freshMemory(shape))
    block.#allocated = true
    return block
  }

  /**
   * Memory that other code owns, as it is: a WebAssembly.Memory, shared or not, or a buffer that begins on a page. The
   * block covers what is there now. The program writes as it likes, from any thread and through the kernel, and need
   * mark nothing; it must not let the memory grow while it migrates.
   *
   * @param options.dirtyLog default `kernel`
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a bad name or memory, ERR_MULTIFD_UNSUPPORTED off Linux
   */
  static adopt(options: { idstr: string; memory: AdoptableMemory; dirtyLog?: DirtyLogKind }): RamBlock {
    const adopted = new AdoptedMemory(options.idstr, options.memory)
    return new RamBlock(adoptMemory(adopted, options.dirtyLog), undefined, adopted)
  }

  /**
   * A region of a file, mapped and shared: of any size, and what arrives lands in the file's page cache.
   * The file is made or lengthened as needed when `writable`.
   *
   * @param options.offset in bytes, a multiple of 4096
   * @throws MultifdError ERR_MULTIFD_ARGUMENT, ERR_MULTIFD_FILE
   */
  static mapFile(options: MapFileOptions): RamBlock {
    const { handle, mapping } = mapFileMemory(options)
    const block = new RamBlock(handle, mapping)
    try {
      if (options.prealloc) block.#populate()
      return block
    } catch (error) {
      block.close()
      throw error
    }
  }

  /** Memory of a thread's own, in which pages lie between a connection and where they belong. */
  static staging(pages: number, pageSize: number): RamBlock {
    return new RamBlock(stagingMemory(pages, pageSize))
  }

  /** The block of a handle, in another thread of the same process. */
  static from(handle: RamBlockHandle): RamBlock {
    return new RamBlock(handle)
  }

  /** The memory itself where it is JavaScript's: for Atomics, and for the program's other threads. */
  get memory(): SharedArrayBuffer | undefined {
    return this.#memory?.buffer ?? this.#keep
  }

  /** What another thread needs of this block. It must not outlive the block where that maps a file. */
  get handle(): RamBlockHandle {
    const { idstr, size, pageSize, address, dirty, populated } = this
    const memory = this.#memory
    const handle: RamBlockHandle = { idstr, size, pageSize, address, dirty: dirty.buffer }
    handle.backing = this.backing
    handle.dirtyLog = this.dirtyLog
    if (this.discardManager) handle.sparse = this.discardManager.handle
    if (memory) handle.memory = memory
    if (this.#keep) handle.keep = this.#keep
    if (populated) handle.populated = populated.buffer
    if (this.#file) handle.file = this.#file
    if (this.inode) handle.inode = this.inode
    if (this.shared) handle.shared = true
    return handle
  }

  /** Whether the memory is of the kind that the kernel hands out in huge pages. */
  get hugePages(): boolean {
    return this.#memory !== undefined && !this.discardManager
  }

  /** Whether the memory is a mapped file's. */
  get fileBacked(): boolean {
    return this.backing.kind !== 'memory'
  }

  /** Whether other code owns the memory; known in the thread that adopted it. */
  get adopted(): boolean {
    return this.#adopted !== undefined
  }

  /** @throws MultifdError ERR_MULTIFD_STATE when adopted memory is not what it was; known in its own thread */
  checkSame(): void {
    this.#adopted?.checkSame()
  }

  /**
   * A view of bytes [offset, offset + length), which may not cross a multiple of 1 GiB in a mapped file.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a range outside the block, ERR_MULTIFD_STATE after `close`
   */
  bytes(offset = 0, length = Math.min(this.size - offset, WINDOW)): Uint8Array {
    this.#checkRange(offset, length)
    const buffer = this.#buffer()
    if (buffer) return new Uint8Array(buffer, offset, length)
    const start = offset - (offset % WINDOW)
    if (offset + length > start + WINDOW) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${this.idstr}': a view may not cross a multiple of 1 GiB`)
    }
    return this.#window(start).subarray(offset - start, offset - start + length)
  }

  // All of the memory, where JavaScript has it in this thread.
  #buffer(): ArrayBufferLike | undefined {
    return this.memory ?? this.#adopted?.buffer
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
    const buffer = this.#buffer()
    if (buffer) {
      this.#whole ??= new Uint8Array(buffer, 0, this.size)
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

  /** Calls `visit` with every range, in bytes, that has content: all of a block that is not sparse. */
  replayPopulated(visit: (offset: number, length: number) => void): void {
    if (this.discardManager) this.discardManager.replayPopulated(visit)
    else visit(0, this.size)
  }

  /** Calls `visit` with every run of pages that have none. */
  replayDiscardedPages(visit: (first: number, count: number) => void): void {
    const { pageSize } = this
    this.discardManager?.replayDiscarded((offset, length) => visit(offset / pageSize, length / pageSize))
  }

  /**
   * Gives the memory of bytes [offset, offset + length), whole pages, back to the kernel; they read as zero afterwards,
   * and are marked dirty.
   *
   * @throws MultifdError ERR_MULTIFD_UNSUPPORTED where the file system can not, ERR_MULTIFD_FILE
   */
  drop(offset: number, length: number): void {
    this.#checkRange(offset, length)
    const at = this.address + offset
    const number = this.fileBacked ? removePages(at, length) : dropPages(at, length)
    if (number === 0) {
      this.markDirty(offset, length) // a kernel's log of a mapped file does not see it
      return
    }
    const code = number === ERRNO.notSupported ? 'ERR_MULTIFD_UNSUPPORTED' : 'ERR_MULTIFD_FILE'
    const message = `block '${this.idstr}': its memory can not be given back: ${errnoName(number)}`
    throw new MultifdError(code, message, { errno: number, errnoName: errnoName(number), syscall: 'madvise' })
  }

  #populate(): void {
    for (let at = 0; at < this.size; at += WINDOW) {
      if (populate(this.address + at, Math.min(WINDOW, this.size - at))) continue
      const number = errno()
      throw new MultifdError('ERR_MULTIFD_FILE', NO_ROOM, { errno: number, errnoName: errnoName(number) })
    }
  }

  /** Bytes of [offset, offset + length), whole pages, that take memory already. */
  residentBytes(offset: number, length: number): number {
    this.#checkRange(offset, length)
    const at = this.address + offset
    return this.fileBacked ? cachedBytes(at, length) : ownedBytes(at, length)
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
    return this.#zeroPages.mask(first, count)
  }

  /** Whether any of `count` pages from `first` on is zero. All must lie in the block. */
  hasZeroPage(first: number, count: number): boolean {
    return this.#zeroPages.any(first, count)
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

  /** Where the populated pages are in a file that nobody changes: a snapshot's. Pages can be sent from there. */
  get pagesInFile(): FilePlace | undefined {
    return this.populated && this.#file
  }

  /** Pages are to be read now, by a system call: a mapped file's are mapped at once instead of by a fault each. */
  aboutToRead(runs: PageRuns): void {
    if (!this.fileBacked) return
    for (let run = 0; run < runs.count; run++) {
      if (runs.length(run) < WORTH_MAPPING) continue
      populateRead(this.address + runs.first(run) * this.pageSize, runs.length(run) * this.pageSize)
    }
  }

  /**
   * Unmaps a mapped file, and gives back the memory of a block that was allocated, which the garbage collector would do far
   * later. No thread may use the block afterwards. Idempotent.
   */
  close(): void {
    this.#windows.length = 0
    if (this.#allocated) dropPages(this.address, this.size)
    this.#allocated = false
    // Of those that know the file, only the block that mapped it holds it open.
    if (this.#mapping && this.#file) closeSync(this.#file.fd)
    this.#mapping?.unmap()
    this.#mapping = undefined
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${this.idstr}': [${offset}, +${length}) is outside of it`)
    }
  }
}
