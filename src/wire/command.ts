// Commands on the main channel, from source to destination.
//
//   offset  size  field
//   0       1     08
//   1       2     command (COMMAND)
//   3       2     payload length, bytes
//   5       L     payload
//
//   OPEN_RETURN_PATH      0
//   PING                  4        be32, to be answered by a PONG
//   POSTCOPY_ADVISE       16 or 0  be64 OR of all page sizes of blocks, be64 target page size; 0: dirty bitmaps only
//   POSTCOPY_LISTEN       0
//   POSTCOPY_RUN          0
//   POSTCOPY_RAM_DISCARD  3+L+16k  u8 0, cstr8 block name (L), u8 0 (its NUL), k x (be64 start, be64 length), bytes
//   PACKAGED              4        be32 N; N bytes of stream follow outside the payload
//   ENABLE_COLO           0
//   POSTCOPY_RESUME       0
//   RECV_BITMAP           1+L      cstr8 block name
//   SWITCHOVER_START      0        QEMU 10.0 and later
//
// Source of the format: QEMU migration/savevm.c.

import {
  argumentError,
  bytesToText,
  hex,
  isPowerOfTwo,
  protocolError,
  readU64,
  truncatedError,
  U64_SIZE,
  viewOf,
  writeCstr8,
  writeU64,
} from './bytes.js'
import type { ByteReader } from './reader.js'
import { SECTION } from './stream.js'

/** The commands' numbers. */
export const COMMAND = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  enableColo: 8,
  postcopyResume: 9,
  recvBitmap: 10,
  switchoverStart: 11,
} as const

/** Any command's number. */
export type CommandNumber = (typeof COMMAND)[keyof typeof COMMAND]

export const COMMAND_HEADER_SIZE = 5
/** Most ranges in one discard command. */
export const MAX_DISCARD_RANGES = 12

const RANGE_SIZE = 2 * U64_SIZE
const MAX_DISCARD_SIZE = 3 + 255 + MAX_DISCARD_RANGES * RANGE_SIZE
const MAX_LENGTH = 0xffff

/** What is known of a command: QEMU's name, and the payload lengths it may have, bytes. */
interface CommandRule {
  readonly name: string
  /** The fixed lengths; undefined where the length varies. */
  readonly lengths?: readonly number[]
  readonly maxLength?: number
}

/** The commands by number. */
export const COMMANDS: Readonly<Record<CommandNumber, CommandRule>> = {
  [COMMAND.openReturnPath]: { name: 'OPEN_RETURN_PATH', lengths: [0] },
  [COMMAND.ping]: { name: 'PING', lengths: [4] },
  [COMMAND.postcopyAdvise]: { name: 'POSTCOPY_ADVISE', lengths: [16, 0] },
  [COMMAND.postcopyListen]: { name: 'POSTCOPY_LISTEN', lengths: [0] },
  [COMMAND.postcopyRun]: { name: 'POSTCOPY_RUN', lengths: [0] },
  [COMMAND.postcopyRamDiscard]: { name: 'POSTCOPY_RAM_DISCARD', maxLength: MAX_DISCARD_SIZE },
  [COMMAND.packaged]: { name: 'PACKAGED', lengths: [4] },
  [COMMAND.enableColo]: { name: 'ENABLE_COLO', lengths: [0] },
  [COMMAND.postcopyResume]: { name: 'POSTCOPY_RESUME', lengths: [0] },
  [COMMAND.recvBitmap]: { name: 'RECV_BITMAP', maxLength: 256 },
  [COMMAND.switchoverStart]: { name: 'SWITCHOVER_START', lengths: [0] },
}

/** A command as decoded. */
export interface Command {
  command: CommandNumber
  /** QEMU's name of it. */
  name: string
  /** A copy; read it with the decoder of that command. */
  payload: Uint8Array
}

/** A byte range of a block. */
export interface ByteRange {
  start: number
  length: number
}

