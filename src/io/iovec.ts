// Scatter-gather lists for system calls. Every range that reaches one has passed through here.

import { MultifdError } from '../errors.js'
import { PinnedBuffer } from '../os/memory.js'
import { IOVEC_SIZE } from '../shm/layout.js'
import type { PacketMemory } from '../shm/packet-memory.js'
import type { PageRuns } from '../shm/page-runs.js'

/** Entries a single system call takes (IOV_MAX). */
export const IOV_MAX = 1024
const ENTRY_SIZE = IOVEC_SIZE
const ENTRY_MAX = 2 ** 30
const HIGH = 2 ** 32

/** Memory by address: what a range is checked against. */
export interface AddressRange {
  readonly address: number
  /** Bytes. */
  readonly size: number
}

/** Memory by address that consists of pages: a RAM block. */
export interface PageRange extends AddressRange {
  readonly pages: number
  /** Log2 of a page's bytes. */
  readonly pageShift: number
}

/**
 * The address of bytes [offset, offset + length) of a range: the one check between a peer's words and memory. For whole
 * runs of pages, the page kernel's `vectorOf` makes the same one.
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
  readonly #address: number
  readonly #words: Uint32Array
  readonly #capacity: number
  /** Whose memory the list is: held because of its address. */
  protected readonly held: object
  readonly #packet: PacketMemory | undefined
  #first = 0
  #end = 0
  #length = 0
  // End of the last range, and its length, to join the next one to it.
  #tail = -1
  #tailLength = 0

  /** @param room number of entries, or the packet memory that the list lies in */
  constructor(room: number | PacketMemory = IOV_MAX) {
    if (typeof room === 'number') {
      this.#capacity = Math.min(room, IOV_MAX)
      const entries = new PinnedBuffer(ENTRY_SIZE * this.#capacity)
      this.#words = new Uint32Array(entries.bytes.buffer)
      this.#address = entries.address
      this.held = entries
    } else {
      this.#words = room.vector
      this.#capacity = room.vector.length / 4
      this.#address = room.vectorAddress
      this.held = room.memory
      this.#packet = room
    }
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
    return this.#address + ENTRY_SIZE * this.#first
  }

  /** Address of the memory that the first entry still in the list is for. */
  get headAddress(): number {
    const at = this.#first * 4
    return this.#words[at]! + this.#words[at + 1]! * HIGH
  }

  /** Bytes of it. */
  get headLength(): number {
    return this.#words[this.#first * 4 + 2]!
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

  /**
   * Appends the pages of runs, which must lie in the block. The list and the runs lie in one packet memory.
   *
   * @throws MultifdError ERR_MULTIFD_INTERNAL for a run outside
   */
  pushRuns(block: PageRange, runs: PageRuns): void {
    const { count } = runs
    if (!this.#packet || this.#end + count > this.#capacity) {
      throw new MultifdError('ERR_MULTIFD_INTERNAL', 'scatter-gather list is full')
    }
    const { kernel, vectorAt } = this.#packet
    const at = vectorAt + ENTRY_SIZE * this.#end
    const length = kernel.vectorOf(runs.at, count, block.pageShift, block.address, block.pages, at)
    if (length < 0) throw new MultifdError('ERR_MULTIFD_INTERNAL', `pages are outside of ${block.pages} pages`)
    this.#end += count
    this.#length += length
    this.#tail = -1
  }

  /** Takes over a list that the page kernel wrote, which has checked every range of it. */
  wrote(entries: number, length: number): void {
    this.#first = 0
    this.#end = entries
    this.#length = length
    this.#tail = -1
  }

  /** Drops the first `bytes`, which a system call has moved. */
  advance(bytes: number): void {
    if (bytes > this.#length) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'more moved than asked for')
    this.#length -= bytes
    // What nearly always happens: everything moved in one call.
    if (this.#length === 0) {
      this.#first = this.#end
      return
    }
    let left = bytes
    while (left > 0) {
      const at = this.#first * 4
      const length = this.#words[at + 2]!
      if (left < length) {
        const address = this.headAddress + left
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
