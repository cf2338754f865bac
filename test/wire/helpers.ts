// What the tests of the codecs share: hex, slow and obvious numbers, truncation, error codes.

import type { Test } from 'tap'
import { type ErrorCode, MultifdError } from '../../src/errors.js'
import { viewOf } from '../../src/wire/bytes.js'

/** Bytes from hexadecimal text; white space is for the reader. */
export function fromHex(text: string): Uint8Array {
  const digits = text.replaceAll(/\s/g, '')
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

/** The other way. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/** What an encoder wrote into a buffer that was full of 0xee: so that a byte it forgot shows. */
export function encoded(size: number, encode: (view: DataView, at: number) => unknown, at = 0): Uint8Array {
  const bytes = new Uint8Array(at + size).fill(0xee)
  encode(viewOf(bytes), at)
  return bytes.subarray(at)
}

/** Builds bytes the slow way: one byte at a time, from BigInts. */
export class NaiveWriter {
  readonly out: number[] = []

  be(size: number, value: number | bigint): this {
    for (let shift = BigInt(size - 1) * 8n; shift >= 0n; shift -= 8n) {
      this.out.push(Number((BigInt(value) >> shift) & 0xffn))
    }
    return this
  }

  text(text: string): this {
    for (const character of text) this.out.push(character.charCodeAt(0))
    return this
  }

  cstr8(text: string): this {
    return this.be(1, text.length).text(text)
  }

  raw(bytes: Iterable<number>): this {
    for (const byte of bytes) this.out.push(byte)
    return this
  }

  zeros(count: number): this {
    return this.raw(new Uint8Array(count))
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.out)
  }
}

/** Reads a big-endian number the slow way. */
export function naiveBe(bytes: Uint8Array, at: number, size: number): bigint {
  let value = 0n
  for (let i = 0; i < size; i++) value = value * 256n + BigInt(bytes[at + i] ?? 0)
  return value
}

/** A copy with some bytes replaced. */
export function patched(bytes: Uint8Array, at: number, replacement: string): Uint8Array {
  const copy = bytes.slice()
  copy.set(fromHex(replacement), at)
  return copy
}

/** Asserts that `run` throws a MultifdError of this code, with these words in its message. */
export function throwsCode(t: Test, run: () => unknown, code: ErrorCode, words: string | RegExp, name?: string): void {
  try {
    run()
  } catch (error) {
    if (!(error instanceof MultifdError)) {
      t.fail(`${name ?? code}: threw something else`, { found: error })
      return
    }
    t.equal(error.code, code, name ?? code)
    t.match(error.message, words)
    return
  }
  t.fail(`${name ?? code}: did not throw`)
}

/** A bad input, what it yields, and words of the message. */
export type BadCase = [name: string, bytes: Uint8Array, code: ErrorCode, words: string | RegExp]

/** Asserts a table of bad inputs. */
export function badFields(t: Test, decode: (bytes: Uint8Array) => unknown, cases: readonly BadCase[]): void {
  for (const [name, bytes, code, words] of cases) throwsCode(t, () => decode(bytes), code, words, name)
}

/** Asserts that every strict prefix is ERR_MULTIFD_TRUNCATED, save those lengths where the input may end. */
export function everyTruncation(
  t: Test,
  bytes: Uint8Array,
  decode: (bytes: Uint8Array) => unknown,
  fine: readonly number[] = [],
): void {
  const wrong: unknown[] = []
  for (let length = 0; length < bytes.length; length++) {
    let code: unknown = 'none'
    try {
      decode(bytes.slice(0, length))
    } catch (error) {
      code = error instanceof MultifdError ? error.code : error
    }
    if (code !== (fine.includes(length) ? 'none' : 'ERR_MULTIFD_TRUNCATED')) wrong.push([length, code])
  }
  t.same(wrong, [], `each of ${bytes.length} truncations`)
}

/** Edges of 64-bit fields that a double holds. */
export const U64_EDGES = [
  0,
  1,
  0xff,
  0x100,
  0xffff_ffff,
  0x1_0000_0000,
  2 ** 52,
  Number.MAX_SAFE_INTEGER - 1,
  Number.MAX_SAFE_INTEGER,
]
