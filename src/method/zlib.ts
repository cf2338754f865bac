// Method zlib: one zlib stream a channel for its whole life, with a sync flush at the end of every packet.
// Source of the format: QEMU migration/multifd-zlib.c.

import { constants, createDeflate, createInflate } from 'node:zlib'
import { MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { CompressedRecv, CompressedSend } from './compressed.js'
import { NodeCompressor, NodeDecompressor } from './node-stream.js'

// The most that it may use, twice the default: a larger hash table, and fewer, larger pieces. A twentieth faster, and no worse.
const MEMORY_LEVEL = 9
const DIRECTIVES = { go: constants.Z_NO_FLUSH, flush: constants.Z_SYNC_FLUSH, end: constants.Z_FINISH }

/** @param level 0–9, QEMU's multifd-zlib-level */
export function zlibSend(level: number): CompressedSend {
  const deflate = createDeflate({ level, memLevel: MEMORY_LEVEL })
  return new CompressedSend(MULTIFD_FLAG.zlib, new NodeCompressor('zlib', deflate, DIRECTIVES))
}

export function zlibRecv(): CompressedRecv {
  return new CompressedRecv(MULTIFD_FLAG.zlib, new NodeDecompressor('zlib', createInflate(), DIRECTIVES))
}
