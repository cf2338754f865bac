// The header of a RAM packet on a multifd channel: which pages it carries or clears, and how long its payload is.
//
//   offset  size  field
//   0       4     magic 0x11223344
//   4       4     version, 1
//   8       4     flags (MULTIFD_FLAG)
//   12      4     pages_alloc, pages: n, or 0 in a SYNC packet of QEMU 9.2 and later
//   16      4     normal_pages, pages that have data in the payload
//   20      4     next_packet_size, bytes of payload; stale and without meaning when normal_pages is 0
//   24      8     packet_num; statistics only, may repeat
//   32      4     zero_pages, pages to clear (QEMU 9.0; before, reserved and 0)
//   36      28    reserved, zero
//   64      256   ramblock, the block's name, NUL-terminated and NUL-padded
//   320     8 n   offsets in the block, bytes, page aligned: first normal_pages, then zero_pages
//
// n = 524288 / page size, whatever is used: 128 slots for 4 KiB pages. Both layouts are these bytes. Before QEMU 9.2,
// name and offsets beyond use hold leftovers of earlier packets. Source: QEMU migration/multifd.h, MultiFDPacket_t.

import { MultifdError } from '../errors.js'
import {
  argumentError,
  bytesToText,
  hex,
  isPowerOfTwo,
  protocolError,
  readU64,
  requireBytes,
  writeU64,
} from './bytes.js'
import { checkMagicAndVersion, MULTIFD_MAGIC, MULTIFD_VERSION } from './multifd-initial.js'

/** Uncompressed bytes of a packet with all its pages. */
export const PACKET_DATA_SIZE = 524288
/** Largest payload of a packet, bytes: what receivers set aside for compressed input. */
export const MAX_PAYLOAD_SIZE = 1024 * 1024

/** Bits of `flags`. */
export const MULTIFD_FLAG = {
  sync: 1,
  zlib: 2,
  zstd: 4,
  qpl: 8,
  uadk: 0x10,
  qatzip: 0x20,
  deviceState: 0x40,
} as const
/** The bits of `flags` that name the compression method; none set is no compression. */
export const METHOD_MASK = 0x3e

const KNOWN_FLAGS = MULTIFD_FLAG.sync | METHOD_MASK | MULTIFD_FLAG.deviceState

const VERSION_AT = 4
const FLAGS_AT = 8
const PAGES_ALLOC_AT = 12
const NORMAL_PAGES_AT = 16
const NEXT_PACKET_SIZE_AT = 20
const PACKET_NUM_AT = 24
const ZERO_PAGES_AT = 32
const RESERVED_AT = 36
/** Where the block's name starts in the header, and how long the field is, bytes. */
export const IDSTR_OFFSET = 64
export const IDSTR_SIZE = 256
/** Where the offsets start in the header. */
export const OFFSETS_OFFSET = IDSTR_OFFSET + IDSTR_SIZE
/** Bytes of a header that tell whether it is a RAM packet: magic, version, flags. */
export const PACKET_PREFIX_SIZE = 12

/** Pages a packet can carry for this page size in bytes, the n of the layout. Throws ERR_MULTIFD_ARGUMENT. */
export function pagesPerPacket(pageSize: number): number {
  if (!isPowerOfTwo(pageSize) || pageSize < 1024 || pageSize > PACKET_DATA_SIZE) {
    throw argumentError(`page size is ${pageSize}, expected a power of two from 1024 to ${PACKET_DATA_SIZE}`)
  }
  return PACKET_DATA_SIZE / pageSize
}

/** Bytes of a header whose packet can carry so many pages. */
export function packetHeaderSize(pagesPerPacket: number): number {
  return OFFSETS_OFFSET + 8 * pagesPerPacket
}

/** A header as numbers, without the offsets. One object serves many packets: encode and decode allocate nothing. */
export class PacketHeader {
  /** {@link MULTIFD_FLAG} bits. */
  flags = 0
  pagesAlloc: number
  /** Pages with data; their offsets come first. */
  normalPages = 0
  /** Bytes of payload; decoded as 0 when there are no normal pages, for then nothing follows. */
  nextPacketSize = 0
  packetNum = 0
  /** Pages to clear; their offsets come after those of the normal pages. */
  zeroPages = 0

