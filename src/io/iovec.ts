// Scatter-gather lists for system calls. Every range that reaches one has passed through here.

import { MultifdError } from '../errors.js'
import { PinnedBuffer } from '../os/memory.js'

/** Entries a single system call takes (IOV_MAX). */
export const IOV_MAX = 1024
const ENTRY_SIZE = 16
const ENTRY_MAX = 2 ** 30
const HIGH = 2 ** 32

/** Memory by address: what a range is checked against. */
export interface AddressRange {
  readonly address: number
  /** Bytes. */
  readonly size: number
}

/**
 * The address of bytes [offset, offset + length) of a range: the one check between a peer's words and memory.
 *
 * @throws MultifdError ERR_MULTIFD_INTERNAL for a range outside; what a peer says is refused by name before it comes here
 */
export function checkedAddress(range: AddressRange, offset: number, length: number): number {
  // Written so that NaN fails it too.
  if (!(offset >= 0 && length > 0 && offset + length <= range.size)) {
    throw new MultifdError('ERR_MULTIFD_INTERNAL', `[${offset}, +${length}) is outside of ${range.size} bytes`)
  }
  return range.address + offset
}

/**
 * A list of memory ranges in the kernel's form: struct iovec { void *base; size_t length }. Ranges that lie together
 * become one entry.
 */
export class IoVector {
  readonly #entries: PinnedBuffer
  readonly #words: Uint32Array
  readonly #capacity: number
  #first = 0
  #end = 0
  #length = 0
  // End of the last range, and its length, to join the next one to it.
  #tail = -1
  #tailLength = 0

  constructor(capacity = IOV_MAX) {
    this.#capacity = Math.min(capacity, IOV_MAX)
    this.#entries = new PinnedBuffer(ENTRY_SIZE * this.#capacity)
    this.#words = new Uint32Array(this.#entries.bytes.buffer)
  }

  /** Bytes still in the list. */
  get length(): number {
    return this.#length
  }

  /** Entries still in the list. */
  get count(): number {
    return this.#end - this.#first
  }

  /** Of the first entry still in the list. */
  get address(): number {
    return this.#entries.address + ENTRY_SIZE * this.#first
  }

  /** Whether `more` further entries fit. */
  hasRoom(more: number): boolean {
    return this.#end + more <= this.#capacity
  }

  reset(): void {
    this.#first = 0
    this.#end = 0
    this.#length = 0
    this.#tail = -1
  }

  /** Appends bytes [offset, offset + length) of a range, which must lie inside it. */
  push(range: AddressRange, offset: number, length: number): void {
    const address = checkedAddress(range, offset, length)
    if (address === this.#tail && this.#tailLength + length <= ENTRY_MAX) {
      this.#tailLength += length
      this.#words[(this.#end - 1) * 4 + 2] = this.#tailLength
    } else {
      if (this.#end === this.#capacity) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'scatter-gather list is full')
      const at = this.#end * 4
      this.#words[at] = address % HIGH
      this.#words[at + 1] = Math.floor(address / HIGH)
      this.#words[at + 2] = length
      this.#words[at + 3] = 0
      this.#end++
      this.#tailLength = length
    }
    this.#tail = address + length
    this.#length += length
  }

  /** Drops the first `bytes`, which a system call has moved. */
  advance(bytes: number): void {
    if (bytes > this.#length) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'more moved than asked for')
    this.#length -= bytes
    let left = bytes
    while (left > 0) {
      const at = this.#first * 4
      const length = this.#words[at + 2]!
      if (left < length) {
        const address = this.#words[at]! + this.#words[at + 1]! * HIGH + left
        this.#words[at] = address % HIGH
        this.#words[at + 1] = Math.floor(address / HIGH)
        this.#words[at + 2] = length - left
        return
      }
      left -= length
      this.#first++
    }
  }
}
