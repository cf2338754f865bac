// The place of one RAM block in a mapped-ram file: its header, its bitmap, its pages.
//
//   offset  size  field
//   0       4     version, 1
//   4       8     page size, bytes
//   12      8     bitmap_offset: absolute place in the file of the bitmap, right after this header
//   20      8     pages_offset: absolute place of page 0, the bitmap's end rounded up to 1 MiB
//
// The header follows the block's entry in the RAM set-up list. The bitmap has one bit a page, in whole 64-bit words of
// a little-endian host: page k is byte k >> 3, bit k & 7. Page k lies at pages_offset + k x page size where its bit is
// set; where it is clear the page is zero, whatever lies there. The next entry comes after the last page's place.
//
// Source of the format: QEMU migration/ram.c, MappedRamHeader, and docs/devel/migration/mapped-ram.

import { hex, isPowerOfTwo, protocolError, readU64, requireBytes, writeU64 } from './bytes.js'

export const MAPPED_RAM_HEADER_SIZE = 28
export const MAPPED_RAM_VERSION = 1
/** Writers put pages at a multiple of this, bytes; readers must not rely on it. */
export const MAPPED_RAM_ALIGNMENT = 1024 * 1024

const PAGE_SIZE_AT = 4
const BITMAP_OFFSET_AT = 12
const PAGES_OFFSET_AT = 20
const PAGES_PER_WORD = 64

/** The header's fields. */
export interface MappedRamHeader {
  /** Bytes. */
  pageSize: number
  /** Absolute, bytes. */
  bitmapOffset: number
  /** Absolute, bytes. */
  pagesOffset: number
}

/** Where a block's parts lie in the file: absolute offsets and sizes in bytes. */
export interface MappedRamLayout {
  bitmapOffset: number
  bitmapSize: number
  pagesOffset: number
  /** Where the next block's entry starts: pagesOffset + the block's used length. */
  end: number
}

/** A block's header and place, as found in a file. */
export interface MappedRamBlock extends MappedRamLayout {
  /** Bytes. */
  pageSize: number
}

/** Bytes of the bitmap of a block of `usedLength` bytes. */
export function mappedRamBitmapSize(usedLength: number, pageSize: number): number {
  return Math.ceil(usedLength / pageSize / PAGES_PER_WORD) * (PAGES_PER_WORD / 8)
}

/**
 * Where a writer puts the parts of a block.
 * @param position absolute place in the file of the block's 28-byte header
 */
export function layoutMappedRam(position: number, usedLength: number, pageSize: number): MappedRamLayout {
  const bitmapOffset = position + MAPPED_RAM_HEADER_SIZE
  const bitmapSize = mappedRamBitmapSize(usedLength, pageSize)
  const pagesOffset = Math.ceil((bitmapOffset + bitmapSize) / MAPPED_RAM_ALIGNMENT) * MAPPED_RAM_ALIGNMENT
  return { bitmapOffset, bitmapSize, pagesOffset, end: pagesOffset + usedLength }
}

/** Writes a header; returns the offset after it. */
export function encodeMappedRamHeader(view: DataView, at: number, header: MappedRamHeader): number {
  view.setUint32(at, MAPPED_RAM_VERSION)
  writeU64(view, at + PAGE_SIZE_AT, header.pageSize)
  writeU64(view, at + BITMAP_OFFSET_AT, header.bitmapOffset)
  writeU64(view, at + PAGES_OFFSET_AT, header.pagesOffset)
  return at + MAPPED_RAM_HEADER_SIZE
}

/**
 * Reads a header; {@link placeMappedRam} checks it against its block.
 * Throws ERR_MULTIFD_PROTOCOL for another version or a page size that is no power of two, ERR_MULTIFD_TRUNCATED.
 */
export function decodeMappedRamHeader(view: DataView, at: number): MappedRamHeader {
  requireBytes(view, at, MAPPED_RAM_HEADER_SIZE, 'a mapped-ram header')
  const version = view.getUint32(at)
  if (version !== MAPPED_RAM_VERSION) {
    throw protocolError(`mapped-ram header has version ${version}, expected ${MAPPED_RAM_VERSION}`)
  }
  const pageSize = readU64(view, at + PAGE_SIZE_AT)
  if (!isPowerOfTwo(pageSize)) throw protocolError(`mapped-ram page size is ${pageSize}, expected a power of two`)
  return {
    pageSize,
    bitmapOffset: readU64(view, at + BITMAP_OFFSET_AT),
    pagesOffset: readU64(view, at + PAGES_OFFSET_AT),
  }
}

/**
 * Checks a header against its block, and gives the place of the block's parts.
 * @param position absolute place in the file of the header itself
 * @param pageSize the page size of the stream, bytes
 * Throws ERR_MULTIFD_PROTOCOL for another page size, a bitmap that is not right after the header, and pages that are
 * not aligned, lie on the bitmap, or end beyond 2^53 - 1.
 */
export function placeMappedRam(
  header: MappedRamHeader,
  position: number,
  usedLength: number,
  pageSize: number,
): MappedRamBlock {
  if (header.pageSize !== pageSize) {
    throw protocolError(`mapped-ram page size is ${header.pageSize}, expected ${pageSize}`)
  }
  const bitmapOffset = position + MAPPED_RAM_HEADER_SIZE
  if (header.bitmapOffset !== bitmapOffset) {
    throw protocolError(`bitmap_offset is ${hex(header.bitmapOffset)}, expected ${hex(bitmapOffset)}`)
  }
  const { pagesOffset } = header
  if (pagesOffset % pageSize !== 0) {
    throw protocolError(`pages_offset is ${hex(pagesOffset)}, expected a multiple of ${pageSize}`)
  }
  const bitmapSize = mappedRamBitmapSize(usedLength, pageSize)
  if (pagesOffset < bitmapOffset + bitmapSize) {
    throw protocolError(`pages_offset is ${hex(pagesOffset)}, expected at least ${hex(bitmapOffset + bitmapSize)}`)
  }
  const end = pagesOffset + usedLength
  if (end > Number.MAX_SAFE_INTEGER) throw protocolError(`pages end at ${end}, expected at most 2^53 - 1`)
  return { pageSize, bitmapOffset, bitmapSize, pagesOffset, end }
}

/** Whether page `page` has its bit set. */
export function hasPage(bitmap: Uint8Array, page: number): boolean {
  // A page number can exceed 2^31, a byte's index can not: no 32-bit shift.
  return ((bitmap[Math.floor(page / 8)] ?? 0) & (1 << (page % 8))) !== 0
}

/** Sets or clears the bit of page `page`. */
export function markPage(bitmap: Uint8Array, page: number, present: boolean): void {
  const at = Math.floor(page / 8)
  const bit = 1 << (page % 8)
  const byte = bitmap[at] ?? 0
  bitmap[at] = present ? byte | bit : byte & ~bit
}
