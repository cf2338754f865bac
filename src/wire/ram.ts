// The payload of RAM sections (idstr "ram", version 4): records, each led by a 64-bit word; and the set-up list.
//
// word              be64: page-aligned offset in the block, bytes | flags in the low bits (below the page size)
//   ZERO            [block id], u8 fill byte, 0
//   MEM_SIZE        offset = sum of used lengths; the set-up list follows; only in START
//   PAGE            [block id], a page
//   EOS             ends the section's payload
//   XBZRLE          [block id], u8 1, be16 length, that many bytes
//   FLUSH           a barrier of multifd
// block id          cstr8 name; absent with CONTINUE: the block of the page record before
//
// set-up list       for each block, until the lengths add up to the total:
//   cstr8           name
//   be64            used length, bytes
//   be64            page size of the backing, bytes; in postcopy, for blocks of huge pages only
//   be64            guest address; with x-ignore-shared
//   28 + area       with mapped-ram: see mapped-ram.ts
//
// Source of the format: QEMU migration/ram.c.

import { MultifdError } from '../errors.js'
import { argumentError, hex, isPowerOfTwo, protocolError, U64_SIZE, viewOf, writeCstr8, writeU64 } from './bytes.js'
import {
  decodeMappedRamHeader,
  MAPPED_RAM_HEADER_SIZE,
  type MappedRamBlock,
  type MappedRamHeader,
  placeMappedRam,
} from './mapped-ram.js'
import { type ByteReader, skipBytes } from './reader.js'

/** The section's idstr. */
export const RAM_IDSTR = 'ram'
export const RAM_SECTION_VERSION = 4
export const RAM_WORD_SIZE = U64_SIZE

/** Flags in the low bits of a record's word. */
export const RAM_FLAG = {
  full: 0x001,
  zero: 0x002,
  memSize: 0x004,
  page: 0x008,
  eos: 0x010,
  continue: 0x020,
  xbzrle: 0x040,
  hook: 0x080,
  compressPage: 0x100,
  flush: 0x200,
} as const

/** The records that {@link checkRamFlags} lets through: one flag each, CONTINUE taken off. */
export type RamRecordKind =
  | typeof RAM_FLAG.zero
  | typeof RAM_FLAG.memSize
  | typeof RAM_FLAG.page
  | typeof RAM_FLAG.eos
  | typeof RAM_FLAG.xbzrle
  | typeof RAM_FLAG.flush

const MAX_BLOCKS = 1024
/** Most pages that a set-up list may announce, 16 TiB of 4 KiB: a bitmap of them takes half a gigabyte. */
export const MAX_RAM_PAGES = 2 ** 32

/** A record's word taken apart; one object serves many records. */
export interface RamWord {
  /** Bytes in the block; with MEM_SIZE the total. */
  offset: number
  /** {@link RAM_FLAG} bits. */
  flags: number
}

/** Writes a word; `offset` is a multiple of the page size. Returns the offset after it. */
export function encodeRamWord(view: DataView, at: number, offset: number, flags: number): number {
  writeU64(view, at, offset + flags)
  return at + RAM_WORD_SIZE
}

/** Writes a page record's word and block id: the name, or CONTINUE when there is none. Returns the offset after it. */
export function encodeRamRecord(
  view: DataView,
  at: number,
  offset: number,
  kind: RamRecordKind,
  idstr: string | undefined,
): number {
  if (idstr === undefined) return encodeRamWord(view, at, offset, kind | RAM_FLAG.continue)
  return writeCstr8(view, encodeRamWord(view, at, offset, kind), idstr)
}

/** Takes a word apart: what lies below the page size is flags. */
export function splitRamWord(word: number, pageSize: number, into: RamWord): void {
  // A bit operation takes a double modulo 2^32, exactly: no need to part the words first.
  into.flags = word & (pageSize - 1)
  into.offset = word - into.flags
}

