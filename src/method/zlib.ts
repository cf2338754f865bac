// Method zlib: one zlib stream a channel for its whole life, with a sync flush at the end of every packet.
// Source of the format: QEMU migration/multifd-zlib.c.

import { constants, createDeflate, createInflate } from 'node:zlib'
import { MultifdError } from '../errors.js'
import { MAX_PAYLOAD_SIZE, MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { CompressedRecv, CompressedSend } from './compressed.js'

// What Node's streams are made of, and the only way to Node's zlib that keeps a stream's state from call to call without
// its event loop, and reads and writes where the pages lie. minizlib stands on the same handle.
interface ZlibHandle {
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
  close(): void
}

interface ZlibStream {
  _handle: ZlibHandle
  /** Bytes of output and of input that the last call left. */
  _writeState: Uint32Array
  on(event: 'error', listener: () => void): void
  close(): void
}

class Zlib {
  readonly #stream: ZlibStream
  #error: string | undefined

  constructor(stream: unknown) {
    this.#stream = stream as ZlibStream
    this.#stream._handle.onerror = (message) => {
      this.#error = message
    }
  }

  /** Runs one step; returns the bytes of input and output that it left. */
  step(
    flush: number,
    input: Uint8Array,
    inputAt: number,
    inputLength: number,
    output: Uint8Array,
    at: number,
    room: number,
  ) {
    this.#stream._handle.writeSync(flush, input, inputAt, inputLength, output, at, room)
    if (this.#error !== undefined) {
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', `zlib can not go on: ${this.#error}`)
    }
    const [outputLeft = 0, inputLeft = 0] = this.#stream._writeState
    return { outputLeft, inputLeft }
  }

  close(): void {
    this.#stream.close()
  }
}

/** @param level 0–9, QEMU's multifd-zlib-level */
export function zlibSend(level: number): CompressedSend {
  const zlib = new Zlib(createDeflate({ level }))
  return new CompressedSend(MULTIFD_FLAG.zlib, {
    compress({ bytes, at, length }, chunk, used, flush) {
      const mode = flush ? constants.Z_SYNC_FLUSH : constants.Z_NO_FLUSH
      const room = MAX_PAYLOAD_SIZE - used
      const { outputLeft, inputLeft } = zlib.step(mode, bytes, at, length, chunk.bytes, used, room)
      if (inputLeft > 0 || outputLeft === 0) {
        throw new MultifdError('ERR_MULTIFD_INTERNAL', 'a compressed packet has no room')
      }
      return MAX_PAYLOAD_SIZE - outputLeft
    },
    close: () => zlib.close(),
  })
}

export function zlibRecv(): CompressedRecv {
  const zlib = new Zlib(createInflate())
  let input: Uint8Array = new Uint8Array()
  let inputAt = 0
  let left = 0
  return new CompressedRecv(MULTIFD_FLAG.zlib, {
    begin(chunk, length) {
      input = chunk.bytes
      inputAt = 0
      left = length
    },
    fill({ bytes, at, length }) {
      const { outputLeft, inputLeft } = zlib.step(constants.Z_SYNC_FLUSH, input, inputAt, left, bytes, at, length)
      inputAt += left - inputLeft
      left = inputLeft
      return length - outputLeft
    },
    get inputLeft() {
      return left
    },
    close: () => zlib.close(),
  })
}
