// Where incremental decoders take their bytes from: an interface, and its implementation over bytes in memory.

import { bytesToText, joinU64, truncatedError, U64_SIZE, viewOf } from './bytes.js'

/** How many bytes are read at once where they can only be passed over by reading them. */
const SKIP_CHUNK = 65536

/**
 * A forward-only source of bytes. Every method but `peekU8` consumes what it returns and throws
 * ERR_MULTIFD_TRUNCATED (or the transport's own error) when the input ends first.
 */
export interface ByteReader {
  u8(): number
  u16(): number
  u32(): number
  /** A be64 of at most 2^53 - 1; more throws ERR_MULTIFD_PROTOCOL. */
  u64(): number
  /** `length` bytes as latin1 text. The caller has checked `length`. */
  text(length: number): string
  /** A length byte and that much text. */
  cstr8(): string
  /** A copy of the next `length` bytes. The caller has checked `length`. */
  bytes(length: number): Uint8Array
  /** The next byte, not consumed, or -1 at a clean end of the input. */
  peekU8(): number
  /** Passes over `length` bytes without keeping them, where the input can do that better than by reading them. */
  skip?(length: number): void
  /** Bytes consumed so far; in a file, the absolute position. */
  readonly position: number
}

/** A {@link ByteReader} over bytes in memory. */
export class MemoryReader implements ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #base: number
  #at = 0

  /** @param base what `position` counts from: the bytes' own place in their file or stream */
  constructor(bytes: Uint8Array, base = 0) {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    this.#base = base
  }

  get position(): number {
    return this.#base + this.#at
  }

  /** Bytes left. */
  get remaining(): number {
    return this.#bytes.length - this.#at
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2))
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4))
  }

  u64(): number {
    const at = this.#take(U64_SIZE)
    return joinU64(this.#view.getUint32(at), this.#view.getUint32(at + 4))
  }

  text(length: number): string {
    return bytesToText(this.#view, this.#take(length), length)
  }

  cstr8(): string {
    return this.text(this.u8())
  }

  bytes(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.slice(at, at + length)
  }

  /** The next `length` bytes without a copy: a view of the memory that is read from. */
  subarray(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  peekU8(): number {
    return this.#at < this.#bytes.length ? this.#view.getUint8(this.#at) : -1
  }

  skip(length: number): void {
    this.#take(length)
  }

  #take(length: number): number {
    if (length > this.remaining) throw truncatedError('the stream', length, this.remaining)
    const at = this.#at
    this.#at += length
    return at
  }
}

/** Passes over `length` bytes of any reader. */
export function skipBytes(reader: ByteReader, length: number): void {
  if (reader.skip !== undefined) {
    reader.skip(length)
    return
  }
  for (let left = length; left > 0; left -= SKIP_CHUNK) reader.bytes(Math.min(left, SKIP_CHUNK))
}