/**
 * Checks a word's flags, and returns the record's kind: its one flag, without CONTINUE.
 * Throws ERR_MULTIFD_PROTOCOL unless it is exactly one known flag, with CONTINUE only on page records;
 * ERR_MULTIFD_UNSUPPORTED for HOOK (RDMA) and COMPRESS_PAGE.
 */
export function checkRamFlags(flags: number): RamRecordKind {
  const kind = flags & ~RAM_FLAG.continue
  switch (kind) {
    case RAM_FLAG.zero:
    case RAM_FLAG.page:
    case RAM_FLAG.xbzrle:
      return kind
    case RAM_FLAG.memSize:
    case RAM_FLAG.eos:
    case RAM_FLAG.flush:
      if (flags === kind) return kind
      throw protocolError(`RAM record flags are ${hex(flags)}: CONTINUE on a record without a page`)
    case RAM_FLAG.hook:
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'RAM record HOOK: migration over RDMA')
    case RAM_FLAG.compressPage:
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'RAM record COMPRESS_PAGE: capability compress, until QEMU 9.0')
    default:
      throw protocolError(`RAM record flags are ${hex(flags)}, expected exactly one of the known`)
  }
}

/** A block of the set-up list, to be encoded. */
export interface RamSetupEntry {
  idstr: string
  /** Bytes, a multiple of the page size. */
  usedLength: number
  /** Page size of the backing, bytes; written where given: in postcopy, for blocks of huge pages. */
  pageSize?: number | undefined
  /** Written where given: with x-ignore-shared, for every block. */
  guestAddress?: number | undefined
}

/** A block of the set-up list, as decoded. */
export interface RamSetupBlock {
  idstr: string
  usedLength: number
  pageSize?: number
  guestAddress?: number
  /** Absent without mapped-ram, and for an ignored block that has no pages in the file. */
  mappedRam?: MappedRamBlock
}

/** How a set-up list is laid out; nothing of it is on the wire. */
export interface RamSetupOptions {
  /** Whether entries have a guest address: capability x-ignore-shared. */
  ignoreShared: boolean
  /** Whether entries have a mapped-ram header and area: capability mapped-ram. */
  mappedRam: boolean
  /** Whether an entry has the page size of its backing: postcopy advised and huge pages. Default: none has. */
  postcopyPageSize?: boolean | ((idstr: string) => boolean)
  /** The target's page size, bytes. Default: 4096. */
  pageSize?: number
}

/** Bytes of one entry of the set-up list, without mapped-ram. */
export function ramSetupEntrySize(block: RamSetupEntry): number {
  let size = 1 + block.idstr.length + U64_SIZE
  if (block.pageSize !== undefined) size += U64_SIZE
  if (block.guestAddress !== undefined) size += U64_SIZE
  return size
}

/** Bytes that {@link encodeRamSetup} writes: the MEM_SIZE word and the list. */
export function ramSetupSize(blocks: readonly RamSetupEntry[]): number {
  return blocks.reduce((size, block) => size + ramSetupEntrySize(block), RAM_WORD_SIZE)
}

/** Writes the MEM_SIZE word and the list (not EOS); returns the offset after it. For mapped-ram, write entry by entry. */
export function encodeRamSetup(view: DataView, at: number, blocks: readonly RamSetupEntry[]): number {
  const total = blocks.reduce((sum, block) => sum + block.usedLength, 0)
  let next = encodeRamWord(view, at, total, RAM_FLAG.memSize)
  for (const block of blocks) next = encodeRamSetupEntry(view, next, block)
  return next
}

/** Writes one entry of the list; returns the offset after it, where with mapped-ram the header goes. */
export function encodeRamSetupEntry(view: DataView, at: number, block: RamSetupEntry): number {
  if (block.idstr.length === 0) throw argumentError('block name is empty')
  let next = writeCstr8(view, at, block.idstr)
  writeU64(view, next, block.usedLength)
  next += U64_SIZE
  for (const field of [block.pageSize, block.guestAddress]) {
    if (field === undefined) continue
    writeU64(view, next, field)
    next += U64_SIZE
  }
  return next
}

