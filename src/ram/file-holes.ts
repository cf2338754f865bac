// Where a mapped file has nothing: known without reading the memory, which would make it resident.
//
// Reading a hole through a mapping fills the page cache with zeros, and on tmpfs (/dev/shm) it takes memory for good.

import { statfsSync } from 'node:fs'
import { nextData, nextHole } from '../os/file.js'

// Of those it is known that what was written through a mapping, and is on no disk yet, is data to them at once.
const TRUSTED = new Set([
  0x01021994 /* tmpfs */, 0xef53 /* ext2 to ext4 */, 0x58465342 /* xfs */, 0x9123683e /* btrfs */,
])

/** A region of an open file, as another thread of the process gets it. */
export interface FilePlace {
  fd: number
  /** Of the block's first byte in the file. */
  offset: number
}

export class FileHoles {
  readonly place: FilePlace
  // Data as of the last look, offsets in the file. Old knowledge of it is harmless: the memory is read then.
  #dataStart = 0
  #dataEnd = 0

  constructor(place: FilePlace) {
    this.place = place
  }

  /** Whether a file's system can be asked. */
  static trusted(path: string): boolean {
    return TRUSTED.has(statfsSync(path).type)
  }

  /** Whether bytes [offset, offset + length) of the block were never written, as of now, and so are zero. */
  isHole(offset: number, length: number): boolean {
    const { fd, offset: base } = this.place
    const start = base + offset
    if (start >= this.#dataStart && start < this.#dataEnd) return false
    const data = nextData(fd, start)
    if (data >= start + length) return true
    this.#dataStart = data
    this.#dataEnd = nextHole(fd, data)
    return false
  }
}