  constructor(pagesPerPacket: number) {
    this.pagesAlloc = pagesPerPacket
  }
}

/** Writes the block's name, from {@link encodeIdstr}, into the header at `at`. */
export function encodeBlockName(view: DataView, at: number, idstr: Uint8Array): void {
  for (let i = 0; i < IDSTR_SIZE; i++) view.setUint8(at + IDSTR_OFFSET + i, idstr[i]!)
}

/**
 * Writes a SYNC packet: no pages, no payload, no block.
 *
 * `pages_alloc` is n, as in every QEMU up to 9.1, and not 0 as from 9.2 on. Receivers of all versions take both (they
 * check that it is at most n and at least normal_pages), and n is the value that the oldest were tested with.
 */
export function encodeSyncPacket(view: DataView, at: number, pagesPerPacket: number, packetNum: number): void {
  encodeFixedPart(view, at, MULTIFD_FLAG.sync, pagesPerPacket, packetNum)
  const end = at + packetHeaderSize(pagesPerPacket)
  for (let slot = at + IDSTR_OFFSET; slot < end; slot += 8) view.setFloat64(slot, 0)
}

/** Changes the number of a packet whose header is at `at`. */
export function encodePacketNum(view: DataView, at: number, packetNum: number): void {
  writeU64(view, at + PACKET_NUM_AT, packetNum)
}

/** The first 64 bytes, with the counts of pages and bytes left zero. */
function encodeFixedPart(view: DataView, at: number, flags: number, pagesAlloc: number, packetNum: number): void {
  view.setUint32(at, MULTIFD_MAGIC)
  view.setUint32(at + VERSION_AT, MULTIFD_VERSION)
  view.setUint32(at + FLAGS_AT, flags)
  view.setUint32(at + PAGES_ALLOC_AT, pagesAlloc)
  view.setUint32(at + NORMAL_PAGES_AT, 0)
  view.setUint32(at + NEXT_PACKET_SIZE_AT, 0)
  writeU64(view, at + PACKET_NUM_AT, packetNum)
  view.setUint32(at + ZERO_PAGES_AT, 0)
  for (let i = RESERVED_AT; i < IDSTR_OFFSET; i += 4) view.setUint32(at + i, 0)
}

/**
 * Reads and checks a header's fields into `into`; the whole header must be there.
 *
 * The method bits are checked only when there are pages, since a packet without pages does not carry them. The offsets,
 * whether the block exists, and whether the method is the one agreed on is the caller's.
 *
 * Throws ERR_MULTIFD_PROTOCOL for a bad field, ERR_MULTIFD_UNSUPPORTED for a device-state packet or a hardware
 * compression method, ERR_MULTIFD_TRUNCATED.
 */
export function decodePacketFields(view: DataView, at: number, pagesPerPacket: number, into: PacketHeader): void {
  // A device-state packet has a shorter header: flags are looked at before the whole length is asked for.
  requireBytes(view, at, PACKET_PREFIX_SIZE, "a packet's header")
  checkMagicAndVersion(view, at)
  const flags = view.getUint32(at + FLAGS_AT)
  if ((flags & ~KNOWN_FLAGS) !== 0) throw protocolError(`packet flags are ${hex(flags)}, known are ${hex(KNOWN_FLAGS)}`)
  if ((flags & MULTIFD_FLAG.deviceState) !== 0) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `packet flags are ${hex(flags)}: device state on a channel`)
  }
  requireBytes(view, at, packetHeaderSize(pagesPerPacket), "a packet's header")

  const pagesAlloc = view.getUint32(at + PAGES_ALLOC_AT)
  const normalPages = view.getUint32(at + NORMAL_PAGES_AT)
  const zeroPages = view.getUint32(at + ZERO_PAGES_AT)
  if (pagesAlloc > pagesPerPacket)
    throw protocolError(`pages_alloc is ${pagesAlloc}, expected at most ${pagesPerPacket}`)
  if (normalPages > pagesAlloc) {
    throw protocolError(`normal_pages is ${normalPages}, expected at most pages_alloc, ${pagesAlloc}`)
  }
  if (zeroPages > pagesAlloc - normalPages) {
    throw protocolError(`zero_pages is ${zeroPages}, expected at most ${pagesAlloc - normalPages}`)
  }
  const pages = normalPages + zeroPages
  const pageSize = PACKET_DATA_SIZE / pagesPerPacket
  if (pages > 0) checkMethod(flags & METHOD_MASK)
  const payload = normalPages > 0 ? view.getUint32(at + NEXT_PACKET_SIZE_AT) : 0
  if (normalPages > 0) checkPayloadSize(payload, flags & METHOD_MASK, normalPages * pageSize)

  into.flags = flags
  into.pagesAlloc = pagesAlloc
  into.normalPages = normalPages
  into.nextPacketSize = payload
  into.packetNum = readU64(view, at + PACKET_NUM_AT)
  into.zeroPages = zeroPages
}

