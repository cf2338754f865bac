// What the streaming methods share: a payload of one chunk, which is compressed from and decompressed into blocks.

import { MultifdError } from '../errors.js'
import { checkedAddress, type IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import { MAX_PAYLOAD_SIZE, type PacketHeader, runLength } from '../wire/multifd-packet.js'
import type { RecvMethod, SendMethod } from './method.js'

/** Memory for a codec: by address, and as a part of an array. */
export interface Span {
  address: number
  bytes: Uint8Array
  at: number
  length: number
}

/** A compressor whose state lasts as long as its channel. */
export interface Compressor {
  /** Appends `input` to the chunk, of which `used` bytes are in use; returns the bytes in use then. */
  compress(input: Span, chunk: PinnedBuffer, used: number, flush: boolean): number
  close(): void
}

/** The other side of a {@link Compressor}. */
export interface Decompressor {
  begin(chunk: PinnedBuffer, length: number): void
  /** Fills `output`; returns how many bytes the chunk had for it. */
  fill(output: Span): number
  /** Bytes of the chunk that were not read yet. */
  readonly inputLeft: number
  close(): void
}

/** The part of a run that lies in one array. */
function spanOf(block: RamBlock, offset: number, length: number): Span {
  const place = block.place(offset, length)
  return { ...place, address: checkedAddress(block, offset, place.length) }
}

export class CompressedSend implements SendMethod {
  readonly flag: number
  readonly #compressor: Compressor
  readonly #chunk = new PinnedBuffer(MAX_PAYLOAD_SIZE)
  readonly #range = { address: this.#chunk.address, size: MAX_PAYLOAD_SIZE }
  readonly #zeroPage = new PinnedBuffer(65536)
  readonly #zeros = { address: this.#zeroPage.address, bytes: this.#zeroPage.bytes, at: 0 }

  constructor(flag: number, compressor: Compressor) {
    this.flag = flag
    this.#compressor = compressor
  }

  prepare(header: PacketHeader, block: RamBlock, into: IoVector): void {
    const { normalPages, offsets } = header
    const { pageSize, populated } = block
    let used = 0
    for (let i = 0; i < normalPages; ) {
      const offset = offsets[i]!
      const run = populated ? 1 : runLength(offsets, i, normalPages, pageSize)
      i += run
      // A file may have anything where a page is known to be zero.
      const known = populated && !populated.has(offset / pageSize)
      for (let done = 0; done < run * pageSize; ) {
        const left = run * pageSize - done
        const input = known ? { ...this.#zeros, length: left } : spanOf(block, offset + done, left)
        done += input.length
        used = this.#compressor.compress(input, this.#chunk, used, i === normalPages && input.length === left)
      }
    }
    header.nextPacketSize = used
    into.push(this.#range, 0, used)
  }

  close(): void {
    this.#compressor.close()
  }
}

export class CompressedRecv implements RecvMethod {
  readonly flag: number
  readonly #decompressor: Decompressor
  readonly #chunk = new PinnedBuffer(MAX_PAYLOAD_SIZE)
  readonly #range = { address: this.#chunk.address, size: MAX_PAYLOAD_SIZE }

  readonly #spillByte = new PinnedBuffer(1)
  readonly #spill: Span = { address: this.#spillByte.address, bytes: this.#spillByte.bytes, at: 0, length: 1 }

  constructor(flag: number, decompressor: Decompressor) {
    this.flag = flag
    this.#decompressor = decompressor
  }

  expect({ nextPacketSize }: PacketHeader, _block: RamBlock, into: IoVector): void {
    into.push(this.#range, 0, nextPacketSize)
  }

  finish({ normalPages, nextPacketSize, offsets }: PacketHeader, block: RamBlock): void {
    const { pageSize } = block
    this.#decompressor.begin(this.#chunk, nextPacketSize)
    for (let i = 0; i < normalPages; ) {
      const run = runLength(offsets, i, normalPages, pageSize)
      const offset = offsets[i]!
      block.makeRoom(offset, run * pageSize)
      for (let done = 0; done < run * pageSize; ) {
        const output = spanOf(block, offset + done, run * pageSize - done)
        const filled = this.#decompressor.fill(output)
        done += filled
        if (filled === output.length) continue
        const got = i * pageSize + done
        throw bad(`a chunk of ${nextPacketSize} bytes has ${got} bytes of pages, expected ${normalPages * pageSize}`)
      }
      i += run
    }
    // What is left may be the flush's own mark, which makes no bytes.
    const more = this.#decompressor.inputLeft > 0 ? this.#decompressor.fill(this.#spill) : 0
    if (more > 0 || this.#decompressor.inputLeft > 0) {
      throw bad(`a chunk of ${nextPacketSize} bytes expands to more than ${normalPages} pages`)
    }
  }

  close(): void {
    this.#decompressor.close()
  }
}

function bad(message: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_PROTOCOL', message)
}
