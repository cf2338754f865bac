// The main channel's writing end: small pieces are gathered, pages go straight from their block.

import { PinnedBuffer } from '../os/memory.js'
import type { Channel } from './channel.js'
import { type AddressRange, IOV_MAX, IoVector } from './iovec.js'

const BUFFER_SIZE = 256 * 1024
// Enough for one system call to be worth it, little enough that a page is not read long after it was queued.
const FLUSH_AT = 1024 * 1024

export class StreamWriter {
  /** Bytes handed to the channel. */
  bytes = 0
  readonly #channel: Channel
  readonly #buffer = new PinnedBuffer(BUFFER_SIZE)
  readonly #range: AddressRange = { address: this.#buffer.address, size: BUFFER_SIZE }
  readonly #vector = new IoVector(IOV_MAX)
  #at = 0

  constructor(channel: Channel) {
    this.#channel = channel
  }

  /** The buffer's view: encode at what {@link reserve} returned, then {@link commit}. */
  get view(): DataView {
    return this.#buffer.view
  }

  /** The buffer's bytes, at the same places as in {@link view}. */
  get buffer(): Uint8Array {
    return this.#buffer.bytes
  }

  /** Makes room for `size` bytes; returns where they go. */
  reserve(size: number): number {
    if (this.#at + size > BUFFER_SIZE || !this.#vector.hasRoom(1)) this.flush()
    return this.#at
  }

  /** Appends what was encoded from the reserved place up to `end`. */
  commit(end: number): void {
    if (end > this.#at) this.#vector.push(this.#range, this.#at, end - this.#at)
    this.#at = end
  }

  /** Appends bytes as they are, of any length. */
  putBytes(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; from += BUFFER_SIZE) {
      const part = bytes.subarray(from, from + BUFFER_SIZE)
      const at = this.reserve(part.length)
      this.#buffer.bytes.set(part, at)
      this.commit(at + part.length)
    }
  }

  /** Appends bytes of a block. The kernel reads them from where they lie, at the next flush. */
  putRange(range: AddressRange, offset: number, length: number): void {
    if (!this.#vector.hasRoom(2)) this.flush()
    this.#vector.push(range, offset, length)
    if (this.#vector.length >= FLUSH_AT) this.flush()
  }

  /** Hands everything to the kernel. */
  flush(): void {
    this.bytes += this.#vector.length
    this.#channel.writeFull(this.#vector)
    this.#vector.reset()
    this.#at = 0
  }
}
