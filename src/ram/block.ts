// A RAM block: named memory that migrates, by address for the kernel and by views for the program.

import { closeSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { type Backing, backingOf, MEMORY_BACKING, takesRoom } from '../os/backing.js'
import { ERRNO, errno, errnoName } from '../os/libc.js'
import {
  addressOf,
  adviseHugePages,
  adviseSmallPages,
  HOST_PAGE_SIZE,
  HUGE_PAGE_SIZE,
  isZero,
  type Mapping,
  mapFile,
  NO_ROOM,
  populate,
  viewOf,
} from '../os/memory.js'
import { cachedBytes, dropPages, ownedBytes, removePages } from '../os/residency.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import { type AdoptableMemory, AdoptedMemory } from './adopted-memory.js'
import type { DirtyLogKind } from './dirty-log.js'
import { type DiscardManagerHandle, RamDiscardManager, type SparseOptions } from './discard-manager.js'

/** Largest block that {@link RamBlock.allocate} makes: what a shared WebAssembly.Memory can hold. */
export const ALLOCATE_MAX = 2 ** 32
const WASM_PAGE = 65536
const WINDOW = 2 ** 30

// The types of Node 20 leave it out.
declare const WebAssembly: {
  Memory: new (descriptor: { initial: number; maximum: number; shared: true }) => { buffer: SharedArrayBuffer }
}

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
  memory?: SharedArrayBuffer
  /** The explicit dirty log, one bit a page. */
  dirty: SharedArrayBuffer
  /** Pages that have data; the others are zero whatever lies there. Absent: the memory itself tells. */
  populated?: SharedArrayBuffer
  /** Absent: memory of the process itself. */
  backing?: Backing
  /** How changes are found. Absent: the program marks them. */
  dirtyLog?: DirtyLogKind
  /** Of a sparse block. */
  sparse?: DiscardManagerHandle
}

/** What every block can be made with. */
export interface RamBlockOptions {
  idstr: string
  /** Bytes, a multiple of 4096. */
  size: number
  /** How a migration learns what the program changes: it says so (`explicit`), or the kernel does. Default `explicit`. */
  dirtyLog?: DirtyLogKind
  /** Makes the block sparse: only what its manager populates has content. At first that is nothing. */
  discardManager?: SparseOptions
  /** Makes all of it resident at once. Not for a sparse block, which would be none then. Default false. */
  prealloc?: boolean
}

export class RamBlock {
  readonly idstr: string
  readonly size: number
  readonly pageSize: number
  readonly address: number
  readonly memory: SharedArrayBuffer | undefined
  /** Pages that the program changed since the migration last looked. See {@link markDirty}. */
  readonly dirty: SharedBitmap
  readonly populated: SharedBitmap | undefined
  /** The memory as words where it is JavaScript's. */
  readonly words: Int32Array | undefined
  /** How a migration learns what the program changes. */
  readonly dirtyLog: DirtyLogKind
  /** What stands behind the memory. */
  readonly backing: Backing
  /** Of a sparse block: what of it has content. */
  readonly discardManager: RamDiscardManager | undefined
  readonly #adopted: AdoptedMemory | undefined
  readonly #windows: Uint8Array[] = []
  #whole: Uint8Array | undefined
  #mapping: Mapping | undefined

