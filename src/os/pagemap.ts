// /proc/self/pagemap: which pages of this process were written since they were last protected (PAGEMAP_SCAN).
//
// struct pm_scan_arg, 96 bytes of u64: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
// category_mask, category_anyof_mask, return_mask.   struct page_region { u64 start, end, categories }
//
// Source: Linux include/uapi/linux/fs.h, Documentation/admin-guide/mm/pagemap.rst.

import { closeSync, openSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { missingFromKernel } from '../faults.js'
import { noteClosed, noteOpened } from './descriptors.js'
import { ERRNO, errno, libc } from './libc.js'
import { PinnedBuffer } from './memory.js'
import { kernelError } from './userfaultfd.js'
import { putWord, takeWord } from './words.js'

const PAGEMAP_SCAN = 0xc0606610
const WP_MATCHING = 1
const CHECK_WPASYNC = 2
const PAGE_IS_WRITTEN = 2
const PAGE_IS_PRESENT = 8
const PAGE_IS_SWAPPED = 16

const ARGUMENT_SIZE = 96
const FLAGS = 8
const START = 16
const END = 24
const WALK_END = 32
const VEC = 40
const VEC_LEN = 48
const INVERTED = 64
const MASK = 72
const RETURN_MASK = 88

const REGION_SIZE = 24
const REGIONS = 4096
// What one call walks: a few milliseconds' worth.
const SCAN_BYTES = 2 ** 30

let probed = false

/**
 * Whether this kernel can; found out once.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED
 */
export function requirePagemapScan(): void {
  if (probed && missingFromKernel.size === 0) return
  new Pagemap().close()
  probed = true
}

export class Pagemap {
  readonly #argument = new PinnedBuffer(ARGUMENT_SIZE)
  readonly #regions = new PinnedBuffer(REGION_SIZE * REGIONS)
  #fd: number

  /** @throws MultifdError ERR_MULTIFD_UNSUPPORTED where /proc or the call is missing */
  constructor() {
    try {
      this.#fd = noteOpened(openSync('/proc/self/pagemap', 'r'))
    } catch (cause) {
      const reason = (cause as NodeJS.ErrnoException).code
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `/proc/self/pagemap can not be opened: ${reason}`, { cause })
    }
    const { view } = this.#argument
    putWord(view, 0, ARGUMENT_SIZE)
    putWord(view, VEC, this.#regions.address)
    putWord(view, VEC_LEN, REGIONS)
    // An empty range: only a kernel without the call minds.
    const missing = missingFromKernel.has('pagemap-scan') ? ERRNO.noIoctl : this.#scan(0, 0, 0)
    if (missing === 0) return
    this.close()
    throw kernelError('/proc/self/pagemap has no PAGEMAP_SCAN (Linux 6.7)', 'ioctl', missing)
  }

  /**
   * Calls `visit` with the address and length of every run of pages in the range that changed since they were protected
   * last, and protects them in the same step: a write is told by this call or by the next one.
   *
   * @throws MultifdError ERR_MULTIFD_STATE when the range is not, or no longer, under an asynchronous userfaultfd;
   * ERR_MULTIFD_IO when memory runs short
   */
  takeWritten(address: number, length: number, visit: (address: number, length: number) => void): void {
    const { view } = this.#argument
    putWord(view, RETURN_MASK, PAGE_IS_WRITTEN)
    putWord(view, INVERTED, 0)
    putWord(view, MASK, PAGE_IS_WRITTEN)
    this.#walk(address, length, visit)
    // Where a huge page was given back to the kernel whole, its protection went with it, and what was there is gone. Not
    // every kernel that has the call counts that as written (fixed in 2026); an empty entry of hugetlbfs counts nowhere.
    putWord(view, RETURN_MASK, 0)
    putWord(view, INVERTED, PAGE_IS_PRESENT | PAGE_IS_SWAPPED)
    putWord(view, MASK, PAGE_IS_PRESENT | PAGE_IS_SWAPPED)
    this.#walk(address, length, visit)
  }

  #walk(address: number, length: number, visit: (address: number, length: number) => void): void {
    const view = this.#regions.view
    const end = address + length
    for (let from = address; from < end; ) {
      const number = this.#scan(WP_MATCHING | CHECK_WPASYNC, from, Math.min(from + SCAN_BYTES, end))
      if (number === ERRNO.intr || number === ERRNO.again) continue
      if (number === ERRNO.noMemory) throw kernelError('PAGEMAP_SCAN', 'ioctl', number)
      if (number !== 0) {
        const message = 'memory was unmapped or replaced while its writes were tracked'
        throw new MultifdError('ERR_MULTIFD_STATE', message, { cause: kernelError('PAGEMAP_SCAN', 'ioctl', number) })
      }
      for (let at = 0; at < this.#found * REGION_SIZE; at += REGION_SIZE) {
        const start = takeWord(view, at)
        visit(start, takeWord(view, at + 8) - start)
      }
      from = takeWord(this.#argument.view, WALK_END)
    }
  }

  #found = 0

  #scan(flags: number, start: number, end: number): number {
    const { view } = this.#argument
    putWord(view, FLAGS, flags)
    putWord(view, START, start)
    putWord(view, END, end)
    const found = libc().ioctl(this.#fd, PAGEMAP_SCAN, this.#argument.address)
    this.#found = Math.max(found, 0)
    return found < 0 ? errno() : 0
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd >= 0) {
      noteClosed(this.#fd)
      closeSync(this.#fd)
    }
    this.#fd = -1
  }
}
