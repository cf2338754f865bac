// A byte reader over an open file, whose position is the place in the file.

import { readSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { type ByteReader, MemoryReader } from '../wire/reader.js'

const CHUNK = 64 * 1024

export class FileReader implements ByteReader {
  readonly #fd: number
  #chunk = new MemoryReader(new Uint8Array())

  /** Reads the descriptor by position; does not close it. */
  constructor(fd: number, start = 0) {
    this.#fd = fd
    this.#chunk = new MemoryReader(new Uint8Array(), start)
  }

  get position(): number {
    return this.#chunk.position
  }

  u8(): number {
    return this.#have(1).u8()
  }

  u16(): number {
    return this.#have(2).u16()
  }

  u32(): number {
    return this.#have(4).u32()
  }

  u64(): number {
    return this.#have(8).u64()
  }

  text(length: number): string {
    return this.#have(length).text(length)
  }

  cstr8(): string {
    return this.text(this.u8())
  }

  bytes(length: number): Uint8Array {
    return this.#have(length).bytes(length)
  }

  peekU8(): number {
    if (this.#chunk.remaining === 0) this.#load(1)
    return this.#chunk.peekU8()
  }

  skip(length: number): void {
    if (length <= this.#chunk.remaining) this.#chunk.skip(length)
    else this.#chunk = new MemoryReader(new Uint8Array(), this.position + length)
  }

  /** Everything from here to the end of the file, up to `limit` bytes. */
  rest(limit: number): Uint8Array {
    const parts: Uint8Array[] = []
    for (let total = 0; this.peekU8() !== -1; ) {
      const part = this.#chunk.bytes(this.#chunk.remaining)
      total += part.length
      if (total > limit) throw new MultifdError('ERR_MULTIFD_PROTOCOL', `more than ${limit} bytes of device state`)
      parts.push(part)
    }
    return Buffer.concat(parts)
  }

  #have(length: number): MemoryReader {
    if (this.#chunk.remaining < length) this.#load(length)
    return this.#chunk
  }

  // Leaves fewer bytes than asked for only at the end of the file: the memory reader then says truncated.
  #load(length: number): void {
    const at = this.position
    const buffer = new Uint8Array(Math.max(length, CHUNK))
    let got = 0
    while (got < buffer.length) {
      const more = readSync(this.#fd, buffer, got, buffer.length - got, at + got)
      if (more === 0) break
      got += more
    }
    this.#chunk = new MemoryReader(buffer.subarray(0, got), at)
  }
}