/** Writes a command; returns the offset after it. Throws ERR_MULTIFD_ARGUMENT above 65535 bytes. */
export function encodeCommand(view: DataView, at: number, command: CommandNumber, payload?: Uint8Array): number {
  const length = payload?.length ?? 0
  let next = encodeCommandHead(view, at, command, length)
  if (payload !== undefined) for (const byte of payload) view.setUint8(next++, byte)
  return next
}

function encodeCommandHead(view: DataView, at: number, command: CommandNumber, length: number): number {
  if (length > MAX_LENGTH) throw argumentError(`command payload has ${length} bytes, expected at most ${MAX_LENGTH}`)
  view.setUint8(at, SECTION.command)
  view.setUint16(at + 1, command)
  view.setUint16(at + 3, length)
  return at + COMMAND_HEADER_SIZE
}

/** Writes PING; returns the offset after it. */
export function encodePing(view: DataView, at: number, value: number): number {
  const next = encodeCommandHead(view, at, COMMAND.ping, 4)
  view.setUint32(next, value)
  return next + 4
}

/** Writes POSTCOPY_ADVISE; `pageSizes` is the OR of the blocks' page sizes in bytes. Returns the offset after it. */
export function encodePostcopyAdvise(view: DataView, at: number, pageSizes: number, targetPageSize: number): number {
  const next = encodeCommandHead(view, at, COMMAND.postcopyAdvise, 2 * U64_SIZE)
  writeU64(view, next, pageSizes)
  writeU64(view, next + U64_SIZE, targetPageSize)
  return next + 2 * U64_SIZE
}

/**
 * Writes POSTCOPY_RAM_DISCARD; returns the offset after it.
 * Throws ERR_MULTIFD_ARGUMENT for more than {@link MAX_DISCARD_RANGES} ranges.
 */
export function encodePostcopyRamDiscard(
  view: DataView,
  at: number,
  idstr: string,
  ranges: readonly ByteRange[],
): number {
  if (ranges.length > MAX_DISCARD_RANGES) {
    throw argumentError(`discard has ${ranges.length} ranges, expected at most ${MAX_DISCARD_RANGES}`)
  }
  const length = 3 + idstr.length + ranges.length * RANGE_SIZE
  let next = encodeCommandHead(view, at, COMMAND.postcopyRamDiscard, length)
  view.setUint8(next, 0)
  next = writeCstr8(view, next + 1, idstr)
  view.setUint8(next++, 0)
  for (const range of ranges) {
    writeU64(view, next, range.start)
    writeU64(view, next + U64_SIZE, range.length)
    next += RANGE_SIZE
  }
  return next
}

/** Writes PACKAGED, after which `length` bytes of stream follow; returns the offset after the command. */
export function encodePackaged(view: DataView, at: number, length: number): number {
  const next = encodeCommandHead(view, at, COMMAND.packaged, 4)
  view.setUint32(next, length)
  return next + 4
}

/** Writes RECV_BITMAP; returns the offset after it. */
export function encodeRecvBitmap(view: DataView, at: number, idstr: string): number {
  const next = encodeCommandHead(view, at, COMMAND.recvBitmap, 1 + idstr.length)
  return writeCstr8(view, next, idstr)
}

/**
 * Reads a command from its type byte to the end of its payload; what PACKAGED announces is left to the caller.
 * Throws ERR_MULTIFD_PROTOCOL for an unknown command or a length that is not its own, ERR_MULTIFD_TRUNCATED.
 */
export function decodeCommand(reader: ByteReader): Command {
  const type = reader.u8()
  if (type !== SECTION.command) throw protocolError(`command starts with byte ${hex(type)}, expected 0x8`)
  const number = reader.u16()
  const length = reader.u16()
  if (!isCommand(number)) throw protocolError(`command is ${number}, expected 1..${COMMAND.switchoverStart}`)
  const { name, lengths, maxLength = 0 } = COMMANDS[number]
  if (lengths !== undefined ? !lengths.includes(length) : length > maxLength) {
    const expected = lengths?.join(' or ') ?? `at most ${maxLength}`
    throw protocolError(`payload of command ${name} has ${length} bytes, expected ${expected}`)
  }
  return { command: number, name, payload: reader.bytes(length) }
}

