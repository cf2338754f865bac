// Method zstd: one frame a channel for its whole life, flushed at the end of every packet.
// Source of the format: QEMU migration/multifd-zstd.c.

import { ZstdCompressor, ZstdDecompressor } from '../os/libzstd.js'
import { MAX_PAYLOAD_SIZE, MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { CompressedRecv, CompressedSend } from './compressed.js'

/** @param level 0–20, QEMU's multifd-zstd-level */
export function zstdSend(level: number): CompressedSend {
  const zstd = new ZstdCompressor(level)
  return new CompressedSend(MULTIFD_FLAG.zstd, {
    compress: ({ address, length }, chunk, used, flush) =>
      zstd.compress(address, length, chunk.address, MAX_PAYLOAD_SIZE, used, flush),
    close: () => zstd.close(),
  })
}

export function zstdRecv(): CompressedRecv {
  const zstd = new ZstdDecompressor()
  return new CompressedRecv(MULTIFD_FLAG.zstd, {
    begin: (chunk, length) => zstd.begin(chunk.address, length),
    fill: ({ address, length }) => zstd.fill(address, length),
    get inputLeft() {
      return zstd.inputLeft
    },
    close: () => zstd.close(),
  })
}
