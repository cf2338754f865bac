// State without a description: any plain value, as msgpack.
//
//   offset  size  field
//   0       4     length L of what follows, bytes
//   4       L     one msgpack value
//
// What a peer sends is walked before it is unpacked: a few bytes of msgpack can ask for gigabytes of empty arrays.

import { Packr, Unpackr } from 'msgpackr'
import { oneLine } from '../errors.js'
import { protocolError, viewOf } from '../wire/bytes.js'
import { deviceError } from './context.js'

export const PACKED_HEAD_SIZE = 4

const MAX_DEPTH = 128
/** msgpack's timestamp, and msgpackr's undefined: what a plain value needs beyond msgpack's own types. */
const EXTENSIONS = [0xff, 0x00]

const options = { useRecords: false, mapsAsObjects: true, variableMapSize: true, copyBuffers: true } as const
const packr = new Packr(options)
const unpackr = new Unpackr(options)

/** A value as msgpack. Throws ERR_MULTIFD_DEVICE when it is not of plain values, or larger than `maxBytes`. */
export function packValue(value: unknown, maxBytes: number): Uint8Array {
  checkPlain(value, [])
  const packed = packr.pack(value)
  if (packed.length > maxBytes)
    throw deviceError(`packed state has ${packed.length} bytes, expected at most ${maxBytes}`)
  return packed
}

/** Refuses what would come out as something else on the other side: functions, maps, objects of a class. */
function checkPlain(value: unknown, path: readonly (string | number)[]): void {
  const place = path.length === 0 ? 'state' : `state.${path.slice(0, 8).join('.')}`
  switch (typeof value) {
    case 'undefined':
    case 'boolean':
    case 'number':
    case 'string':
      return
    case 'bigint':
      if (value < -(2n ** 63n) || value >= 2n ** 64n) throw deviceError(`${place} is a bigint of more than 64 bits`)
      return
    case 'object':
      break
    default:
      throw deviceError(`${place} is a ${typeof value}, which can not be packed`)
  }
  if (value === null || value instanceof Date || value instanceof Uint8Array) return
  if (path.length >= MAX_DEPTH) throw deviceError(`state is nested more than ${MAX_DEPTH} deep, or holds itself`)
  if (Array.isArray(value)) {
    for (const [i, element] of value.entries()) checkPlain(element, [...path, i])
    return
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) {
    const { name } = (value as { constructor?: { name?: string } }).constructor ?? {}
    throw deviceError(`${place} is a ${name ?? 'object of a class'}, which can not be packed`)
  }
  for (const [key, member] of Object.entries(value)) {
    // Unpacked, it would be another key.
    if (key === '__proto__') throw deviceError(`${place} has a member '__proto__', which can not be packed`)
    checkPlain(member, [...path, key])
  }
}

/** The other way. Throws ERR_MULTIFD_PROTOCOL when it is not one whole value of plain types. */
export function unpackValue(bytes: Uint8Array): unknown {
  walk(bytes)
  try {
    // A Buffer's slices would be Buffers.
    return unpackr.unpack(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length))
  } catch (error) {
    throw protocolError(`packed state is no value: ${oneLine(error)}`)
  }
}

/** Throws ERR_MULTIFD_PROTOCOL unless the bytes are one value, whole and no more, none of whose counts lies. */
function walk(bytes: Uint8Array): void {
  const view = viewOf(bytes)
  /** Values still to come, of each collection that is open. */
  const open: number[] = [1]
  let at = 0
  const take = (size: number) => {
    if (size > bytes.length - at) throw protocolError(`packed state ends inside a value, after ${bytes.length} bytes`)
    at += size
    return at - size
  }
  const count = (size: 1 | 2 | 4) => {
    const from = take(size)
    if (size === 1) return view.getUint8(from)
    return size === 2 ? view.getUint16(from) : view.getUint32(from)
  }
  const enter = (values: number) => {
    // Each takes a byte at least.
    if (values > bytes.length - at) throw protocolError(`packed state announces ${values} values it does not have`)
    if (open.length >= MAX_DEPTH) throw protocolError(`packed state is nested more than ${MAX_DEPTH} deep`)
    open.push(values)
  }
  const extension = (size: number) => {
    const type = view.getUint8(take(1))
    if (!EXTENSIONS.includes(type))
      throw protocolError(`packed state has a value of type ${type}, expected plain values`)
    take(size)
  }
  while (open.length > 0) {
    const left = open[open.length - 1]!
    if (left === 0) {
      open.pop()
      continue
    }
    open[open.length - 1] = left - 1
    const byte = count(1)
    if (byte < 0x80 || byte >= 0xe0) continue
    if (byte < 0x90) enter(2 * (byte & 0x0f))
    else if (byte < 0xa0) enter(byte & 0x0f)
    else if (byte < 0xc0) take(byte & 0x1f)
    else if (byte === 0xc1) throw protocolError('packed state has byte 0xc1, which is no value')
    else if (byte <= 0xc3) continue
    else if (byte <= 0xc6) take(count(SIZES[byte - 0xc4]!))
    else if (byte <= 0xc9) extension(count(SIZES[byte - 0xc7]!))
    else if (byte <= 0xcb) take(byte === 0xca ? 4 : 8)
    else if (byte <= 0xd3) take(2 ** ((byte - 0xcc) & 3))
    else if (byte <= 0xd8) extension(2 ** (byte - 0xd4))
    else if (byte <= 0xdb) take(count(SIZES[byte - 0xd9]!))
    else if (byte <= 0xdd) enter(count(byte === 0xdc ? 2 : 4))
    else enter(2 * count(byte === 0xde ? 2 : 4))
  }
  if (at !== bytes.length) throw protocolError(`packed state has ${bytes.length - at} bytes behind its value`)
}

const SIZES = [1, 2, 4] as const
