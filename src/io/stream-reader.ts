// The main channel's reading end: small pieces through a buffer, pages straight into their block.

import { MultifdError } from '../errors.js'
import { copyMemory, PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import { bytesToText, joinU64 } from '../wire/bytes.js'
import type { ByteReader } from '../wire/reader.js'
import type { Channel } from './channel.js'
import { describe } from './descriptor-channel.js'
import { type AddressRange, checkedAddress, IoVector } from './iovec.js'

const BUFFER_SIZE = 64 * 1024
// What may follow a page in the same read: enough for the records after it to need no read of their own.
const RIDE_SIZE = 32 * 1024

/** Blocks the calling thread. Its methods throw ERR_MULTIFD_TRUNCATED when the stream ends too early. */
export class StreamReader implements ByteReader {
  readonly #channel: Channel
  readonly #buffer = new PinnedBuffer(BUFFER_SIZE)
  readonly #range: AddressRange = { address: this.#buffer.address, size: BUFFER_SIZE }
  readonly #vector = new IoVector(2)
  #at = 0
  #end = 0
  #before = 0

  constructor(channel: Channel) {
    this.#channel = channel
  }

  /** Bytes consumed. */
  get position(): number {
    return this.#before + this.#at
  }

  /** Bytes read from the channel. */
  get bytesRead(): number {
    return this.#before + this.#end
  }

  u8(): number {
    return this.#buffer.view.getUint8(this.#take(1))
  }

  u16(): number {
    return this.#buffer.view.getUint16(this.#take(2))
  }

  u32(): number {
    return this.#buffer.view.getUint32(this.#take(4))
  }

  u64(): number {
    const at = this.#take(8)
    return joinU64(this.#buffer.view.getUint32(at), this.#buffer.view.getUint32(at + 4))
  }

  text(length: number): string {
    return bytesToText(this.#buffer.view, this.#take(length), length)
  }

  cstr8(): string {
    return this.text(this.u8())
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      if (this.#at === this.#end) this.#fill(1)
      const part = this.#buffer.bytes.subarray(this.#at, Math.min(this.#end, this.#at + length - done))
      bytes.set(part, done)
      this.#at += part.length
      done += part.length
    }
    return bytes
  }

  peekU8(): number {
    if (this.#at === this.#end && this.#more() === 0) return -1
    return this.#buffer.view.getUint8(this.#at)
  }

  /** What is buffered, or else what comes next: at least one byte, or none at the end. A copy. */
  some(): Uint8Array {
    if (this.#at === this.#end && this.#more() === 0) return new Uint8Array()
    const part = this.#buffer.bytes.slice(this.#at, this.#end)
    this.#at = this.#end
    return part
  }

  /** Reads `length` bytes into a block at `offset`: what is buffered by copy, the rest straight into place. */
  into(block: RamBlock, offset: number, length: number): void {
    const address = checkedAddress(block, offset, length)
    const buffered = Math.min(length, this.#end - this.#at)
    if (buffered > 0) {
      block.makeRoom(offset, buffered)
      copyMemory(address, this.#buffer.address + this.#at, buffered)
      this.#at += buffered
    }
    const rest = length - buffered
    if (rest === 0) return
    this.#restart()
    this.#vector.reset()
    this.#vector.push(block, offset + buffered, rest)
    this.#vector.push(this.#range, 0, RIDE_SIZE)
    let got = 0
    while (got < rest) {
      const more = this.#channel.readSome(this.#vector)
      if (more === 0) throw this.#truncated(rest - got)
      got += more
    }
    this.#before += rest
    this.#end = got - rest
  }

  #take(length: number): number {
    if (this.#end - this.#at < length) this.#fill(length)
    const at = this.#at
    this.#at += length
    return at
  }

  #fill(length: number): void {
    if (length > BUFFER_SIZE) throw new MultifdError('ERR_MULTIFD_INTERNAL', `a field of ${length} bytes`)
    while (this.#end - this.#at < length) {
      if (this.#more() === 0) throw this.#truncated(length - (this.#end - this.#at))
    }
  }

  // Moves what is left to the front.
  #restart(): void {
    this.#buffer.bytes.copyWithin(0, this.#at, this.#end)
    this.#before += this.#at
    this.#end -= this.#at
    this.#at = 0
  }

  #more(): number {
    if (this.#at > 0) this.#restart()
    this.#vector.reset()
    this.#vector.push(this.#range, this.#end, BUFFER_SIZE - this.#end)
    const got = this.#channel.readSome(this.#vector)
    this.#end += got
    return got
  }

  #truncated(missing: number): MultifdError {
    const { name } = this.#channel
    const message = `${describe(name)}: the stream ends too early, at byte ${this.bytesRead}, ${missing} bytes short`
    return new MultifdError('ERR_MULTIFD_TRUNCATED', message, { channel: name })
  }
}
