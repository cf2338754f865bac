// What Node's file system module does not have.

import { constants } from 'node:os'
import { errno, libc } from './libc.js'

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const SEEK_DATA = 3
const SEEK_HOLE = 4
const ERRNO_NO_DATA = constants.errno.ENXIO

/** Gives the room of bytes [offset, offset + length) back; they read as zero. Where a file system can not, no harm. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return libc().fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0
}

/** The first byte at or after `offset` that the file has room for; Infinity when there is none; `offset` where nobody knows. */
export function nextData(fd: number, offset: number): number {
  const at = Number(libc().lseek(fd, offset, SEEK_DATA))
  if (at >= 0) return at
  return errno() === ERRNO_NO_DATA ? Number.POSITIVE_INFINITY : offset
}

/** The first hole at or after `offset`, which may be the file's end; `offset` where nobody knows. */
export function nextHole(fd: number, offset: number): number {
  const at = Number(libc().lseek(fd, offset, SEEK_HOLE))
  return at >= 0 ? at : offset
}
