// Bytes that grow: what sections are written into, for their size is known only once they are written.

import { TWO_32, U64_SIZE, viewOf, writeCstr8 } from '../wire/bytes.js'
import { deviceError } from './context.js'

/** Most bytes of one phase's sections: what a destination of ours keeps of a stream's end. */
export const MAX_STATE_SIZE = 256 * 1024 * 1024

const FIRST_CAPACITY = 4096

export class ByteWriter {
  #bytes = new Uint8Array(FIRST_CAPACITY)
  #view = viewOf(this.#bytes)
  #length = 0

  /** Bytes written. */
  get length(): number {
    return this.#length
  }

  u8(value: number): void {
    const at = this.#take(1)
    this.#view.setUint8(at, value)
  }

  u16(value: number): void {
    const at = this.#take(2)
    this.#view.setUint16(at, value)
  }

  u32(value: number): void {
    const at = this.#take(4)
    this.#view.setUint32(at, value)
  }

  /** The low 64 bits, so that negative numbers keep their sign. */
  u64(value: bigint): void {
    const at = this.#take(U64_SIZE)
    this.#view.setBigInt64(at, BigInt.asIntN(64, value))
  }

  /** A whole number from -2^53 to 2^53, in two's complement. */
  i64(value: number): void {
    const at = this.#take(U64_SIZE)
    this.#view.setUint32(at, Math.floor(value / TWO_32))
    this.#view.setUint32(at + 4, value)
  }

  cstr8(text: string): void {
    const at = this.#take(1 + text.length)
    writeCstr8(this.#view, at, text)
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#take(bytes.length)
    this.#bytes.set(bytes, at)
  }

  zeros(count: number): void {
    const at = this.#take(count)
    this.#bytes.fill(0, at, at + count)
  }

  /** Makes room for `size` bytes that an encoder of src/wire writes. */
  encode(size: number, encode: (view: DataView, at: number) => unknown): void {
    const at = this.#take(size)
    encode(this.#view, at)
  }

  /** Everything so far: a view, good until the next write. */
  written(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** Appends `size` bytes of whatever content; returns where they begin. It may replace the view: call it first. */
  #take(size: number): number {
    const at = this.#length
    const length = at + size
    if (length > MAX_STATE_SIZE) {
      throw deviceError(`device state has ${length} bytes, expected at most ${MAX_STATE_SIZE}`)
    }
    if (length > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(MAX_STATE_SIZE, Math.max(length, 2 * this.#bytes.length)))
      grown.set(this.written())
      this.#bytes = grown
      this.#view = viewOf(grown)
    }
    this.#length = length
    return at
  }
}
