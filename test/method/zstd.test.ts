// The two implementations of zstd, each against the other, and what libzstd makes of another level between packets.

import t from 'tap'
import { IoVector } from '../../src/io/iovec.js'
import type { Compressor } from '../../src/method/compressed.js'
import {
  hasZstd,
  makeZstdCompressor,
  type ZstdImplementation,
  zstdImplementation,
  zstdRecv,
} from '../../src/method/zstd.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock } from '../../src/ram/block.js'
import { PageRuns } from '../../src/shm/page-runs.js'
import { MAX_PAYLOAD_SIZE } from '../../src/wire/multifd-packet.js'
import { fillMixed } from '../support/peers/index.js'

const PAGES = 128
const packets = 4
const { createZstdCompress } = (await import('node:zlib')) as { createZstdCompress?: unknown }
const implementations: ZstdImplementation[] = [
  ...(hasZstd() && zstdImplementation() === 'libzstd' ? (['libzstd'] as const) : []),
  ...(createZstdCompress ? (['node'] as const) : []),
]
const source = RamBlock.allocate({ idstr: 'from', size: packets * PAGES * 4096 })
fillMixed(source)

/** Compresses packet after packet, and puts each into another block; both must then be the same. */
function roundTrip(write: ZstdImplementation, read: ZstdImplementation, compressorFor: (packet: number) => Compressor) {
  const to = RamBlock.allocate({ idstr: 'to', size: source.size })
  const recv = zstdRecv(read)
  let open: Compressor | undefined
  for (let packet = 0; packet < packets; packet++) {
    const chunk = new PinnedBuffer(MAX_PAYLOAD_SIZE)
    const compressor = compressorFor(packet)
    let used = open && open !== compressor ? open.end(chunk, 0) : 0
    open = compressor
    const at = packet * PAGES * 4096
    const input = { address: source.address + at, bytes: source.bytes(), at, length: PAGES * 4096 }
    used = compressor.compress(input, chunk, used, true)
    const runs = PageRuns.alone(PAGES)
    runs.push(packet * PAGES, PAGES)
    const vector = new IoVector(1)
    recv.expect(runs, to, used, vector)
    recv.chunk.bytes.set(chunk.bytes.subarray(0, used))
    recv.finish(runs, to, used)
  }
  recv.close()
  open?.close()
  t.ok(Buffer.compare(to.bytes(), source.bytes()) === 0, `${write} → ${read}`)
}

for (const write of implementations) {
  for (const read of implementations) {
    t.test(`${write} writes, ${read} reads: one frame, and a frame for every other level`, async () => {
      const one = makeZstdCompressor(1, write)
      roundTrip(write, read, () => one)
      const levels = [makeZstdCompressor(1, write), makeZstdCompressor(5, write)]
      roundTrip(write, read, (packet) => levels[packet % 2]!)
    })
  }
}

if (implementations.length === 0) t.pass('no zstd here', { skip: 'no zstd here' })
