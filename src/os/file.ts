// Files by descriptor and memory by address: what Node's file system module does not have.

import { fstatSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { MultifdError } from '../errors.js'
import { ERRNO, errno, errnoName, libc } from './libc.js'

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const SEEK_SET = 0
const LOCK_EX = 2
const LOCK_NB = 4
const SEEK_DATA = 3
const SEEK_HOLE = 4
const FULL = new Set<number>([ERRNO.noSpace, constants.errno.EDQUOT])
const ERRNO_NO_DATA = constants.errno.ENXIO

/** Gives the room of bytes [offset, offset + length) back; they read as zero. Where a file system can not, no harm. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return libc().fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0
}

/**
 * Writes `length` bytes from memory at `address` into a file at `position`.
 *
 * @throws MultifdError ERR_MULTIFD_FILE
 */
export function writeAt(fd: number, address: number, length: number, position: number, path: string): void {
  move('pwrite', fd, address, length, position, path)
}

/**
 * Reads `length` bytes of a file from `position` on into memory at `address`.
 *
 * @throws MultifdError ERR_MULTIFD_FILE, also where the file ends too early
 */
export function readAt(fd: number, address: number, length: number, position: number, path: string): void {
  move('pread', fd, address, length, position, path)
}

function move(
  syscall: 'pread' | 'pwrite',
  fd: number,
  address: number,
  length: number,
  position: number,
  path: string,
): void {
  for (let done = 0; done < length; ) {
    const moved = libc()[syscall](fd, address + done, length - done, position + done)
    if (moved > 0) {
      done += moved
      continue
    }
    if (moved === 0) throw new MultifdError('ERR_MULTIFD_FILE', `${path}: the file ends too early`, { syscall })
    const number = errno()
    if (number !== ERRNO.intr) throw fileError(path, syscall, number)
  }
}

/** The next byte that is read or written is the one at `offset`. @throws MultifdError ERR_MULTIFD_FILE */
export function seekTo(fd: number, offset: number, path: string): void {
  if (Number(libc().lseek(fd, offset, SEEK_SET)) !== offset) throw fileError(path, 'lseek')
}

/** Returns once the disk has all of a file. @throws MultifdError ERR_MULTIFD_FILE */
export function syncFile(fd: number, path: string): void {
  for (;;) {
    if (libc().fsync(fd) === 0) return
    if (errno() !== ERRNO.intr) throw fileError(path, 'fsync')
  }
}

/**
 * Has a file for this descriptor alone, until it is closed or its process ends. Where a file system knows no locks, no harm.
 *
 * @throws MultifdError ERR_MULTIFD_FILE when somebody else has it
 */
export function lockFile(fd: number, path: string): void {
  if (libc().flock(fd, LOCK_EX | LOCK_NB) === 0 || errno() !== ERRNO.again) return
  const message = `${path}: somebody else is writing it`
  throw new MultifdError('ERR_MULTIFD_FILE', message, { errno: ERRNO.again, errnoName: 'EAGAIN', syscall: 'flock' })
}

/** Gives a file another name, in the place of what has it. @throws MultifdError ERR_MULTIFD_FILE */
export function renameFile(from: string, to: string): void {
  if (libc().rename(from, to) !== 0) throw fileError(to, 'rename')
}

/** What `action` does with a file; Node's errors become ours. @throws MultifdError ERR_MULTIFD_FILE */
export function withFile<T>(path: string, action: () => T): T {
  try {
    return action()
  } catch (cause) {
    if (cause instanceof MultifdError) throw cause
    const { code = 'unknown error', syscall } = cause as NodeJS.ErrnoException
    const why = code === 'ENOSPC' ? 'the disk is full (ENOSPC)' : code
    throw new MultifdError('ERR_MULTIFD_FILE', `${path}: ${why}`, { errnoName: code, syscall, cause })
  }
}

/** What a file is, whatever its names. */
export interface Inode {
  dev: bigint
  ino: bigint
}

/** Of the file at a path, or of an open descriptor's. Undefined where there is none. @throws MultifdError ERR_MULTIFD_FILE */
export function inodeOf(file: string | number): Inode | undefined {
  const found = withFile(String(file), () =>
    typeof file === 'number'
      ? fstatSync(file, { bigint: true })
      : statSync(file, { bigint: true, throwIfNoEntry: false }),
  )
  return found && { dev: found.dev, ino: found.ino }
}

/** Whether both are there, and one file. */
export function isSameFile(one: Inode | undefined, other: Inode | undefined): boolean {
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev
}

/** What a system call on a file failed with. */
export function fileError(path: string, syscall: string, number = errno()): MultifdError {
  const name = errnoName(number)
  return new MultifdError('ERR_MULTIFD_FILE', `${path}: ${FULL.has(number) ? `the disk is full (${name})` : name}`, {
    errno: number,
    errnoName: name,
    syscall,
  })
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
