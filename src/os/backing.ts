// What stands behind a file that is mapped: a disk, memory, or huge pages.

import { fstatSync, statfsSync } from 'node:fs'
import { libc } from './libc.js'
import { HOST_PAGE_SIZE } from './memory.js'

const TMPFS_MAGIC = 0x01021994
const HUGETLBFS_MAGIC = 0x958458f6
const SEEK_DATA = 3
const SECTOR = 512

/** `memory`: of the process itself; `tmpfs` and `huge`: memory that has a name; `file`: the page cache of a disk. */
export interface Backing {
  readonly kind: 'memory' | 'tmpfs' | 'huge' | 'file'
  /** Bytes of its pages. */
  readonly unit: number
}

export const MEMORY_BACKING: Backing = { kind: 'memory', unit: HOST_PAGE_SIZE }

/** Of a file that exists. */
export function backingOf(path: string): Backing {
  const { type, bsize } = statfsSync(path)
  if (type === HUGETLBFS_MAGIC) return { kind: 'huge', unit: bsize }
  return { kind: type === TMPFS_MAGIC ? 'tmpfs' : 'file', unit: HOST_PAGE_SIZE }
}

/** Whether room is taken for bytes [offset, offset + length) of an open file: they have content, or it was all allocated. */
export function takesRoom(fd: number, offset: number, length: number): boolean {
  const { blocks, size } = fstatSync(fd)
  if (size > offset && blocks * SECTOR >= size) return true
  // Where a file system can not tell, or there is nothing, the answer is below zero. The position is nobody's here.
  const data = Number(libc().lseek(fd, offset, SEEK_DATA))
  return data >= offset && data < offset + length && blocks > 0
}
