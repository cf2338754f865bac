// Primitive fields that every format shares: checked 64-bit numbers, counted strings, UUIDs.
//
// cstr8:
//   offset  size  field
//   0       1     length L, in bytes (0..255)
//   1       L     text, latin1, no NUL at its end
//
// Integers are unsigned and big-endian everywhere. A 64-bit field is a JS number: readU64 is the one place that
// reads one, and refuses what a double can not hold exactly.

import { MultifdError } from '../errors.js'

/** Two to the 32nd: what the high word of a 64-bit field counts. */
export const TWO_32 = 0x1_0000_0000
/** The largest high word of a 64-bit field that a double holds exactly together with any low word. */
export const MAX_HIGH_WORD = 0x1f_ffff

export const U64_SIZE = 8
export const CSTR8_MAX = 255
export const UUID_SIZE = 16

const UUID_TEXT = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
/** Character codes are turned into text this many at a time: more arguments could overflow the stack. */
const TEXT_CHUNK = 8192

/** Shorthand for the error that a bad field gives. */
export function protocolError(message: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_PROTOCOL', message)
}

/** Shorthand for the error that a caller's bad value gives when it is encoded. */
export function argumentError(message: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_ARGUMENT', message)
}

/** Shorthand for the error that too little input gives. */
export function truncatedError(what: string, needed: number, available: number): MultifdError {
  return new MultifdError(
    'ERR_MULTIFD_TRUNCATED',
    `the input ends inside ${what}: ${needed} bytes needed, ${available} available`,
  )
}

/**
 * Throws ERR_MULTIFD_TRUNCATED unless `size` bytes are there from `at` on.
 * @param what the thing being read, for the message
 */
export function requireBytes(view: DataView, at: number, size: number, what: string): void {
  if (at + size > view.byteLength) throw truncatedError(what, size, Math.max(0, view.byteLength - at))
}

/** A DataView over the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Whether `n` is a power of two, also above 2^32. */
export function isPowerOfTwo(n: number): boolean {
  // Rounded, since the logarithm of 2^53 - 1 is 53 in doubles.
  return Number.isSafeInteger(n) && n > 0 && 2 ** Math.round(Math.log2(n)) === n
}

/** A number in a message: hexadecimal. */
export function hex(n: number): string {
  return `0x${n.toString(16)}`
}

/** A be64 from its two words. Throws ERR_MULTIFD_PROTOCOL above Number.MAX_SAFE_INTEGER. */
export function joinU64(high: number, low: number): number {
  if (high > MAX_HIGH_WORD) {
    throw protocolError(
      `64-bit field is 0x${high.toString(16)}${low.toString(16).padStart(8, '0')}, expected at most 2^53 - 1`,
    )
  }
  return high * TWO_32 + low
}

/**
 * Reads a be64.
 * Throws ERR_MULTIFD_PROTOCOL above Number.MAX_SAFE_INTEGER, ERR_MULTIFD_TRUNCATED at the end of the view.
 */
export function readU64(view: DataView, at: number): number {
  if (at + U64_SIZE > view.byteLength) throw truncatedError('a 64-bit field', U64_SIZE, view.byteLength - at)
  return joinU64(view.getUint32(at), view.getUint32(at + 4))
}

/** Writes a be64. Throws ERR_MULTIFD_ARGUMENT unless `n` is 0..Number.MAX_SAFE_INTEGER. */
export function writeU64(view: DataView, at: number, n: number): void {
  if (!(n >= 0 && Number.isSafeInteger(n))) throw argumentError(`64-bit field is ${n}, expected 0..2^53 - 1`)
  view.setUint32(at, n / TWO_32)
  view.setUint32(at + 4, n)
}

/** `length` bytes as latin1 text: one character a byte. Throws ERR_MULTIFD_TRUNCATED. */
export function bytesToText(view: DataView, at: number, length: number): string {
  requireBytes(view, at, length, 'a text')
  let text = ''
  for (let done = 0; done < length; done += TEXT_CHUNK) {
    const chunk = new Uint8Array(view.buffer, view.byteOffset + at + done, Math.min(TEXT_CHUNK, length - done))
    text += String.fromCharCode(...chunk)
  }
  return text
}

/**
 * Writes text as latin1, without length or NUL, and returns the offset after it.
 * Throws ERR_MULTIFD_ARGUMENT for a character above 0xff.
 */
export function writeText(view: DataView, at: number, text: string): number {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0xff) throw argumentError(`'${text}' has a character outside latin1 at ${i}`)
    view.setUint8(at + i, code)
  }
  return at + text.length
}

/** Reads a cstr8; it took 1 + the text's length bytes. Throws ERR_MULTIFD_TRUNCATED. */
export function readCstr8(view: DataView, at: number): string {
  requireBytes(view, at, 1, 'the length of a string')
  return bytesToText(view, at + 1, view.getUint8(at))
}

/** Writes a cstr8 and returns the offset after it. Throws ERR_MULTIFD_ARGUMENT above 255 bytes or outside latin1. */
export function writeCstr8(view: DataView, at: number, text: string): number {
  if (text.length > CSTR8_MAX) throw argumentError(`string has ${text.length} bytes, expected at most ${CSTR8_MAX}`)
  view.setUint8(at, text.length)
  return writeText(view, at + 1, text)
}

/** Sixteen raw bytes as a UUID's text, in lower case. Throws ERR_MULTIFD_TRUNCATED. */
export function formatUuid(view: DataView, at: number): string {
  requireBytes(view, at, UUID_SIZE, 'a uuid')
  let text = ''
  for (let i = 0; i < UUID_SIZE; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += '-'
    text += view
      .getUint8(at + i)
      .toString(16)
      .padStart(2, '0')
  }
  return text
}

/** A UUID's text as its sixteen bytes, left to right. Throws ERR_MULTIFD_ARGUMENT when it is no UUID. */
export function parseUuid(text: string): Uint8Array {
  if (!UUID_TEXT.test(text)) throw argumentError(`'${text}' is no uuid, expected 8-4-4-4-12 hexadecimal digits`)
  const digits = text.replaceAll('-', '')
  const uuid = new Uint8Array(UUID_SIZE)
  for (let i = 0; i < UUID_SIZE; i++) uuid[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16)
  return uuid
}
