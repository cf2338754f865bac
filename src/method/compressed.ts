// What the streaming methods share: a payload of one chunk, which is compressed from and decompressed into blocks.

import { MultifdError } from '../errors.js'
import { checkedAddress, type IoVector } from '../io/iovec.js'
import { PinnedBuffer, zeroPage } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { PageRuns } from '../shm/page-runs.js'
import { MAX_PAYLOAD_SIZE } from '../wire/multifd-packet.js'
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
  /** Appends the end of the stream; what is compressed next begins another. Returns the bytes in use then. */
  end(chunk: PinnedBuffer, used: number): number
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
export function spanOf(block: RamBlock, offset: number, length: number): Span {
  const { bytes, at, length: part } = block.place(offset, length)
  return { address: checkedAddress(block, offset, part), bytes, at, length: part }
}

function zeros(length: number): Span {
  const { address, bytes } = zeroPage(length)
  return { address, bytes, at: 0, length }
}

export class CompressedSend implements SendMethod {
  readonly flag: number
  readonly #compressor: Compressor
  readonly #chunk = new PinnedBuffer(MAX_PAYLOAD_SIZE)
  readonly #range = { address: this.#chunk.address, size: MAX_PAYLOAD_SIZE }

  constructor(flag: number, compressor: Compressor) {
    this.flag = flag
    this.#compressor = compressor
  }

  prepare(runs: PageRuns, block: RamBlock, into: IoVector): number {
    const { populated } = block
    let used = 0
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      const last = run + 1 === runs.count
      for (let page = runs.first(run); page < end; ) {
        // A file may have anything where a page is known to be zero.
        const known = populated !== undefined && !populated.has(page)
        const next = known ? page + 1 : populated ? populated.next(page, false, end) : end
        used = this.#compress(block, page, next, known, last && next === end, used)
        page = next
      }
    }
    into.push(this.#range, 0, used)
    return used
  }

  #compress(block: RamBlock, first: number, end: number, zero: boolean, flush: boolean, before: number): number {
    const { pageSize } = block
    let used = before
    for (let at = first * pageSize; at < end * pageSize; ) {
      const left = end * pageSize - at
      const input = zero ? zeros(left) : spanOf(block, at, left)
      at += input.length
      used = this.#compressor.compress(input, this.#chunk, used, flush && input.length === left)
    }
    return used
  }

  close(): void {
    this.#compressor.close()
  }
}

export class CompressedRecv implements RecvMethod {
  readonly flag: number
  readonly #decompressor: Decompressor
  /** Where a payload lies before it is expanded. */
  readonly chunk = new PinnedBuffer(MAX_PAYLOAD_SIZE)
  readonly #range = { address: this.chunk.address, size: MAX_PAYLOAD_SIZE }

  readonly #spillByte = new PinnedBuffer(1)
  readonly #spill: Span = { address: this.#spillByte.address, bytes: this.#spillByte.bytes, at: 0, length: 1 }

  constructor(flag: number, decompressor: Decompressor) {
    this.flag = flag
    this.#decompressor = decompressor
  }

  expect(_runs: PageRuns, _block: RamBlock, size: number, into: IoVector): void {
    into.push(this.#range, 0, size)
  }

  finish(runs: PageRuns, block: RamBlock, size: number): void {
    const { pageSize } = block
    const expected = runs.pages * pageSize
    let got = 0
    this.#decompressor.begin(this.chunk, size)
    for (let run = 0; run < runs.count; run++) {
      const offset = runs.first(run) * pageSize
      const length = runs.length(run) * pageSize
      block.makeRoom(offset, length)
      for (let done = 0; done < length; ) {
        const output = spanOf(block, offset + done, length - done)
        const filled = this.#decompressor.fill(output)
        done += filled
        got += filled
        if (filled === output.length) continue
        throw bad(`a chunk of ${size} bytes has ${got} bytes of pages, expected ${expected}`)
      }
    }
    // What is left may be the flush's own mark, which makes no bytes; and what was read may have made more than had room.
    const more = this.#decompressor.fill(this.#spill)
    if (more > 0 || this.#decompressor.inputLeft > 0) {
      throw bad(`a chunk of ${size} bytes expands to more than ${runs.pages} pages`)
    }
  }

  close(): void {
    this.#decompressor.close()
  }
}

function bad(message: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_PROTOCOL', message)
}
