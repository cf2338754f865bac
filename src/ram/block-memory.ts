// Where a RAM block's memory comes from: of ours, of other code's, a mapped file's.

import { closeSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { backingOf, takesRoom } from '../os/backing.js'
import { inodeOf } from '../os/file.js'
import {
  addressOf,
  adviseHugePages,
  adviseSmallPages,
  HOST_PAGE_SIZE,
  HUGE_PAGE_SIZE,
  type Mapping,
  mapFile,
} from '../os/memory.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { MEMORY_MAX, makeSharedMemory, type SharedMemory } from '../wasm/kernel.js'
import { encodeIdstr } from '../wire/multifd-packet.js'
import type { AdoptedMemory } from './adopted-memory.js'
import type { MapFileOptions, RamBlockHandle, RamBlockOptions } from './block-handle.js'
import type { DirtyLogKind } from './dirty-log.js'
import { RamDiscardManager, type SparseOptions } from './discard-manager.js'
import { FileHoles } from './file-holes.js'

/** Fresh memory of this process: see RamBlock.allocate. */
export function allocateMemory(options: RamBlockOptions): RamBlockHandle {
  const { idstr, size } = checkShape(options)
  const extras = extrasOf(options, HOST_PAGE_SIZE)
  return { ...freshMemory({ idstr, size, pageSize: HOST_PAGE_SIZE }, options.discardManager), ...extras }
}

/** The same for pages of any size: see RamBlock.allocateFor. */
export function freshMemory(
  { idstr, size, pageSize }: Pick<RamBlockHandle, 'idstr' | 'size' | 'pageSize'>,
  sparse?: SparseOptions,
): RamBlockHandle {
  if (size > MEMORY_MAX) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': allocate makes up to 4 GiB; map a file for more`)
  }
  const memory = blockMemory(idstr, size)
  const address = addressOf(new Uint8Array(memory.buffer))
  if (fitsHugePages(address, sparse)) adviseHugePages(address, size)
  else adviseSmallPages(address, size)
  return { idstr, size, pageSize, address, memory, dirty: new SharedBitmap(size / pageSize).buffer }
}

function blockMemory(idstr: string, size: number): SharedMemory {
  try {
    return makeSharedMemory(size)
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `block '${idstr}': no memory for ${size} bytes`, { cause })
  }
}

/** Memory of a thread's own: see RamBlock.staging. */
export function stagingMemory(pages: number, pageSize: number): RamBlockHandle {
  const size = pages * pageSize
  const memory = blockMemory('staging', size)
  const address = addressOf(new Uint8Array(memory.buffer))
  return { idstr: 'staging', size, pageSize, address, memory, dirty: new SharedArrayBuffer(0) }
}

/** Memory that is there already: see RamBlock.adopt. */
export function adoptMemory(adopted: AdoptedMemory, kind: DirtyLogKind = 'kernel'): RamBlockHandle {
  const { idstr, size } = checkShape(adopted)
  const { address, memory, keep } = adopted
  const pageSize = HOST_PAGE_SIZE
  const dirty = new SharedBitmap(size / pageSize).buffer
  const handle: RamBlockHandle = { idstr, size, pageSize, address, dirty, dirtyLog: checkLog(idstr, kind) }
  if (memory) handle.memory = memory
  else if (keep) handle.keep = keep
  return handle
}

/** A region of a file: see RamBlock.mapFile. */
export function mapFileMemory(options: MapFileOptions): { handle: RamBlockHandle; mapping: Mapping } {
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
    // What nobody writes to is as it is.
    if (extras.sparse && writable && takesRoom(fd, offset, size)) throw preallocated(idstr, `of ${path} `)
    makeLength(fd, path, offset, options)
    const mapping = mapFile(fd, offset, size, writable, !extras.sparse)
    const dirty = new SharedBitmap(size / pageSize).buffer
    const handle: RamBlockHandle = { idstr, size, pageSize, address: mapping.address, dirty, backing, ...extras }
    handle.inode = inodeOf(fd)!
    if (options.shared) handle.shared = true
    if (options.populated) handle.populated = options.populated.buffer
    if (options.populated ? !writable : FileHoles.trusted(path)) {
      handle.file = { fd, offset }
      fd = undefined
    }
    return { handle, mapping }
  } catch (cause) {
    throw cause instanceof MultifdError ? cause : fileError(path, cause)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function makeLength(fd: number, path: string, offset: number, { idstr, size, writable = true }: MapFileOptions): void {
  const length = fstatSync(fd).size
  if (length >= offset + size) return
  if (writable) ftruncateSync(fd, offset + size)
  else {
    const message = `${path} has ${length} bytes, block '${idstr}' needs ${offset + size}`
    throw new MultifdError('ERR_MULTIFD_FILE', message)
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
