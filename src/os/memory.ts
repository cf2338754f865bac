// Memory by address: mappings, advice, comparison with zero, and buffers whose address stays good.

import { MultifdError } from '../errors.js'
import { addressOf, errno, errnoName, libc, openLibrary, viewOf } from './libc.js'

/** Bytes of the smallest page of the machines this runs on; every address and length of a mapping is a multiple. */
export const HOST_PAGE_SIZE = 4096

/** What it means when the kernel can not write into memory that was checked. */
export const NO_ROOM = 'what arrives can not be stored: the disk or the memory it goes to is full'

const PROT_READ_WRITE = 3
const PROT_READ = 1
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
const MADV_HUGEPAGE = 14
const MADV_NOHUGEPAGE = 15
const MADV_POPULATE_READ = 22
export const MADV_POPULATE_WRITE = 23
const MAP_FAILED = 2 ** 64

/** A mapping of a file or of anonymous memory; `unmap` is for its owner, once, when no thread uses it any more. */
export interface Mapping {
  readonly address: number
  readonly length: number
  unmap(): void
}

function map(length: number, protection: number, flags: number, fd: number, offset: number, what: string): Mapping {
  const address = Number(libc().mmap(0, length, protection, flags, fd, offset))
  if (address === MAP_FAILED || address <= 0) {
    const number = errno()
    throw new MultifdError('ERR_MULTIFD_FILE', `can not map ${length} bytes of ${what}: ${errnoName(number)}`, {
      errno: number,
      errnoName: errnoName(number),
      syscall: 'mmap',
    })
  }
  let mapped = true
  return {
    address,
    length,
    unmap() {
      if (mapped) libc().munmap(address, length)
      mapped = false
    },
  }
}

/**
 * Maps bytes [offset, offset + length) of an open file, shared: what is written there is the file's content.
 *
 * @param reserve whether huge pages are set aside for all of it at once
 * @throws MultifdError ERR_MULTIFD_FILE
 */
export function mapFile(fd: number, offset: number, length: number, writable: boolean, reserve = true): Mapping {
  const flags = MAP_SHARED | (reserve ? 0 : MAP_NORESERVE)
  return map(length, writable ? PROT_READ_WRITE : PROT_READ, flags, fd, offset, 'a file')
}

/** Maps fresh memory that reads as zero and takes no room before it is written. */
export function mapAnonymous(length: number): Mapping {
  return map(length, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, 'memory')
}

/** Asks for huge pages over a range. They make the first touch of memory many times cheaper; a refusal is harmless. */
export function adviseHugePages(address: number, length: number): void {
  libc().madvise(address, length, MADV_HUGEPAGE)
}

/** Bytes of a huge page of memory that the kernel hands out by itself. */
export const HUGE_PAGE_SIZE = 2 ** 21

/** Wants none of them over a range: one would take memory for its whole 2 MiB at the first touch. */
export function adviseSmallPages(address: number, length: number): void {
  libc().madvise(address, length, MADV_NOHUGEPAGE)
}

/** Makes a range resident now. Returns false where the kernel can not (before 5.14) or memory runs short. */
export function populate(address: number, length: number): boolean {
  return libc().madvise(address, length, MADV_POPULATE_WRITE) === 0
}

/**
 * Maps what is in memory already, or the zero page where nothing is: one call instead of a fault each. Returns 0 or the
 * error's number.
 */
export function populateRead(address: number, length: number): number {
  return libc().madvise(address, length, MADV_POPULATE_READ) === 0 ? 0 : errno()
}

/** A buffer of ours with an address that stays good for as long as the object is held. */
export class PinnedBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly view: DataView<ArrayBuffer>
  readonly address: number

  /** @param length in bytes; rounded up past what the engine may move */
  constructor(length: number) {
    this.bytes = new Uint8Array(new ArrayBuffer(Math.max(length, 128)), 0, length)
    this.view = new DataView(this.bytes.buffer, 0, length)
    this.address = addressOf(this.bytes)
  }
}

const ZEROES_SIZE = 65536
let zeroes: PinnedBuffer | undefined

/** Whether the `length` bytes at `address` are all zero. */
export function isZero(address: number, length: number): boolean {
  zeroes ??= new PinnedBuffer(ZEROES_SIZE)
  for (let done = 0; done < length; done += ZEROES_SIZE) {
    if (libc().memcmp(address + done, zeroes.address, Math.min(ZEROES_SIZE, length - done)) !== 0) return false
  }
  return true
}

const zeroPages = new Map<number, PinnedBuffer & { size: number }>()

/** A page of zeros, to be sent in the place of one that is known to be zero; for reading only. */
export function zeroPage(size: number): PinnedBuffer & { size: number } {
  let page = zeroPages.get(size)
  if (!page) {
    page = Object.assign(new PinnedBuffer(size), { size })
    zeroPages.set(size, page)
  }
  return page
}

let trim: ((pad: number) => number) | undefined

/**
 * Has the C library give back what was freed: it keeps for each thread's successor what a thread that ended had. Takes some
 * milliseconds. Does nothing where the library is not glibc.
 */
export function giveBackFreed(): void {
  try {
    trim ??= openLibrary<{ malloc_trim: (pad: number) => number }>(null, {
      malloc_trim: 'int malloc_trim(size_t)',
    }).malloc_trim
  } catch {
    trim = () => 0
  }
  trim(0)
}

export function copyMemory(to: number, from: number, length: number): void {
  libc().memcpy(to, from, length)
}

export function clearMemory(to: number, length: number): void {
  libc().memset(to, 0, length)
}

export { addressOf, viewOf }
