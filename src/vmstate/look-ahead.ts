// A reader that can look further than one byte: a subsection is told from data by its byte, its length and its name.

import { bytesToText, joinU64, viewOf } from '../wire/bytes.js'
import type { ByteReader } from '../wire/reader.js'

/**
 * Bytes that were looked at are kept and come first. No more is asked of the reader below than was looked at, so that
 * looking never waits for bytes that do not come.
 */
export class LookAheadReader implements ByteReader {
  readonly #below: ByteReader
  #ahead: number[] = []

  constructor(below: ByteReader) {
    this.#below = below
  }

  /** That reader, if it looks ahead already; otherwise one around it. */
  static over(reader: ByteReader): LookAheadReader {
    return reader instanceof LookAheadReader ? reader : new LookAheadReader(reader)
  }

  /** Bytes that were looked at and not read. */
  get lookedAhead(): number {
    return this.#ahead.length
  }

  get position(): number {
    return this.#below.position - this.#ahead.length
  }

  /** The byte `offset` bytes ahead, not consumed, or -1 at the end of the input. */
  peekAt(offset: number): number {
    while (this.#ahead.length < offset) {
      if (this.#below.peekU8() === -1) return -1
      this.#ahead.push(this.#below.u8())
    }
    return this.#ahead[offset] ?? this.#below.peekU8()
  }

  peekU8(): number {
    return this.#ahead[0] ?? this.#below.peekU8()
  }

  u8(): number {
    return this.#ahead.shift() ?? this.#below.u8()
  }

  u16(): number {
    return this.#ahead.length === 0 ? this.#below.u16() : this.u8() * 0x100 + this.u8()
  }

  u32(): number {
    return this.#ahead.length === 0 ? this.#below.u32() : this.u16() * 0x1_0000 + this.u16()
  }

  u64(): number {
    return this.#ahead.length === 0 ? this.#below.u64() : joinU64(this.u32(), this.u32())
  }

  text(length: number): string {
    if (this.#ahead.length === 0) return this.#below.text(length)
    return bytesToText(viewOf(this.bytes(length)), 0, length)
  }

  cstr8(): string {
    return this.text(this.u8())
  }

  bytes(length: number): Uint8Array {
    if (this.#ahead.length === 0) return this.#below.bytes(length)
    const ahead = this.#ahead.splice(0, length)
    const bytes = new Uint8Array(length)
    bytes.set(ahead)
    bytes.set(this.#below.bytes(length - ahead.length), ahead.length)
    return bytes
  }
}
