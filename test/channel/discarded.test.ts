// Packets with pages of a granule that is discarded here: refused by name however the packet is taken apart.

import t from 'tap'
import { RamBlock } from '../../src/ram/block.js'
import { MemoryLoadBlock } from '../../src/ram/load-block.js'
import { encodeIdstr, encodeSyncPacket } from '../../src/wire/multifd-packet.js'
import { FileFeed } from '../input/feed.js'
import { receiveChannel } from '../input/runs.js'
import { HEADER_SIZE } from '../input/streams.js'
import { encodePacketHeader, WholeHeader } from '../support/packet-codec.js'

const PAGE = 4096
const feed = new FileFeed()
t.teardown(() => feed.close())

/** A packet with the data of `normal` pages, each full of ones, and with `zero` pages. */
function packet(normal: number[], zero: number[]): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + normal.length * PAGE).fill(1, HEADER_SIZE)
  const header = new WholeHeader(128)
  header.normalPages = normal.length
  header.zeroPages = zero.length
  header.nextPacketSize = normal.length * PAGE
  for (const [at, page] of [...normal, ...zero].entries()) header.offsets[at] = page * PAGE
  encodePacketHeader(new DataView(bytes.buffer), 0, header, encodeIdstr('dimm'))
  return bytes
}

function sync(): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE)
  encodeSyncPacket(new DataView(bytes.buffer), 0, 128, 0)
  return bytes
}

function fresh(): { block: RamBlock; load: MemoryLoadBlock } {
  const block = RamBlock.allocate({ idstr: 'dimm', size: 32 * PAGE, discardManager: { granuleSize: 4 * PAGE } })
  block.discardManager!.populate(0, 8 * PAGE)
  return { block, load: new MemoryLoadBlock(block) }
}

const good = packet([0, 7], [2, 3])
const bad: [string, Uint8Array, string][] = [
  ['the first page of one', packet([8], []), '0x8000'],
  ['a run that reaches into one', packet([6, 7, 8, 9], []), '0x8000'],
  ['a zero page', packet([], [31]), '0x1f000'],
  ['a zero page beside good pages', packet([1, 2], [3, 9]), '0x9000'],
]

// The first packet of a block is taken apart field by field, those like it by the page kernel.
for (const [way, before] of [
  ['first', []],
  ['after one like it', [good]],
] as const) {
  for (const [what, bytes, offset] of bad) {
    t.test(`${what}, ${way}`, (t) => {
      const { block, load } = fresh()
      feed.put(sync(), ...before, bytes)
      const { code, error } = receiveChannel(feed.open(), [load])
      t.equal(code, 'ERR_MULTIFD_PROTOCOL')
      t.match(error?.message, `page ${offset} of block 'dimm' lies in a granule that is discarded here`)
      t.equal(load.received.count(), before.length * 4, 'only what came before')
      t.equal(block.residentBytes(8 * PAGE, 24 * PAGE), 0, 'nothing was touched where there is nothing')
      t.end()
    })
  }
}

t.test('pages of what is populated come either way', (t) => {
  const { block, load } = fresh()
  feed.put(sync(), good, packet([1], [4, 5]), sync())
  t.match(receiveChannel(feed.open(), [load]), { code: 'end' })
  t.equal(load.received.count(), 7)
  t.ok(block.bytes(PAGE, PAGE).every((byte) => byte === 1))
  t.end()
})