function isCommand(number: number): number is CommandNumber {
  return number in COMMANDS
}

/** The value of a PING. */
export function decodePing(payload: Uint8Array): number {
  return readWord(payload, COMMANDS[COMMAND.ping].name)
}

/** How many bytes of stream follow a PACKAGED; the caller sets the limit. */
export function decodePackaged(payload: Uint8Array): number {
  return readWord(payload, COMMANDS[COMMAND.packaged].name)
}

function readWord(payload: Uint8Array, name: string): number {
  if (payload.length < 4) throw truncatedError(name, 4, payload.length)
  return viewOf(payload).getUint32(0)
}

/**
 * The page sizes of a POSTCOPY_ADVISE, bytes; undefined when it is for dirty bitmaps only.
 * Throws ERR_MULTIFD_PROTOCOL unless the target's page size is a power of two.
 */
export function decodePostcopyAdvise(payload: Uint8Array): { pageSizes: number; targetPageSize: number } | undefined {
  if (payload.length === 0) return undefined
  const view = viewOf(payload)
  const pageSizes = readU64(view, 0)
  const targetPageSize = readU64(view, U64_SIZE)
  if (!isPowerOfTwo(targetPageSize)) {
    throw protocolError(`target page size of POSTCOPY_ADVISE is ${targetPageSize}, expected a power of two`)
  }
  return { pageSizes, targetPageSize }
}

/**
 * The ranges of a POSTCOPY_RAM_DISCARD; whether they lie in the block is the caller's.
 * Throws ERR_MULTIFD_PROTOCOL for another version, a name that is empty or without its NUL, and for ranges that are
 * empty or end beyond 2^53 - 1; ERR_MULTIFD_TRUNCATED when the payload ends inside something.
 */
export function decodePostcopyRamDiscard(payload: Uint8Array): { idstr: string; ranges: ByteRange[] } {
  const view = viewOf(payload)
  if (payload.length < 2) throw truncatedError('POSTCOPY_RAM_DISCARD', 2, payload.length)
  const version = view.getUint8(0)
  if (version !== 0) throw protocolError(`version of POSTCOPY_RAM_DISCARD is ${version}, expected 0`)
  const nameLength = view.getUint8(1)
  if (nameLength === 0) throw protocolError('block name of POSTCOPY_RAM_DISCARD is empty')
  let at = 2 + nameLength
  if (payload.length <= at) throw truncatedError('POSTCOPY_RAM_DISCARD', at + 1, payload.length)
  const idstr = bytesToText(view, 2, nameLength)
  const nul = view.getUint8(at++)
  if (nul !== 0) throw protocolError(`block name of POSTCOPY_RAM_DISCARD ends in ${hex(nul)}, expected a NUL`)
  const ranges: ByteRange[] = []
  for (; at < payload.length; at += RANGE_SIZE) {
    if (payload.length - at < RANGE_SIZE) throw truncatedError('a discard range', RANGE_SIZE, payload.length - at)
    const range = { start: readU64(view, at), length: readU64(view, at + U64_SIZE) }
    if (range.length === 0 || range.start + range.length > Number.MAX_SAFE_INTEGER) {
      throw protocolError(`discard range of '${idstr}' is ${hex(range.start)} + ${hex(range.length)}`)
    }
    ranges.push(range)
  }
  return { idstr, ranges }
}

/** The block's name of a RECV_BITMAP. Throws ERR_MULTIFD_PROTOCOL when empty or shorter than the payload. */
export function decodeRecvBitmap(payload: Uint8Array): string {
  const view = viewOf(payload)
  if (payload.length === 0) throw truncatedError('RECV_BITMAP', 1, 0)
  const length = view.getUint8(0)
  if (payload.length < 1 + length) throw truncatedError('RECV_BITMAP', 1 + length, payload.length)
  if (length === 0 || payload.length !== 1 + length) {
    throw protocolError(`block name of RECV_BITMAP has ${length} bytes, expected ${payload.length - 1}`)
  }
  return bytesToText(view, 1, length)
}
