// Node's own compressing streams, step by step: their state lasts from call to call, without their event loop.

import type { Transform } from 'node:stream'
import { MultifdError } from '../errors.js'
import type { PinnedBuffer } from '../os/memory.js'
import { MAX_PAYLOAD_SIZE } from '../wire/multifd-packet.js'
import type { Compressor, Decompressor } from './compressed.js'

// What Node's streams are made of, and the only way to them that reads and writes where the pages lie. minizlib stands
// on the same handle.
interface StreamHandle {
  writeSync(
    flush: number,
    input: Uint8Array | null,
    inputAt: number,
    inputLength: number,
    output: Uint8Array,
    outputAt: number,
    outputLength: number,
  ): void
  onerror: (message: string, errno: number, code: string) => void
}

interface StreamInside {
  _handle: StreamHandle
  /** Bytes of output and of input that the last call left. */
  _writeState: Uint32Array
  destroy(): void
}

class Steps {
  readonly #name: string
  readonly #stream: StreamInside
  #error: string | undefined

  constructor(name: string, stream: Transform) {
    this.#name = name
    this.#stream = stream as unknown as StreamInside
    this.#stream._handle.onerror = (message) => {
      this.#error = message
    }
  }

  /** Runs one step; returns the bytes of input and output that it left. */
  step(
    flush: number,
    input: Uint8Array | null,
    inputAt: number,
    inputLength: number,
    output: Uint8Array,
    at: number,
    room: number,
  ) {
    if (this.#error === undefined) {
      this.#stream._handle.writeSync(flush, input, inputAt, inputLength, output, at, room)
    }
    if (this.#error !== undefined) {
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', `${this.#name} can not go on: ${this.#error}`)
    }
    const [outputLeft = 0, inputLeft = 0] = this.#stream._writeState
    return { outputLeft, inputLeft }
  }

  /** Frees the codec's memory, at once. Idempotent. */
  close(): void {
    this.#stream.destroy()
  }
}

/** What a codec calls its directives. */
export interface Directives {
  go: number
  flush: number
  end: number
}

export class NodeCompressor implements Compressor {
  readonly #steps: Steps
  readonly #directives: Directives

  constructor(name: string, stream: Transform, directives: Directives) {
    this.#steps = new Steps(name, stream)
    this.#directives = directives
  }

  compress(
    { bytes, at, length }: { bytes: Uint8Array; at: number; length: number },
    chunk: PinnedBuffer,
    used: number,
    flush: boolean,
  ): number {
    const { go, flush: whole } = this.#directives
    return this.#run(flush ? whole : go, bytes, at, length, chunk, used)
  }

  end(chunk: PinnedBuffer, used: number): number {
    return this.#run(this.#directives.end, null, 0, 0, chunk, used)
  }

  #run(
    directive: number,
    bytes: Uint8Array | null,
    at: number,
    length: number,
    chunk: PinnedBuffer,
    used: number,
  ): number {
    const room = MAX_PAYLOAD_SIZE - used
    const { outputLeft, inputLeft } = this.#steps.step(directive, bytes, at, length, chunk.bytes, used, room)
    if (inputLeft > 0 || outputLeft === 0) {
      throw new MultifdError('ERR_MULTIFD_INTERNAL', 'a compressed packet has no room')
    }
    return MAX_PAYLOAD_SIZE - outputLeft
  }

  close(): void {
    this.#steps.close()
  }
}

export class NodeDecompressor implements Decompressor {
  readonly #steps: Steps
  readonly #flush: number
  #input: Uint8Array = new Uint8Array()
  #inputAt = 0
  #left = 0

  constructor(name: string, stream: Transform, { flush }: Directives) {
    this.#steps = new Steps(name, stream)
    this.#flush = flush
  }

  begin(chunk: PinnedBuffer, length: number): void {
    this.#input = chunk.bytes
    this.#inputAt = 0
    this.#left = length
  }

  fill({ bytes, at, length }: { bytes: Uint8Array; at: number; length: number }): number {
    for (let filled = 0; ; ) {
      const step = this.#steps.step(
        this.#flush,
        this.#input,
        this.#inputAt,
        this.#left,
        bytes,
        at + filled,
        length - filled,
      )
      const read = this.#left - step.inputLeft
      const more = length - filled - step.outputLeft
      this.#inputAt += read
      this.#left = step.inputLeft
      filled += more
      // A step may end at a frame's end: it goes on as long as something comes.
      if (filled === length || (read === 0 && more === 0)) return filled
    }
  }

  get inputLeft(): number {
    return this.#left
  }

  close(): void {
    this.#steps.close()
  }
}
