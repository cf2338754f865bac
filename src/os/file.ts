// What Node's file system module does not have.

import { libc } from './libc.js'

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2

/** Gives the room of bytes [offset, offset + length) back; they read as zero. Where a file system can not, no harm. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return libc().fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0
}
