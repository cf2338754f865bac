// What a RAM block is made with, and what another thread gets of it.

import type { Backing } from '../os/backing.js'
import type { Inode } from '../os/file.js'
import type { SharedBitmap } from '../shm/bitmap.js'
import type { SharedMemory } from '../wasm/kernel.js'
import type { DirtyLogKind } from './dirty-log.js'
import type { DiscardManagerHandle, SparseOptions } from './discard-manager.js'
import type { FilePlace } from './file-holes.js'

/** A block as another thread gets it: structured clone passes it on, and `RamBlock.from` makes a block of it. */
export interface RamBlockHandle {
  idstr: string
  /** Bytes. */
  size: number
  /** Bytes of a target page, the unit of migration. */
  pageSize: number
  /** Of the first byte, in this process. */
  address: number
  /** The memory itself where it is a shared WebAssembly.Memory, so that it lives as long as a thread uses its address. */
  memory?: SharedMemory
  /** The same where its buffer alone is known. */
  keep?: SharedArrayBuffer
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
  /** The mapped file: where its holes can be asked for, or, with `populated`, where its pages are and stay as they are. */
  file?: FilePlace
  /** Which file is mapped. */
  inode?: Inode
  /** See {@link MapFileOptions.shared}. */
  shared?: boolean
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

/** What a block that maps a file can be made with. */
export interface MapFileOptions extends RamBlockOptions {
  path: string
  /** Of the region in the file: bytes, a multiple of 4096. Default 0. */
  offset?: number
  /** Whether the memory may be written, and the file made or lengthened. Default true. */
  writable?: boolean
  /**
   * Whether both sides of a migration map the region: with the parameter `ignoreShared` its pages stay where they are.
   * Default false.
   */
  shared?: boolean
  /** Bytes of a target page. Default 4096. */
  pageSize?: number
  /** Pages that have data; the others are zero whatever lies there. */
  populated?: SharedBitmap
}
