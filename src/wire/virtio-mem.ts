// The one device section that comes before RAM: virtio-mem's immutable properties, FULL `<path>/virtio-mem-device-early`.
//
//   offset  size  field
//   0       8     addr, guest address
//   8       8     region_size, bytes
//   16      8     block_size, bytes
//   24      4     node
//   28      8     size, plugged bytes
//   36      8 w   plugged bitmap, w = ceil(region_size / block_size / 64) words: block k is bit k % 64 of word k / 64
//
// Version 1. It is sent after RAM START (QEMU 10.0) or before it (11.1); a reader has to know this layout, for nothing
// tells its length. Source of the format: QEMU hw/virtio/virtio-mem.c.

import { MultifdError } from '../errors.js'
import { isPowerOfTwo, protocolError, U64_SIZE, writeU64 } from './bytes.js'
import type { ByteReader } from './reader.js'
import {
  decodeFooter,
  encodeFooter,
  encodeSectionHeader,
  FOOTER_SIZE,
  SECTION,
  type SectionIntroduction,
  sectionHeaderSize,
} from './stream.js'

/** How the section's idstr ends. */
export const VIRTIO_MEM_EARLY_SUFFIX = '/virtio-mem-device-early'
export const VIRTIO_MEM_EARLY_VERSION = 1

const FIXED_SIZE = 36
const BLOCKS_PER_WORD = 64
const MAX_BITMAP_WORDS = 1024 * 1024

/** The section's payload. Sizes in bytes. */
export interface VirtioMemEarly {
  addr: number
  regionSize: number
  blockSize: number
  node: number
  /** Plugged. */
  size: number
  /** One bit a block, as on the wire: big-endian 64-bit words. {@link isPlugged} reads it. */
  bitmap: Uint8Array
}

/** Bytes of the section's payload. */
export function virtioMemEarlySize(regionSize: number, blockSize: number): number {
  return FIXED_SIZE + bitmapWords(regionSize, blockSize) * U64_SIZE
}

function bitmapWords(regionSize: number, blockSize: number): number {
  return Math.ceil(regionSize / blockSize / BLOCKS_PER_WORD)
}

/** Writes the payload; returns the offset after it. */
export function encodeVirtioMemEarly(view: DataView, at: number, state: VirtioMemEarly): number {
  writeU64(view, at, state.addr)
  writeU64(view, at + 8, state.regionSize)
  writeU64(view, at + 16, state.blockSize)
  view.setUint32(at + 24, state.node)
  writeU64(view, at + 28, state.size)
  let next = at + FIXED_SIZE
  for (const byte of state.bitmap) view.setUint8(next++, byte)
  return next
}

/**
 * Reads the payload.
 * Throws ERR_MULTIFD_PROTOCOL for a block size that is no power of two, a region that is not whole blocks, more plugged
 * than there is, or more than 64 Mi blocks; ERR_MULTIFD_TRUNCATED.
 */
export function decodeVirtioMemEarly(reader: ByteReader): VirtioMemEarly {
  const addr = reader.u64()
  const regionSize = reader.u64()
  const blockSize = reader.u64()
  if (!isPowerOfTwo(blockSize)) throw protocolError(`virtio-mem block_size is ${blockSize}, expected a power of two`)
  if (regionSize === 0 || regionSize % blockSize !== 0) {
    throw protocolError(`virtio-mem region_size is ${regionSize}, expected a multiple of ${blockSize}`)
  }
  const words = bitmapWords(regionSize, blockSize)
  if (words > MAX_BITMAP_WORDS) {
    throw protocolError(`virtio-mem bitmap has ${words} words, expected at most ${MAX_BITMAP_WORDS}`)
  }
  const node = reader.u32()
  const size = reader.u64()
  if (size > regionSize) throw protocolError(`virtio-mem size is ${size}, expected at most ${regionSize}`)
  return { addr, regionSize, blockSize, node, size, bitmap: reader.bytes(words * U64_SIZE) }
}

/** Whether block `block` is plugged. */
export function isPlugged(bitmap: Uint8Array, block: number): boolean {
  const word = Math.floor(block / BLOCKS_PER_WORD)
  const bit = block % BLOCKS_PER_WORD
  const byte = bitmap[word * U64_SIZE + (U64_SIZE - 1 - (bit >> 3))] ?? 0
  return (byte & (1 << (bit & 7))) !== 0
}

/**
 * Reads the rest of an early section whose head was read, and gives the whole section as it was on the wire.
 *
 * Throws ERR_MULTIFD_UNSUPPORTED for a section of another kind, whose end nothing tells; ERR_MULTIFD_PROTOCOL,
 * ERR_MULTIFD_TRUNCATED.
 */
export function readEarlySection(reader: ByteReader, header: SectionIntroduction): Uint8Array {
  const { idstr, versionId, sectionId } = header
  if (!idstr.endsWith(VIRTIO_MEM_EARLY_SUFFIX) || versionId !== VIRTIO_MEM_EARLY_VERSION) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `section '${idstr}' version ${versionId} before RAM is not known`)
  }
  const state = decodeVirtioMemEarly(reader)
  decodeFooter(reader, sectionId)
  const size = virtioMemEarlySize(state.regionSize, state.blockSize)
  const bytes = new Uint8Array(sectionHeaderSize(idstr) + size + FOOTER_SIZE)
  const view = new DataView(bytes.buffer)
  encodeFooter(view, encodeVirtioMemEarly(view, encodeSectionHeader(view, 0, SECTION.full, header), state), sectionId)
  return bytes
}
