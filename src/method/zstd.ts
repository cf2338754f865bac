// Method zstd: one frame a channel for its whole life, flushed at the end of every packet. The system's libzstd does it,
// or Node's own zstd where that is missing.
// Source of the format: QEMU migration/multifd-zstd.c.

import type { Transform } from 'node:stream'
import * as zlib from 'node:zlib'
import { MultifdError } from '../errors.js'
import { requireLibzstd, WINDOW_LOG, ZstdCompressor, ZstdDecompressor, zstdParameters } from '../os/libzstd.js'
import type { PinnedBuffer } from '../os/memory.js'
import { MAX_PAYLOAD_SIZE, MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { CompressedRecv, CompressedSend, type Compressor, type Decompressor, type Span } from './compressed.js'
import { NodeCompressor, NodeDecompressor } from './node-stream.js'

// Node's own zstd came with 22.15; its names and numbers are zstd's.
interface NodeZstd {
  createZstdCompress?(options: { params: Record<number, number> }): Transform
  createZstdDecompress?(options: { params: Record<number, number> }): Transform
}
const DIRECTIVES = { go: 0, flush: 1, end: 2 }
const WINDOW_LOG_MAX = 100

/** Which zstd there is. */
export type ZstdImplementation = 'libzstd' | 'node'

/** @throws MultifdError ERR_MULTIFD_UNSUPPORTED, with what to install, where there is none */
export function zstdImplementation(): ZstdImplementation {
  try {
    requireLibzstd()
    return 'libzstd'
  } catch (error) {
    if ((zlib as NodeZstd).createZstdCompress && error instanceof MultifdError) return 'node'
    throw error
  }
}

export function hasZstd(): boolean {
  try {
    zstdImplementation()
    return true
  } catch {
    return false
  }
}

class LibzstdCompressor implements Compressor {
  readonly #zstd: ZstdCompressor

  constructor(level: number) {
    this.#zstd = new ZstdCompressor(level)
  }

  compress({ address, length }: Span, chunk: PinnedBuffer, used: number, flush: boolean): number {
    return this.#zstd.compress(address, length, chunk.address, MAX_PAYLOAD_SIZE, used, flush)
  }

  end(chunk: PinnedBuffer, used: number): number {
    return this.#zstd.end(chunk.address, MAX_PAYLOAD_SIZE, used)
  }

  close(): void {
    this.#zstd.close()
  }
}

class LibzstdDecompressor implements Decompressor {
  readonly #zstd = new ZstdDecompressor()

  begin(chunk: PinnedBuffer, length: number): void {
    this.#zstd.begin(chunk.address, length)
  }

  fill({ address, length }: Span): number {
    return this.#zstd.fill(address, length)
  }

  get inputLeft(): number {
    return this.#zstd.inputLeft
  }

  close(): void {
    this.#zstd.close()
  }
}

/** Exported for the adaptive method, which has one for each of its levels. */
export function makeZstdCompressor(level: number, implementation = zstdImplementation()): Compressor {
  if (implementation === 'libzstd') return new LibzstdCompressor(level)
  const stream = (zlib as NodeZstd).createZstdCompress!({ params: zstdParameters(level) })
  return new NodeCompressor('zstd', stream, DIRECTIVES)
}

function makeZstdDecompressor(implementation: ZstdImplementation): Decompressor {
  if (implementation === 'libzstd') return new LibzstdDecompressor()
  const stream = (zlib as NodeZstd).createZstdDecompress!({ params: { [WINDOW_LOG_MAX]: WINDOW_LOG } })
  return new NodeDecompressor('zstd', stream, DIRECTIVES)
}

/** @param level 0–20, QEMU's multifd-zstd-level */
export function zstdSend(level: number, implementation = zstdImplementation()): CompressedSend {
  return new CompressedSend(MULTIFD_FLAG.zstd, makeZstdCompressor(level, implementation))
}

export function zstdRecv(implementation = zstdImplementation()): CompressedRecv {
  return new CompressedRecv(MULTIFD_FLAG.zstd, makeZstdDecompressor(implementation))
}
