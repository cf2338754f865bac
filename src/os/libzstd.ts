// The system's libzstd, streaming, on raw addresses.

import { type ErrorCode, MultifdError } from '../errors.js'
import { openLibrary } from './libc.js'
import { Library } from './library.js'
import { PinnedBuffer } from './memory.js'

export interface Libzstd {
  ZSTD_createCCtx(): number
  ZSTD_freeCCtx(context: number): number
  ZSTD_CCtx_setParameter(context: number, parameter: number, value: number): number
  ZSTD_compressStream2(context: number, output: number, input: number, directive: number): number
  ZSTD_createDCtx(): number
  ZSTD_freeDCtx(context: number): number
  ZSTD_DCtx_setParameter(context: number, parameter: number, value: number): number
  ZSTD_decompressStream(context: number, output: number, input: number): number
  ZSTD_isError(code: number | bigint): number
  ZSTD_getErrorName(code: number | bigint): string
}

const DECLARATIONS: Record<keyof Libzstd, string> = {
  ZSTD_createCCtx: 'uintptr_t ZSTD_createCCtx()',
  ZSTD_freeCCtx: 'size_t ZSTD_freeCCtx(uintptr_t)',
  ZSTD_CCtx_setParameter: 'size_t ZSTD_CCtx_setParameter(uintptr_t, int, int)',
  ZSTD_compressStream2: 'size_t ZSTD_compressStream2(uintptr_t, uintptr_t, uintptr_t, int)',
  ZSTD_createDCtx: 'uintptr_t ZSTD_createDCtx()',
  ZSTD_freeDCtx: 'size_t ZSTD_freeDCtx(uintptr_t)',
  ZSTD_DCtx_setParameter: 'size_t ZSTD_DCtx_setParameter(uintptr_t, int, int)',
  ZSTD_decompressStream: 'size_t ZSTD_decompressStream(uintptr_t, uintptr_t, uintptr_t)',
  ZSTD_isError: 'unsigned int ZSTD_isError(size_t)',
  ZSTD_getErrorName: 'const char *ZSTD_getErrorName(size_t)',
}

const LIBRARY = 'libzstd.so.1'
const WINDOW_LOG_MAX = 100
const CONTINUE = 0
const FLUSH = 1
const END = 2
/** Parameters of a compressor: see {@link zstdParameters}. */
const COMPRESSION_LEVEL = 100
const WINDOW_LOG_USED = 101
const FASTEST = 1
const FASTEST_WINDOW_LOG = 17
/** What level 20, QEMU's highest, asks of a decoder: 32 MiB. */
export const WINDOW_LOG = 25

// ZSTD_inBuffer and ZSTD_outBuffer alike: pointer, size, position; 8 bytes each. In words from the first struct's start.
const STRUCT_SIZE = 24
const OUTPUT = 6
const SIZE = 2
const POSITION = 4
const HIGH = 2 ** 32
const FIRST_ERROR = 2 ** 53

export const zstdLibrary = new Library(() => {
  try {
    return openLibrary<Libzstd>(LIBRARY, DECLARATIONS)
  } catch (cause) {
    const install = 'install libzstd (Debian and Ubuntu: libzstd1; Fedora: libzstd), or use Node 22.15 or later'
    const text = `compression zstd needs ${LIBRARY}: ${install}`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', text, { cause })
  }
})

function libzstd(): Libzstd {
  return zstdLibrary.calls
}

/**
 * What a compressor of a level is set to, by zstd's numbers. The fastest level looks back 128 KiB instead of 512: what it
 * works on stays in a core's own cache, which makes it up to 1.8 times as fast, and it finds 0–3 % less.
 */
export function zstdParameters(level: number): Record<number, number> {
  return { [COMPRESSION_LEVEL]: level, ...(level === FASTEST ? { [WINDOW_LOG_USED]: FASTEST_WINDOW_LOG } : {}) }
}

/** Throws ERR_MULTIFD_UNSUPPORTED, with what to install, where there is no libzstd. */
export function requireLibzstd(): void {
  libzstd()
}

// The two structs side by side, as 32-bit words; machines that run this are little-endian.
class Buffers {
  readonly #memory = new PinnedBuffer(2 * STRUCT_SIZE + 80)
  readonly #words = new Uint32Array(this.#memory.bytes.buffer)
  readonly input = this.#memory.address
  readonly output = this.#memory.address + STRUCT_SIZE

