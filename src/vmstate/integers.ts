// Fields of one number: integers of every width, booleans, timers. Big-endian; signed ones in two's complement.
//
//   type                       bytes   in the state
//   uint8 int8 bool            1       number; bool: boolean, 00 or 01
//   uint16 int16               2       number
//   uint32 int32               4       number
//   uint64 int64 timer         8       bigint, or number with { as: 'number' }
//
// `{ equal: true }` makes one a check: what comes must be what the state has, and the type is called "uint8 equal".

import { protocolError, TWO_32 } from '../wire/bytes.js'
import { deviceError, type LoadContext, type SaveContext } from './context.js'
import {
  type FieldOptions,
  type KeyOf,
  type NoOptions,
  type TestedBy,
  type ValueField,
  type ValueType,
  valueField,
} from './field.js'

/** Options of integer fields. */
export interface IntegerOptions extends FieldOptions {
  /** The loading side has the value already, and another one is refused. */
  equal?: boolean
}

/** Options of 64-bit fields. */
export interface Integer64Options extends IntegerOptions {
  /** `number` is refused, on either side, beyond 2^53 - 1 and -(2^53 - 1). Default `bigint`. */
  as?: 'bigint' | 'number'
}

interface Width {
  type: string
  bits: 8 | 16 | 32
  signed: boolean
}

function smallType({ type, bits, signed }: Width, equal: boolean): ValueType {
  const range = 2 ** bits
  const max = (signed ? range / 2 : range) - 1
  const min = signed ? -range / 2 : 0
  return {
    type: equal ? `${type} equal` : type,
    compressible: true,
    fixed: true,
    save(context, value) {
      if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
        throw deviceError(`${shown(value)} is no ${type}, expected ${min}..${max}`)
      }
      writeSmall(context, bits, value as number)
      return undefined
    },
    load(context, current) {
      const unsigned = readSmall(context, bits)
      const value = unsigned > max ? unsigned - range : unsigned
      if (equal) checkEqual(value, current)
      return value
    },
  }
}

function writeSmall({ writer }: SaveContext, bits: 8 | 16 | 32, value: number): void {
  if (bits === 8) writer.u8(value)
  else if (bits === 16) writer.u16(value)
  else writer.u32(value)
}

function readSmall({ reader }: LoadContext, bits: 8 | 16 | 32): number {
  if (bits === 8) return reader.u8()
  return bits === 16 ? reader.u16() : reader.u32()
}

function bigType(type: string, signed: boolean, equal: boolean): ValueType {
  const max = 2n ** (signed ? 63n : 64n) - 1n
  const min = signed ? -(2n ** 63n) : 0n
  return {
    type: equal ? `${type} equal` : type,
    compressible: true,
    fixed: true,
    save({ writer }, value) {
      if (typeof value !== 'bigint' || value < min || value > max) {
        throw deviceError(`${shown(value)} is no ${type}, expected a bigint from ${min} to ${max}`)
      }
      writer.u64(value)
      return undefined
    },
    load({ reader }, current) {
      const high = BigInt(reader.u32())
      const unsigned = (high << 32n) | BigInt(reader.u32())
      const value = signed ? BigInt.asIntN(64, unsigned) : unsigned
      if (equal) checkEqual(value, current)
      return value
    },
  }
}

function safeType(type: string, signed: boolean, equal: boolean): ValueType {
  const expected = signed ? 'a safe integer' : '0..2^53 - 1'
  return {
    type: equal ? `${type} equal` : type,
    compressible: true,
    fixed: true,
    save({ writer }, value) {
      if (!Number.isSafeInteger(value) || (!signed && (value as number) < 0)) {
        throw deviceError(`${shown(value)} is no ${type} as a number, expected ${expected}`)
      }
      writer.i64(value as number)
      return undefined
    },
    load({ reader }, current) {
      const high = reader.u32()
      const low = reader.u32()
      const value = (signed ? high | 0 : high) * TWO_32 + low
      if (!Number.isSafeInteger(value)) throw protocolError(`${value} does not fit a number, expected ${expected}`)
      if (equal) checkEqual(value, current)
      return value
    },
  }
}

const boolType: ValueType = {
  type: 'bool',
  compressible: true,
  fixed: true,
  save({ writer }, value) {
    if (typeof value !== 'boolean') throw deviceError(`${shown(value)} is no bool`)
    writer.u8(value ? 1 : 0)
    return undefined
  },
  load({ reader }) {
    const byte = reader.u8()
    if (byte > 1) throw protocolError(`bool is ${byte}, expected 0 or 1`)
    return byte === 1
  },
}

function checkEqual(value: number | bigint, current: unknown): void {
  if (value !== current) throw deviceError(`${value} came, expected ${shown(current)} as here`)
}

/** A value in a message: never more than a few characters. */
export function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object'
  if (typeof value === 'function') return 'a function'
  const text = typeof value === 'bigint' ? `${value}n` : String(value)
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}

type SmallField = <N extends string, const O extends IntegerOptions = NoOptions>(
  name: N,
  options?: O,
) => ValueField<KeyOf<N, O>, number, number, TestedBy<O>>

function small(width: Width): SmallField {
  const plain = smallType(width, false)
  const equal = smallType(width, true)
  return (name, options: IntegerOptions = {}) => valueField(name, options.equal ? equal : plain, options)
}

/** An integer of one byte, 0..255. */
export const u8: SmallField = small({ type: 'uint8', bits: 8, signed: false })
/** An integer of two bytes, 0..65535. */
export const u16: SmallField = small({ type: 'uint16', bits: 16, signed: false })
/** An integer of four bytes, 0..2^32 - 1. */
export const u32: SmallField = small({ type: 'uint32', bits: 32, signed: false })
/** An integer of one byte, -128..127. */
export const i8: SmallField = small({ type: 'int8', bits: 8, signed: true })
/** An integer of two bytes, -32768..32767. */
export const i16: SmallField = small({ type: 'int16', bits: 16, signed: true })
/** An integer of four bytes, -2^31..2^31 - 1. */
export const i32: SmallField = small({ type: 'int32', bits: 32, signed: true })

type As64<O> = O extends { as: 'number' } ? number : bigint
type BigField = <N extends string, const O extends Integer64Options = NoOptions>(
  name: N,
  options?: O,
) => ValueField<KeyOf<N, O>, As64<O>, As64<O>, TestedBy<O>>

function big(type: string, signed: boolean): BigField {
  return (name, options: Integer64Options = {}) => {
    const { as = 'bigint', equal = false } = options
    return valueField(name, as === 'number' ? safeType(type, signed, equal) : bigType(type, signed, equal), options)
  }
}

/** An integer of eight bytes, from 0: a bigint, unless `{ as: 'number' }`. */
export const u64: BigField = big('uint64', false)
/** An integer of eight bytes with a sign: a bigint, unless `{ as: 'number' }`. */
export const i64: BigField = big('int64', true)
/** When a timer expires, in nanoseconds of the device's clock; -1 when it is not armed. As {@link i64}. */
export const timer: BigField = big('timer', true)

/** A boolean. */
export function bool<N extends string, const O extends FieldOptions = NoOptions>(
  name: N,
  options?: O,
): ValueField<KeyOf<N, O>, boolean, boolean, TestedBy<O>> {
  return valueField(name, boolType, options)
}