/**
 * Reads the set-up list, from after the MEM_SIZE word to before what follows the last block. With mapped-ram the areas
 * of the blocks are passed over, and `reader.position` must be the place in the file.
 * @param total the sum of the lengths in bytes: the MEM_SIZE word's offset
 * Throws ERR_MULTIFD_PROTOCOL for a total above {@link MAX_RAM_PAGES}, for empty, repeated or too many names, for lengths
 * that are zero, not whole pages or more than the total, and for what {@link placeMappedRam} refuses; ERR_MULTIFD_TRUNCATED.
 */
export function decodeRamSetup(reader: ByteReader, total: number, options: RamSetupOptions): RamSetupBlock[] {
  const { ignoreShared, mappedRam, postcopyPageSize = false, pageSize = 4096 } = options
  const hasPageSize = typeof postcopyPageSize === 'function' ? postcopyPageSize : () => postcopyPageSize
  if (total > MAX_RAM_PAGES * pageSize) {
    throw protocolError(`RAM has ${total} bytes, expected at most ${MAX_RAM_PAGES} pages of ${pageSize}`)
  }
  const blocks: RamSetupBlock[] = []
  const names = new Set<string>()
  for (let left = total; left > 0; ) {
    if (blocks.length === MAX_BLOCKS) throw protocolError(`RAM has more than ${MAX_BLOCKS} blocks`)
    const idstr = decodeBlockName(reader)
    if (names.has(idstr)) throw protocolError(`RAM block '${idstr}' is listed twice`)
    names.add(idstr)
    const usedLength = reader.u64()
    if (usedLength === 0 || usedLength % pageSize !== 0 || usedLength > left) {
      const expected = `a multiple of ${pageSize} from ${pageSize} to ${left}`
      throw protocolError(`used length of RAM block '${idstr}' is ${usedLength}, expected ${expected}`)
    }
    left -= usedLength
    const block: RamSetupBlock = { idstr, usedLength }
    if (hasPageSize(idstr)) block.pageSize = decodeBackingPageSize(reader, idstr)
    if (ignoreShared) block.guestAddress = reader.u64()
    if (mappedRam) {
      const place = decodeMappedRam(reader, usedLength, pageSize, ignoreShared)
      if (place !== undefined) block.mappedRam = place
    }
    blocks.push(block)
  }
  return blocks
}

/** Reads a block's name, as in a page record. Throws ERR_MULTIFD_PROTOCOL when it is empty or has a NUL in it. */
export function decodeBlockName(reader: ByteReader): string {
  const idstr = reader.cstr8()
  if (idstr.length === 0) throw protocolError('name of a RAM block is empty')
  if (idstr.includes('\0')) throw protocolError(`name of a RAM block has a NUL in it: ${JSON.stringify(idstr)}`)
  return idstr
}

function decodeBackingPageSize(reader: ByteReader, idstr: string): number {
  const size = reader.u64()
  if (!isPowerOfTwo(size)) throw protocolError(`page size of '${idstr}' is ${size}, expected a power of two`)
  return size
}

function decodeMappedRam(
  reader: ByteReader,
  usedLength: number,
  pageSize: number,
  ignoreShared: boolean,
): MappedRamBlock | undefined {
  const position = reader.position
  const header: MappedRamHeader = decodeMappedRamHeader(viewOf(reader.bytes(MAPPED_RAM_HEADER_SIZE)), 0)
  // Recent QEMU writes zeros for a block that x-ignore-shared leaves out of the file.
  if (ignoreShared && header.bitmapOffset === 0 && header.pagesOffset === 0) return undefined
  const place = placeMappedRam(header, position, usedLength, pageSize)
  skipBytes(reader, place.end - reader.position)
  return place
}
