// Fields of many bytes: buffers, bitmaps, and bytes that mean nothing any more.
//
//   buffer          the bytes as they are
//   bitmap          ceil(bits / 64) be64 words: bit k is bit k % 64 of word k / 64
//   unused_buffer   written as zeros, read and not looked at

import { argumentError, protocolError, U64_SIZE } from '../wire/bytes.js'
import { deviceError, type LoadContext } from './context.js'
import {
  type Existence,
  type Field,
  type FieldOptions,
  type KeyOf,
  makeField,
  type NoOptions,
  type ReadBy,
  type TestedBy,
  type UntypedField,
  type ValueField,
  type ValueType,
  valueField,
} from './field.js'
import { shown } from './integers.js'
import type { LookAheadReader } from './look-ahead.js'

/** Most bytes of one buffer or bitmap. */
export const MAX_BUFFER_SIZE = 64 * 1024 * 1024
/** What is allocated at once for bytes that have not come yet. */
const CHUNK_SIZE = 64 * 1024

/** A number, or what the state says: both sides must come to the same. */
export type SizeFrom<S = never> = number | ((state: S) => number)

/** Options of a buffer. */
export interface BufferOptions extends FieldOptions {
  /** What the stream's description calls it; default `buffer`. */
  type?: string
}

/**
 * Bytes.
 * @param size how many; the state's Uint8Array has that length, and is filled in place when it is loaded
 */
export function buffer<N extends string, Z extends SizeFrom, const O extends BufferOptions = NoOptions>(
  name: N,
  size: Z,
  options?: O,
): ValueField<KeyOf<N, O>, Uint8Array, Uint8Array, ReadBy<Z> & TestedBy<O>> {
  checkSize(size, MAX_BUFFER_SIZE, name, 'bytes')
  const value: ValueType = {
    type: options?.type ?? 'buffer',
    compressible: true,
    fixed: typeof size === 'number',
    save({ writer }, bytes, state) {
      const length = sizeOf(size, state, MAX_BUFFER_SIZE, 'bytes')
      writer.bytes(checkedBytes(bytes, length))
      return undefined
    },
    load({ reader }, current, state) {
      const length = sizeOf(size, state, MAX_BUFFER_SIZE, 'bytes')
      return fill(current, readBytes(reader, length))
    },
  }
  return valueField(name, value, options)
}

/** Options of a bitmap. */
export interface BitmapOptions extends FieldOptions {
  bits: SizeFrom
}

/** Bits in a Uint8Array of ceil(bits / 8) bytes: bit k is bit k % 8 of byte k / 8. Others in its last byte are zero. */
export function bitmap<N extends string, const O extends BitmapOptions>(
  name: N,
  options: O,
): ValueField<KeyOf<N, O>, Uint8Array, Uint8Array, ReadBy<O['bits']> & TestedBy<O>> {
  const bits: SizeFrom = options.bits
  checkSize(bits, MAX_BUFFER_SIZE * 8, name, 'bits')
  const value: ValueType = {
    type: 'bitmap',
    compressible: true,
    fixed: typeof bits === 'number',
    save({ writer }, bytes, state) {
      const count = sizeOf(bits, state, MAX_BUFFER_SIZE * 8, 'bits')
      const map = checkedBytes(bytes, Math.ceil(count / 8))
      if (count % 8 !== 0 && (map.at(-1) ?? 0) >> (count % 8) !== 0) {
        throw deviceError(`a bit is set behind the last of ${count}`)
      }
      writer.bytes(swapWords(map, wordBytes(count)))
      return undefined
    },
    load({ reader }, current, state) {
      const count = sizeOf(bits, state, MAX_BUFFER_SIZE * 8, 'bits')
      const size = Math.ceil(count / 8)
      const map = swapWords(readBytes(reader, wordBytes(count)), wordBytes(count))
      const last = count % 8 === 0 ? 0 : (map[size - 1] ?? 0) >> (count % 8)
      if (last !== 0 || map.subarray(size).some((byte) => byte !== 0)) {
        throw protocolError(`a bit is set behind the last of ${count}`)
      }
      return fill(current, map.slice(0, size))
    },
  }
  return valueField(name, value, options)
}

/** Bytes that an older version used for something, or that are kept for a later one. */
export function unused<const O extends Existence = NoOptions>(
  size: number,
  options?: O,
): Field<TestedBy<O>, TestedBy<O>> {
  const existence: Existence = options ?? {}
  checkSize(size, MAX_BUFFER_SIZE, 'unused', 'bytes')
  return makeField<UntypedField>({
    kind: 'unused',
    name: 'unused',
    key: undefined,
    version: existence.version ?? 0,
    test: existence.test as UntypedField['test'],
    compressible: existence.test === undefined,
    fixed: existence.test === undefined,
    nested: undefined,
    countName: undefined,
    save: ({ writer }, _state, name) => {
      writer.zeros(size)
      return [{ name, type: 'unused_buffer', size }]
    },
    load: ({ reader }: LoadContext) => {
      readBytes(reader, size)
    },
  })
}

function wordBytes(bits: number): number {
  return Math.ceil(bits / 64) * U64_SIZE
}

/** Words with their bytes the other way round, `size` bytes of them. */
function swapWords(bytes: Uint8Array, size: number): Uint8Array {
  const swapped = new Uint8Array(size)
  for (let i = 0; i < bytes.length; i++) swapped[i ^ (U64_SIZE - 1)] = bytes[i]!
  return swapped
}

function checkedBytes(bytes: unknown, length: number): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw deviceError(`${shown(bytes)} is no Uint8Array`)
  if (bytes.length !== length) throw deviceError(`Uint8Array has ${bytes.length} bytes, expected ${length}`)
  return bytes
}

function fill(current: unknown, bytes: Uint8Array): Uint8Array {
  if (!(current instanceof Uint8Array) || current.length !== bytes.length) return bytes
  current.set(bytes)
  return current
}

/** Reads bytes, piece by piece: an input that ends early costs no more than what it had. */
export function readBytes(reader: LookAheadReader, length: number): Uint8Array {
  if (length <= CHUNK_SIZE) return reader.bytes(length)
  let bytes = new Uint8Array(CHUNK_SIZE)
  for (let at = 0; at < length; ) {
    const part = reader.bytes(Math.min(CHUNK_SIZE, length - at))
    if (at + part.length > bytes.length) {
      const grown = new Uint8Array(Math.min(length, 2 * bytes.length))
      grown.set(bytes)
      bytes = grown
    }
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** What a size comes to for this state. Throws ERR_MULTIFD_DEVICE unless it is 0..max. */
export function sizeOf(size: SizeFrom, state: unknown, max: number, unit: string): number {
  const value = typeof size === 'number' ? size : (size as (state: unknown) => number)(state)
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw deviceError(`the state gives it ${shown(value)} ${unit}, expected 0..${max}`)
  }
  return value
}

function checkSize(size: unknown, max: number, name: string, unit: string): void {
  if (typeof size === 'function') return
  if (!Number.isInteger(size) || (size as number) < 0 || (size as number) > max) {
    throw argumentError(`field '${name}' has ${shown(size)} ${unit}, expected 0..${max} or a function of the state`)
  }
}