  /** @param at 0 for the input, {@link OUTPUT} for the output */
  set(at: number, address: number, size: number, position: number): void {
    const words = this.#words
    words[at] = address % HIGH
    words[at + 1] = address / HIGH
    words[at + SIZE] = size
    words[at + POSITION] = position
  }

  position(at: number): number {
    return this.#words[at + POSITION]!
  }

  size(at: number): number {
    return this.#words[at + SIZE]!
  }
}

// A code of failure is a size_t a little below 2^64, which comes as a bigint.
function check(result: number | bigint, what: string, code: ErrorCode): number {
  if (typeof result === 'number' && result < FIRST_ERROR) return result
  if (libzstd().ZSTD_isError(result) === 0) return Number(result)
  throw new MultifdError(code, `zstd can not ${what}: ${libzstd().ZSTD_getErrorName(result)}`)
}

function checkContext(address: number): number {
  if (Number(address) === 0) throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'there is no memory for zstd')
  return Number(address)
}

/** One frame for the life of the stream; each flush ends a piece that a decoder can turn back whole. */
export class ZstdCompressor {
  readonly #buffers = new Buffers()
  #context: number

  constructor(level: number) {
    this.#context = checkContext(libzstd().ZSTD_createCCtx())
    for (const [parameter, value] of Object.entries(zstdParameters(level))) {
      const result = libzstd().ZSTD_CCtx_setParameter(this.#context, Number(parameter), value)
      check(result, `use level ${level}`, 'ERR_MULTIFD_ARGUMENT')
    }
  }

  /**
   * Compresses `length` bytes at `input` and appends to the output at `output`, of which `used` bytes of `room` are in
   * use. Returns the bytes in use afterwards.
   *
   * @throws MultifdError ERR_MULTIFD_INTERNAL when the output has no room for all of it
   */
  compress(input: number, length: number, output: number, room: number, used: number, flush: boolean): number {
    return this.#run(input, length, output, room, used, flush ? FLUSH : CONTINUE)
  }

  /** Ends the frame; what is compressed next begins another. Returns the bytes in use afterwards. */
  end(output: number, room: number, used: number): number {
    return this.#run(output, 0, output, room, used, END)
  }

  #run(input: number, length: number, output: number, room: number, used: number, directive: number): number {
    const buffers = this.#buffers
    buffers.set(0, input, length, 0)
    buffers.set(OUTPUT, output, room, used)
    for (;;) {
      const { input: from, output: to } = buffers
      const result = libzstd().ZSTD_compressStream2(this.#context, to, from, directive)
      const left = check(result, 'compress', 'ERR_MULTIFD_INTERNAL')
      const done = buffers.position(0) === length && (directive === CONTINUE || left === 0)
      const end = buffers.position(OUTPUT)
      if (done) return end
      if (end === room) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'a compressed packet has no room')
    }
  }

  close(): void {
    if (this.#context !== 0) libzstd().ZSTD_freeCCtx(this.#context)
    this.#context = 0
  }
}

/** The other side of {@link ZstdCompressor}: fed one piece after another. */
export class ZstdDecompressor {
  readonly #buffers = new Buffers()
  #context: number

  constructor() {
    this.#context = checkContext(libzstd().ZSTD_createDCtx())
    const result = libzstd().ZSTD_DCtx_setParameter(this.#context, WINDOW_LOG_MAX, WINDOW_LOG)
    check(result, 'limit its window', 'ERR_MULTIFD_INTERNAL')
  }

  /** Starts on a piece of `length` bytes at `input`. */
  begin(input: number, length: number): void {
    this.#buffers.set(0, input, length, 0)
  }

  /** Bytes of the piece that were not read yet. */
  get inputLeft(): number {
    return this.#buffers.size(0) - this.#buffers.position(0)
  }

  /** Fills `length` bytes at `output`; returns how many it could. @throws MultifdError ERR_MULTIFD_PROTOCOL */
  fill(output: number, length: number): number {
    const buffers = this.#buffers
    buffers.set(OUTPUT, output, length, 0)
    for (let before = -1; ; ) {
      const { input: from, output: to } = buffers
      check(libzstd().ZSTD_decompressStream(this.#context, to, from), 'decompress', 'ERR_MULTIFD_PROTOCOL')
      const filled = buffers.position(OUTPUT)
      // The input may be used up while output is still held back: it goes on as long as something comes.
      const moved = filled + buffers.position(0)
      if (filled === length || moved === before) return filled
      before = moved
    }
  }

  close(): void {
    if (this.#context !== 0) libzstd().ZSTD_freeDCtx(this.#context)
    this.#context = 0
  }
}
