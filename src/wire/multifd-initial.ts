// The first packet of a multifd channel: who sends, and which channel this is.
//
//   offset  size  field
//   0       4     magic 0x11223344
//   4       4     version, 1
//   8       16    uuid of the source, raw bytes left to right; all zero if it has none
//   24      1     channel id, 0..channels - 1
//   25      39    reserved, zero
//
// Source of the format: QEMU migration/multifd.c, MultiFDInit_t.

import { formatUuid, hex, protocolError, requireBytes, UUID_SIZE } from './bytes.js'

export const INITIAL_PACKET_SIZE = 64
/** First word of the initial packet and of every packet that follows it. */
export const MULTIFD_MAGIC = 0x11223344
export const MULTIFD_VERSION = 1

const VERSION_AT = 4
const UUID_AT = 8
const ID_AT = 24
const RESERVED_AT = 25

/** What an initial packet says. */
export interface InitialPacket {
  /** The source's UUID as text, in lower case. */
  uuid: string
  /** The same as 16 raw bytes. */
  uuidBytes: Uint8Array
  /** 0..255; whether it fits the number of channels is the caller's to check. */
  id: number
}

/** Writes {@link INITIAL_PACKET_SIZE} bytes. `uuid` is 16 bytes, or undefined for a source that has none. */
export function encodeInitialPacket(
  view: DataView,
  at: number,
  { uuid, id }: { uuid: Uint8Array | undefined; id: number },
): void {
  view.setUint32(at, MULTIFD_MAGIC)
  view.setUint32(at + VERSION_AT, MULTIFD_VERSION)
  for (let i = 0; i < UUID_SIZE; i++) view.setUint8(at + UUID_AT + i, uuid?.[i] ?? 0)
  view.setUint8(at + ID_AT, id)
  for (let i = RESERVED_AT; i < INITIAL_PACKET_SIZE; i++) view.setUint8(at + i, 0)
}

/**
 * Reads an initial packet. Reserved bytes are not looked at, as QEMU does not.
 * Throws ERR_MULTIFD_PROTOCOL for another magic or version, ERR_MULTIFD_TRUNCATED.
 */
export function decodeInitialPacket(view: DataView, at: number): InitialPacket {
  requireBytes(view, at, INITIAL_PACKET_SIZE, "a channel's initial packet")
  checkMagicAndVersion(view, at)
  const uuidBytes = new Uint8Array(view.buffer, view.byteOffset + at + UUID_AT, UUID_SIZE).slice()
  return { uuid: formatUuid(view, at + UUID_AT), uuidBytes, id: view.getUint8(at + ID_AT) }
}

/** Checks the two words that every packet on a channel starts with. The view must hold 8 bytes from `at` on. */
export function checkMagicAndVersion(view: DataView, at: number): void {
  const magic = view.getUint32(at)
  if (magic !== MULTIFD_MAGIC) throw protocolError(`packet magic is ${hex(magic)}, expected ${hex(MULTIFD_MAGIC)}`)
  const version = view.getUint32(at + VERSION_AT)
  if (version !== MULTIFD_VERSION) throw protocolError(`packet version is ${version}, expected ${MULTIFD_VERSION}`)
}
