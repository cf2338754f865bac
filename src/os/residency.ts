// Memory taken and given back: pages populated ahead, dropped, and counted.

import { closeSync, openSync, readSync } from 'node:fs'
import { errno, libc } from './libc.js'
import { HOST_PAGE_SIZE, MADV_POPULATE_WRITE, PinnedBuffer } from './memory.js'

const MADV_DONTNEED = 4
const MADV_REMOVE = 9
// What one call looks at.
const LOOK_BYTES = 2 ** 28
const ENTRIES = 2 ** 16
// Of the upper half of an entry of /proc/pid/pagemap: bits 63 and 56 (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT = 1 << 31
const EXCLUSIVE = 1 << 24

type Async = {
  async(address: number, length: number, advice: number, done: (error: unknown, result: number) => void): void
}

/** Gives anonymous memory back: it reads as zero afterwards. Returns 0 or the error's number. */
export function dropPages(address: number, length: number): number {
  return libc().madvise(address, length, MADV_DONTNEED) === 0 ? 0 : errno()
}

/** Gives the room of a shared mapping back, in its file too. Returns 0 or the error's number. */
export function removePages(address: number, length: number): number {
  return libc().madvise(address, length, MADV_REMOVE) === 0 ? 0 : errno()
}

/**
 * Makes a range resident, in a thread of the process's pool. Resolves to whether the kernel could; keep it so small that
 * it lasts no longer than 100 ms.
 */
export function populateWriteLater(address: number, length: number): Promise<boolean> {
  const { madvise } = libc() as unknown as { madvise: Async }
  return new Promise((resolve) => {
    madvise.async(address, length, MADV_POPULATE_WRITE, (error, result) => resolve(!error && result === 0))
  })
}

/**
 * Bytes of a range of the process's own memory that have memory of their own behind them: not where only reading has been,
 * which the kernel answers from one page of zeros.
 */
export function ownedBytes(address: number, length: number): number {
  const fd = openSync('/proc/self/pagemap', 'r')
  try {
    const entries = new Uint32Array(2 * Math.min(length / HOST_PAGE_SIZE, ENTRIES))
    let pages = 0
    for (let done = 0; done < length; done += ENTRIES * HOST_PAGE_SIZE) {
      const bytes = 8 * Math.min(ENTRIES, (length - done) / HOST_PAGE_SIZE)
      const read = readSync(fd, entries, 0, bytes, ((address + done) / HOST_PAGE_SIZE) * 8)
      for (let at = 1; at < read / 4; at += 2) {
        if ((entries[at]! & (PRESENT | EXCLUSIVE)) >>> 0 === (PRESENT | EXCLUSIVE) >>> 0) pages++
      }
    }
    return pages * HOST_PAGE_SIZE
  } finally {
    closeSync(fd)
  }
}

/** Bytes of a range of a mapped file that are in memory, whoever brought them there. */
export function cachedBytes(address: number, length: number): number {
  const vector = new PinnedBuffer(Math.min(length, LOOK_BYTES) / HOST_PAGE_SIZE)
  let pages = 0
  for (let done = 0; done < length; done += LOOK_BYTES) {
    const bytes = Math.min(LOOK_BYTES, length - done)
    if (libc().mincore(address + done, bytes, vector.address) !== 0) return 0
    for (let page = 0; page < bytes / HOST_PAGE_SIZE; page++) pages += vector.bytes[page]! & 1
  }
  return pages * HOST_PAGE_SIZE
}