/** The error of an offset that is no multiple of the page size. */
export function badOffset(view: DataView, at: number, index: number, pageSize: number): MultifdError {
  const slot = at + OFFSETS_OFFSET + 8 * index
  return protocolError(`offset ${index} is ${hexU64(view, slot)}, expected a multiple of ${pageSize}`)
}

/** Offset number `index` of the header at `at`. Throws ERR_MULTIFD_PROTOCOL above 2^53 - 1. */
export function readOffset(view: DataView, at: number, index: number): number {
  return readU64(view, at + OFFSETS_OFFSET + 8 * index)
}

/** A 64-bit word for a message. */
export function hexU64(view: DataView, at: number): string {
  const high = view.getUint32(at).toString(16)
  return `0x${high === '0' ? '' : high}${view
    .getUint32(at + 4)
    .toString(16)
    .padStart(high === '0' ? 1 : 8, '0')}`
}

function checkMethod(method: number): void {
  switch (method) {
    case 0:
    case MULTIFD_FLAG.zlib:
    case MULTIFD_FLAG.zstd:
      return
    case MULTIFD_FLAG.qpl:
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'packet is compressed with qpl, which needs Intel hardware')
    case MULTIFD_FLAG.uadk:
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'packet is compressed with uadk, which needs Kunpeng hardware')
    case MULTIFD_FLAG.qatzip:
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'packet is compressed with qatzip, which needs Intel hardware')
    default:
      throw protocolError(`packet names the compression methods ${hex(method)}, expected one`)
  }
}

function checkPayloadSize(size: number, method: number, dataSize: number): void {
  if (method === 0) {
    if (size !== dataSize) throw protocolError(`next_packet_size is ${size}, expected ${dataSize}`)
  } else if (size === 0 || size > MAX_PAYLOAD_SIZE) {
    throw protocolError(`next_packet_size is ${size}, expected 1..${MAX_PAYLOAD_SIZE}`)
  }
}

/**
 * A block's name as the 256-byte field.
 * Throws ERR_MULTIFD_ARGUMENT when it is empty, above 255 bytes, not latin1, or has a NUL in it.
 */
export function encodeIdstr(name: string): Uint8Array {
  if (name.length === 0 || name.length >= IDSTR_SIZE) {
    throw argumentError(`block name has ${name.length} bytes, expected 1..${IDSTR_SIZE - 1}`)
  }
  const idstr = new Uint8Array(IDSTR_SIZE)
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (code === 0 || code > 0xff) throw argumentError(`block name '${name}' has character ${hex(code)} at ${i}`)
    idstr[i] = code
  }
  return idstr
}

/**
 * The block's name from the 256-byte field that starts at `at`: the header's start + {@link IDSTR_OFFSET}. Empty in a
 * packet without pages. Throws ERR_MULTIFD_PROTOCOL when it has no end, ERR_MULTIFD_TRUNCATED.
 */
export function decodeIdstr(view: DataView, at: number): string {
  requireBytes(view, at, IDSTR_SIZE, "a block's name")
  for (let length = 0; length < IDSTR_SIZE; length++) {
    if (view.getUint8(at + length) === 0) return bytesToText(view, at, length)
  }
  throw protocolError(`block name has no NUL in ${IDSTR_SIZE} bytes`)
}

/** Whether the field at `at` names the same block as `idstr` from {@link encodeIdstr}; without making a string. */
export function sameIdstr(view: DataView, at: number, idstr: Uint8Array): boolean {
  for (let i = 0; i < IDSTR_SIZE; i++) {
    const byte = view.getUint8(at + i)
    if (byte !== idstr[i]) return false
    if (byte === 0) return true
  }
  return false
}
