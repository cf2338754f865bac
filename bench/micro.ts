// What one thread does, without a migration around it: zero pages found, packets encoded, packets decoded.

import { RecvLoop } from '../src/channel/recv-loop.js'
import type { Channel } from '../src/io/channel.js'
import { type AddressRange, IoVector } from '../src/io/iovec.js'
import { RecvMethods } from '../src/method/methods.js'
import { NoneSend } from '../src/method/none.js'
import { RamBlock, ZERO_MASK_PAGES } from '../src/ram/block.js'
import { MemoryLoadBlock } from '../src/ram/load-block.js'
import { PacketMemory } from '../src/shm/packet-memory.js'
import {
  encodeBlockName,
  encodeIdstr,
  encodeSyncPacket,
  packetHeaderSize,
  pagesPerPacket,
} from '../src/wire/multifd-packet.js'
import { spread } from './statistics.js'

const PAGE = 4096
const PER_PACKET = pagesPerPacket(PAGE)
const HEADER = packetHeaderSize(PER_PACKET)
const SCANNED = 512 * 1024 ** 2
const PACKETS = 200_000
const ROUNDS = 5

export function micro(say: (text: string) => void): void {
  const block = RamBlock.allocate({ idstr: 'heap', size: SCANNED })
  block.bytes().fill(0) // resident, every page of its own
  line(say, 'zero pages looked for, GB/s a thread', 2, () => SCANNED / 1e9 / seconds(() => scan(block)))
  for (const [step, how] of [
    [1, 'pages together'],
    [2, 'pages apart'],
  ] as const) {
    line(say, `packets encoded a second, ${PER_PACKET} ${how}`, 0, () => PACKETS / seconds(encoder(block, step)))
    line(say, `packets decoded a second, ${PER_PACKET} ${how}`, 0, () => PACKETS / seconds(decoder(block, step)))
  }
}

function line(say: (text: string) => void, what: string, digits: number, measure: () => number): void {
  measure() // the engine compiles
  const { median, min, max } = spread(Array.from({ length: ROUNDS }, measure))
  say(`${what}: ${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`)
}

function seconds(work: () => void): number {
  const began = performance.now()
  work()
  return (performance.now() - began) / 1000
}

// As a sending channel does.
function scan(block: RamBlock): void {
  let zeros = 0
  for (let page = 0; page < block.pages; page += ZERO_MASK_PAGES) {
    if (block.zeroPages(page, ZERO_MASK_PAGES) === -1) zeros += ZERO_MASK_PAGES
  }
  if (zeros !== block.pages) throw new Error(`${zeros} zero pages found, of ${block.pages}`)
}

interface Prepared {
  packet: PacketMemory
  range: AddressRange
  vector: IoVector
}

const METHOD = new NoneSend()

/** Puts one packet's header and scatter-gather list together, by the send loop's own parts. */
function encodeOne({ packet, range, vector }: Prepared, block: RamBlock, packetNum: number): void {
  const { kernel, normal, zero } = packet
  vector.reset()
  vector.push(range, 0, range.size)
  const size = METHOD.prepare(normal, block, vector)
  kernel.encodePacket(packet.headers[0]!.at, 0, size, packetNum, normal.at, zero.at, block.pageShift, PER_PACKET)
}

function prepared(block: RamBlock, step: number): Prepared {
  const packet = PacketMemory.alone()
  const { view, address } = packet.headers[0]!
  for (let page = 0; page < PER_PACKET; page++) packet.normal.push(page * step, 1)
  encodeSyncPacket(view, 0, PER_PACKET, 0)
  encodeBlockName(view, 0, encodeIdstr(block.idstr))
  return { packet, range: { address, size: HEADER }, vector: new IoVector(packet) }
}

function encoder(block: RamBlock, step: number): () => void {
  const made = prepared(block, step)
  return () => {
    for (let i = 0; i < PACKETS; i++) encodeOne(made, block, i)
  }
}

/** The receive loop, on a channel that brings the same packet over and over and leaves the pages alone. */
function decoder(block: RamBlock, step: number): () => void {
  const made = prepared(block, step)
  encodeOne(made, block, 1)
  const { view, at } = made.packet.headers[0]!
  const header = new Uint8Array(view.buffer, at, HEADER)
  const pages = header.slice()
  encodeSyncPacket(view, 0, PER_PACKET, 0)
  const sync = header.slice()
  const heap = new MemoryLoadBlock(block)
  return () => {
    const packet = PacketMemory.alone()
    const place = new Uint8Array(packet.headers[0]!.view.buffer, packet.headers[0]!.at, HEADER)
    let brought = 0
    const readFull = (into: IoVector): number => {
      if (brought > PACKETS + 1) return 0
      place.set(brought === 0 || brought === PACKETS + 1 ? sync : pages)
      brought++
      const { length } = into
      into.advance(length)
      return length
    }
    const context = {
      channel: { name: 0, readFull } as unknown as Channel,
      packet,
      methods: new RecvMethods(),
      pageSize: PAGE,
      blocks: () => [heap],
      reachBarrier: () => 1,
      passBarrier: () => {},
      ending: () => false,
      counted: () => {},
    }
    new RecvLoop(context).run()
    if (brought !== PACKETS + 2) throw new Error(`${brought} packets were read`)
  }
}
