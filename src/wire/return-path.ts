// Messages on the return path, from destination to source on the main connection.
//
//   offset  size  field
//   0       2     type (RETURN_MESSAGE)
//   2       2     payload length, bytes
//   4       L     payload
//
//   SHUT            4       be32 error, 0 is success; the last message
//   PONG            4       be32, the PING's value
//   REQ_PAGES_ID    13+L    be64 start, be32 length, both bytes; cstr8 block name (L)
//   REQ_PAGES       12      be64 start, be32 length; in the block of the last REQ_PAGES_ID
//   RECV_BITMAP     1+L     cstr8 block name; outside the payload: be64 size, size bytes of bitmap, be64 end mark
//   RESUME_ACK      4       be32 1
//   SWITCHOVER_ACK  0
//
// The received bitmap has one bit a page, page k in byte k >> 3 bit k & 7, in whole 64-bit words.
//
// Source of the format: QEMU migration/migration.c and migration/ram.c.

import {
  argumentError,
  bytesToText,
  hex,
  joinU64,
  protocolError,
  readU64,
  truncatedError,
  U64_SIZE,
  writeCstr8,
  writeU64,
} from './bytes.js'

/** The messages' types. */
export const RETURN_MESSAGE = {
  shut: 1,
  pong: 2,
  reqPagesId: 3,
  reqPages: 4,
  recvBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const

/** Any message's type. */
export type ReturnMessageType = (typeof RETURN_MESSAGE)[keyof typeof RETURN_MESSAGE]

export const RETURN_HEADER_SIZE = 4
/** Longest payload that a source takes, bytes. */
export const MAX_RETURN_PAYLOAD = 512

const REQUEST_SIZE = 12
const REQUEST_ID_MIN = REQUEST_SIZE + 1
const RESUME_ACK_VALUE = 1
const END_MARK_HIGH = 0x01234567
const END_MARK_LOW = 0x89abcdef
const PAGES_PER_WORD = 64

/** The fixed payload lengths, bytes, and for the two that end in a name the least. */
const RULES: Readonly<Record<ReturnMessageType, { name: string; length: number; named?: true }>> = {
  [RETURN_MESSAGE.shut]: { name: 'SHUT', length: 4 },
  [RETURN_MESSAGE.pong]: { name: 'PONG', length: 4 },
  [RETURN_MESSAGE.reqPagesId]: { name: 'REQ_PAGES_ID', length: REQUEST_ID_MIN, named: true },
  [RETURN_MESSAGE.reqPages]: { name: 'REQ_PAGES', length: REQUEST_SIZE },
  [RETURN_MESSAGE.recvBitmap]: { name: 'RECV_BITMAP', length: 1, named: true },
  [RETURN_MESSAGE.resumeAck]: { name: 'RESUME_ACK', length: 4 },
  [RETURN_MESSAGE.switchoverAck]: { name: 'SWITCHOVER_ACK', length: 0 },
}

/** A message as decoded; `length` is its payload's, so that it took 4 + `length` bytes. */
export type ReturnMessage = { length: number } & (
  | { type: typeof RETURN_MESSAGE.shut; error: number }
  | { type: typeof RETURN_MESSAGE.pong; value: number }
  | { type: typeof RETURN_MESSAGE.reqPagesId; start: number; lengthBytes: number; idstr: string }
  | { type: typeof RETURN_MESSAGE.reqPages; start: number; lengthBytes: number }
  | { type: typeof RETURN_MESSAGE.recvBitmap; idstr: string }
  | { type: typeof RETURN_MESSAGE.resumeAck }
  | { type: typeof RETURN_MESSAGE.switchoverAck }
)

function encodeHead(view: DataView, at: number, type: ReturnMessageType, length: number): number {
  view.setUint16(at, type)
  view.setUint16(at + 2, length)
  return at + RETURN_HEADER_SIZE
}

function encodeWord(view: DataView, at: number, type: ReturnMessageType, value: number): number {
  const next = encodeHead(view, at, type, 4)
  view.setUint32(next, value)
  return next + 4
}

/** Writes SHUT: 0 for success. Returns the offset after it, as all encoders here do. */
export function encodeShut(view: DataView, at: number, error: number): number {
  return encodeWord(view, at, RETURN_MESSAGE.shut, error)
}

/** Writes PONG. */
export function encodePong(view: DataView, at: number, value: number): number {
  return encodeWord(view, at, RETURN_MESSAGE.pong, value)
}

/**
 * Writes REQ_PAGES_ID, or REQ_PAGES where no name is given: the block is then that of the last request with a name.
 * @param start byte offset in the block
 * @param lengthBytes a multiple of the block's page size
 */
export function encodeReqPages(view: DataView, at: number, start: number, lengthBytes: number, idstr?: string): number {
  if (idstr !== undefined && idstr.length === 0) throw argumentError('block name of a page request is empty')
  const next =
    idstr === undefined
      ? encodeHead(view, at, RETURN_MESSAGE.reqPages, REQUEST_SIZE)
      : encodeHead(view, at, RETURN_MESSAGE.reqPagesId, REQUEST_ID_MIN + idstr.length)
  writeU64(view, next, start)
  view.setUint32(next + U64_SIZE, lengthBytes)
  return idstr === undefined ? next + REQUEST_SIZE : writeCstr8(view, next + REQUEST_SIZE, idstr)
}

/** Writes RECV_BITMAP's message; the bitmap follows, by {@link encodeReceivedBitmap}. */
export function encodeRecvBitmapReply(view: DataView, at: number, idstr: string): number {
  const next = encodeHead(view, at, RETURN_MESSAGE.recvBitmap, 1 + idstr.length)
  return writeCstr8(view, next, idstr)
}

/** Writes RESUME_ACK. */
export function encodeResumeAck(view: DataView, at: number): number {
  return encodeWord(view, at, RETURN_MESSAGE.resumeAck, RESUME_ACK_VALUE)
}

/** Writes SWITCHOVER_ACK. */
export function encodeSwitchoverAck(view: DataView, at: number): number {
  return encodeHead(view, at, RETURN_MESSAGE.switchoverAck, 0)
}

/**
 * Reads one message, if it is all there.
 * @param available bytes received from `at` on
 * @returns undefined when more bytes are needed
 * Throws ERR_MULTIFD_PROTOCOL for an unknown type, a length that is not its own or above 512, and a bad field;
 * ERR_MULTIFD_TRUNCATED when a name is longer than its message.
 */
export function decodeReturnMessage(view: DataView, at: number, available: number): ReturnMessage | undefined {
  if (available < RETURN_HEADER_SIZE) return undefined
  const type = view.getUint16(at)
  const length = view.getUint16(at + 2)
  if (!isReturnMessage(type)) throw protocolError(`return-path message type is ${type}, expected 1..7`)
  const rule = RULES[type]
  if (length > MAX_RETURN_PAYLOAD || length < rule.length || (rule.named !== true && length !== rule.length)) {
    const expected = rule.named === true ? `${rule.length}..${rule.length + 255}` : rule.length
    throw protocolError(`payload of ${rule.name} has ${length} bytes, expected ${expected}`)
  }
  if (available - RETURN_HEADER_SIZE < length) return undefined
  const body = at + RETURN_HEADER_SIZE
  switch (type) {
    case RETURN_MESSAGE.shut:
      return { type, length, error: view.getUint32(body) }
    case RETURN_MESSAGE.pong:
      return { type, length, value: view.getUint32(body) }
    case RETURN_MESSAGE.reqPagesId:
      return { type, length, ...decodeRequest(view, body), idstr: decodeName(view, body, REQUEST_SIZE, length) }
    case RETURN_MESSAGE.reqPages:
      return { type, length, ...decodeRequest(view, body) }
    case RETURN_MESSAGE.recvBitmap:
      return { type, length, idstr: decodeName(view, body, 0, length) }
    case RETURN_MESSAGE.resumeAck: {
      const value = view.getUint32(body)
      if (value !== RESUME_ACK_VALUE) throw protocolError(`RESUME_ACK says ${value}, expected ${RESUME_ACK_VALUE}`)
      return { type, length }
    }
    case RETURN_MESSAGE.switchoverAck:
      return { type, length }
  }
}

function isReturnMessage(type: number): type is ReturnMessageType {
  return type in RULES
}

function decodeRequest(view: DataView, at: number): { start: number; lengthBytes: number } {
  const start = readU64(view, at)
  const lengthBytes = view.getUint32(at + U64_SIZE)
  if (lengthBytes === 0) throw protocolError(`page request at ${hex(start)} has length 0`)
  return { start, lengthBytes }
}

/** The name at offset `skip` of the payload at `body`, which must end with it. */
function decodeName(view: DataView, body: number, skip: number, length: number): string {
  const nameLength = view.getUint8(body + skip)
  const expected = length - skip - 1
  if (nameLength > expected) throw truncatedError('the block name of a message', nameLength, expected)
  if (nameLength === 0 || nameLength < expected) {
    throw protocolError(`block name of a message has ${nameLength} bytes, expected ${expected}, and not 0`)
  }
  return bytesToText(view, body + skip + 1, nameLength)
}

/** Bytes of the received bitmap of a block of so many pages. */
export function receivedBitmapSize(pageCount: number): number {
  return Math.ceil(pageCount / PAGES_PER_WORD) * (PAGES_PER_WORD / 8)
}

/** Writes size, bitmap and end mark, as they follow RECV_BITMAP. `bitmap` is in whole 64-bit words. */
export function encodeReceivedBitmap(view: DataView, at: number, bitmap: Uint8Array): number {
  writeU64(view, at, bitmap.length)
  new Uint8Array(view.buffer, view.byteOffset + at + U64_SIZE, bitmap.length).set(bitmap)
  const next = at + U64_SIZE + bitmap.length
  view.setUint32(next, END_MARK_HIGH)
  view.setUint32(next + 4, END_MARK_LOW)
  return next + U64_SIZE
}

/**
 * Finds the bitmap that follows RECV_BITMAP, if it is all there.
 * @returns where the bitmap lies, and the offset after its end mark; undefined when more bytes are needed
 * Throws ERR_MULTIFD_PROTOCOL for a size that is not the block's, or another end mark.
 */
export function decodeReceivedBitmap(
  view: DataView,
  at: number,
  available: number,
  pageCount: number,
): { bitmapAt: number; bitmapSize: number; end: number } | undefined {
  if (available < U64_SIZE) return undefined
  const bitmapSize = joinU64(view.getUint32(at), view.getUint32(at + 4))
  const expected = receivedBitmapSize(pageCount)
  if (bitmapSize !== expected) throw protocolError(`received bitmap has ${bitmapSize} bytes, expected ${expected}`)
  const bitmapAt = at + U64_SIZE
  const markAt = bitmapAt + bitmapSize
  if (available < 2 * U64_SIZE + bitmapSize) return undefined
  const high = view.getUint32(markAt)
  const low = view.getUint32(markAt + 4)
  if (high !== END_MARK_HIGH || low !== END_MARK_LOW) {
    throw protocolError(`received bitmap ends in ${hex(high)} ${hex(low)}, expected the end mark`)
  }
  return { bitmapAt, bitmapSize, end: markAt + U64_SIZE }
}