  private constructor(handle: RamBlockHandle, mapping?: Mapping, adopted?: AdoptedMemory) {
    this.idstr = handle.idstr
    this.size = handle.size
    this.pageSize = handle.pageSize
    this.address = handle.address
    this.memory = handle.memory
    this.dirty = new SharedBitmap(this.pages, handle.dirty)
    this.populated = handle.populated && new SharedBitmap(this.pages, handle.populated)
    this.words = handle.memory && new Int32Array(handle.memory, 0, handle.size / 4)
    this.dirtyLog = handle.dirtyLog ?? 'explicit'
    this.backing = handle.backing ?? MEMORY_BACKING
    this.discardManager = handle.sparse && new RamDiscardManager(this, handle.sparse)
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
    const { idstr, size } = checkShape(options)
    const extras = extrasOf(options, HOST_PAGE_SIZE)
    if (size > ALLOCATE_MAX) {
      throw new MultifdError(
        'ERR_MULTIFD_ARGUMENT',
        `block '${idstr}': allocate makes up to 4 GiB; map a file for more`,
      )
    }
    const wasmPages = Math.ceil(size / WASM_PAGE)
    let memory: SharedArrayBuffer
    try {
      memory = new WebAssembly.Memory({ initial: wasmPages, maximum: wasmPages, shared: true }).buffer
    } catch (cause) {
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `block '${idstr}': no memory for ${size} bytes`, { cause })
    }
    const address = addressOf(new Uint8Array(memory))
    if (fitsHugePages(address, options.discardManager)) adviseHugePages(address, size)
    else adviseSmallPages(address, size)
    const pageSize = HOST_PAGE_SIZE
    const dirty = new SharedBitmap(size / pageSize).buffer
    const block = new RamBlock({ idstr, size, pageSize, address, memory, dirty, ...extras })
    if (options.prealloc) block.#populate()
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
    const { idstr, size } = checkShape({ idstr: options.idstr, size: adopted.size })
    const { address, shared } = adopted
    const pageSize = HOST_PAGE_SIZE
    const dirty = new SharedBitmap(size / pageSize).buffer
    const dirtyLog = checkLog(idstr, options.dirtyLog ?? 'kernel')
    const memory = shared ? { memory: shared } : {}
    return new RamBlock({ idstr, size, pageSize, address, dirty, dirtyLog, ...memory }, undefined, adopted)
  }

  /**
   * A region of a file, mapped and shared: of any size, and what arrives lands in the file's page cache.
   * The file is made or lengthened as needed when `writable`.
   *
   * @param options.offset in bytes, a multiple of 4096
   * @throws MultifdError ERR_MULTIFD_ARGUMENT, ERR_MULTIFD_FILE
   */
  static mapFile(
    options: RamBlockOptions & {
      path: string
      offset?: number
      writable?: boolean
      pageSize?: number
      populated?: SharedBitmap
    },
  ): RamBlock {
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
      const backing = backingOf(path)
      const extras = extrasOf(options, Math.max(backing.unit, pageSize))
      if (extras.sparse && takesRoom(fd, offset, size)) throw preallocated(idstr, `of ${path} `)
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
      const mapping = mapFile(fd, offset, size, writable, !extras.sparse)
      const dirty = new SharedBitmap(size / pageSize).buffer
      const handle: RamBlockHandle = { idstr, size, pageSize, address: mapping.address, dirty, backing, ...extras }
      if (options.populated) handle.populated = options.populated.buffer
      const block = new RamBlock(handle, mapping)
      if (options.prealloc) block.#populate()
      return block
    } catch (cause) {
      throw cause instanceof MultifdError ? cause : fileError(path, cause)
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }

  /** The block of a handle, in another thread of the same process. */
  static from(handle: RamBlockHandle): RamBlock {
    return new RamBlock(handle)
  }

  /** What another thread needs of this block. It must not outlive the block where that maps a file. */
  get handle(): RamBlockHandle {
    const { idstr, size, pageSize, address, memory, dirty, populated } = this
    const handle: RamBlockHandle = { idstr, size, pageSize, address, dirty: dirty.buffer }
    handle.backing = this.backing
    handle.dirtyLog = this.dirtyLog
    if (this.discardManager) handle.sparse = this.discardManager.handle
    if (memory) handle.memory = memory
    if (populated) handle.populated = populated.buffer
    return handle
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

  get pages(): number {
    return this.size / this.pageSize
  }

  /**
   * A view of bytes [offset, offset + length), which may not cross a multiple of 1 GiB in a mapped file.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for a range outside the block, ERR_MULTIFD_STATE after `close`
   */
  bytes(offset = 0, length = Math.min(this.size - offset, WINDOW)): Uint8Array {
    this.#checkRange(offset, length)
    if (this.memory) return new Uint8Array(this.memory, offset, length)
    if (this.#adopted) return new Uint8Array(this.#adopted.buffer, offset, length)
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
    if (this.memory) {
      this.#whole ??= new Uint8Array(this.memory, 0, this.size)
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
    if (this.populated && !this.populated.has(page)) return true
    const offset = page * this.pageSize
    // Two words of JavaScript's settle almost every page that has data; the whole page is compared only then.
    if (this.words && (this.words[offset / 4] !== 0 || this.words[(offset + this.pageSize) / 4 - 1] !== 0)) return false
    return isZero(this.address + offset, this.pageSize)
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

  /** Unmaps a mapped file. No thread may use the block afterwards. Idempotent. */
  close(): void {
    this.#windows.length = 0
    this.#mapping?.unmap()
    this.#mapping = undefined
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${this.idstr}': [${offset}, +${length}) is outside of it`)
    }
  }
}

function checkShape(options: RamBlockOptions): { idstr: string; size: number } {
  const { idstr, size } = options
  encodeIdstr(idstr) // throws for a name that can not be on the wire
  if (!Number.isSafeInteger(size) || size <= 0 || size % HOST_PAGE_SIZE !== 0) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': size ${size} is not a multiple of 4096`)
  }
  if (options.discardManager && options.prealloc) throw preallocated(idstr, '')
  return { idstr, size }
}

function checkLog(idstr: string, kind: DirtyLogKind): DirtyLogKind {
  if (kind === 'explicit' || kind === 'kernel') return kind
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': dirtyLog '${kind}' is not explicit or kernel`)
}

function extrasOf(options: RamBlockOptions, unit: number): Pick<RamBlockHandle, 'dirtyLog' | 'sparse'> {
  const { idstr, dirtyLog = 'explicit', discardManager } = options
  const log = { dirtyLog: checkLog(idstr, dirtyLog) }
  return discardManager ? { ...log, sparse: RamDiscardManager.create(options, discardManager, unit) } : log
}

// A huge page that reaches over a granule's border takes memory for what is discarded: worth it only for large granules.
function fitsHugePages(address: number, sparse: SparseOptions | undefined): boolean {
  if (!sparse || sparse.granuleSize >= 16 * HUGE_PAGE_SIZE) return true
  return sparse.granuleSize >= HUGE_PAGE_SIZE && address % HUGE_PAGE_SIZE === 0
}

function preallocated(idstr: string, of: string): MultifdError {
  const message =
    `block '${idstr}': the room ${of}is taken beforehand, which a sparse block can not have: ` +
    'what is discarded would be backed all the same. Leave the backing empty; `prealloc` takes what is populated'
  return new MultifdError('ERR_MULTIFD_ARGUMENT', message)
}

function fileError(path: string, cause: unknown): MultifdError {
  const { code, message } = cause as NodeJS.ErrnoException
  return new MultifdError('ERR_MULTIFD_FILE', `${path}: ${code ?? message}`, { errnoName: code, cause })
}
