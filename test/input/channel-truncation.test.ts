// Multifd channels that end too early: over descriptors, in the channel thread's own loop.

import t from 'tap'
import { encodeIdstr, encodeSyncPacket } from '../../src/wire/multifd-packet.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import { encodePacketHeader, WholeHeader } from '../support/packet-codec.js'
import { Arena, PAGE } from './arena.js'
import { Seen } from './bytes.js'
import { FileFeed } from './feed.js'
import { seededRandom } from './random.js'
import { FULL, receiveChannel, Tally } from './runs.js'
import { type ChannelStream, HEADER_SIZE, type PacketSpan, splitChannel, splitMain, splitPackets } from './streams.js'

// In page data, what lies between is no different.
const PAYLOAD_STRIDE = FULL ? 1 : 8191
const EDGE = 16
const WHOLE_RUNS = FULL ? 200 : 12

const feed = new FileFeed()
t.teardown(() => feed.close())

interface Recording {
  arena: Arena
  channels: ChannelStream[]
}

const recordings: Recording[] = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ channels }) => channels.length > 0)
  .map((capture) => ({
    arena: new Arena(splitMain(capture).blocks),
    channels: capture.channels.map((bytes, id) => splitChannel(`${capture.meta.name}, channel ${id}`, bytes)),
  }))

/** The SYNC of the set-up, and a packet with one page, on whose data the next header rides. */
function opening(idstr: string): Uint8Array {
  const bytes = new Uint8Array(2 * HEADER_SIZE + PAGE)
  const view = new DataView(bytes.buffer)
  encodeSyncPacket(view, 0, 128, 0)
  const header = new WholeHeader(128)
  header.normalPages = 1
  header.nextPacketSize = PAGE
  encodePacketHeader(view, HEADER_SIZE, header, encodeIdstr(idstr))
  return bytes
}

/** The lengths to cut a packet at, longest first. */
function* cuts({ at, end }: PacketSpan): Generator<number> {
  const data = at + HEADER_SIZE
  for (let length = end; length >= at; length--) {
    const inside = length > data + EDGE && length < end - EDGE
    // Before, at and after each page's last byte.
    const atPage = (length - data + 1) % PAGE <= 2 && (length - data) % (8 * PAGE) < PAGE
    if (!inside || atPage || (end - length) % PAYLOAD_STRIDE === 0) yield length
  }
}

/** How a channel ends that is cut at `length` bytes: what the format says, independently of the receiver. */
function expected({ packets }: ChannelStream, length: number): string {
  let pages = 0
  for (const packet of packets) {
    if (packet.at >= length) break
    if (packet.pages > 0 && packet.method !== 0 && length >= packet.at + HEADER_SIZE) return 'ERR_MULTIFD_PROTOCOL'
    if (packet.end > length) return 'ERR_MULTIFD_TRUNCATED'
    pages = packet.sync ? 0 : pages + packet.pages
  }
  return pages > 0 ? 'ERR_MULTIFD_BARRIER' : 'end'
}

t.test(`channels cut at every byte of every header, and of page data at every ${PAYLOAD_STRIDE}th`, async (t) => {
  const tally = new Tally()
  const seen = new Seen()
  let packets = 0
  for (const { arena, channels } of recordings) {
    const blocks = arena.load()
    const before = opening(arena.blocks[0]!.idstr)
    const opened = splitPackets('', before).packets
    for (const { name, bytes, packets: spans } of channels) {
      for (const span of spans) {
        packets++
        const packet = bytes.subarray(span.at, span.end)
        if (!seen.add(packet)) continue
        feed.put(before, packet)
        const window = {
          name,
          bytes,
          packets: [...opened, { ...span, at: before.length, end: before.length + packet.length }],
        }
        for (const length of cuts(span)) {
          const windowLength = length - span.at + before.length
          feed.cut(windowLength)
          const what = (): string => `${name}, packet at ${span.at}, ${length - span.at} bytes of it`
          tally.run(() => receiveChannel(feed.open(), blocks), expected(window, windowLength), what)
          if (!arena.nearIntact) tally.problem(`${what()}: wrote outside of its blocks`)
        }
      }
      if (!arena.intact) tally.problem(`${name}: wrote far outside of its blocks`)
    }
  }
  t.comment(`${packets} packets; ${tally.summary}`)
  t.same(tally.problems, [])
})

t.test(
  `channels cut between packets, around them, and at ${WHOLE_RUNS} other places, received from their start`,
  async (t) => {
    const tally = new Tally()
    const random = seededRandom(t)
    for (const { arena, channels } of recordings) {
      const blocks = arena.load()
      for (const channel of channels) {
        const { name, bytes, packets } = channel
        const lengths = Array.from({ length: WHOLE_RUNS }, () => random.below(bytes.length + 1))
        // Of the longest channels, some borders.
        const every = FULL ? 1 : Math.ceil(packets.length / 16)
        for (const { end } of packets.filter((_, i) => i % every === 0 || i > packets.length - 4)) {
          lengths.push(end - 1, end, Math.min(end + 1, bytes.length))
        }
        feed.put(bytes)
        for (const length of lengths.sort((a, b) => b - a)) {
          feed.cut(length)
          const what = (): string => `${name}, ${length} of ${bytes.length} bytes`
          tally.run(() => receiveChannel(feed.open(), blocks), expected(channel, length), what)
          if (!arena.nearIntact) tally.problem(`${what()}: wrote outside of its blocks`)
        }
        t.ok(arena.intact, `${name}: nothing written outside of its blocks`)
      }
    }
    t.comment(tally.summary)
    t.same(tally.problems, [])
  },
)

t.test('a compressed channel is refused before anything of it is written', async (t) => {
  for (const { arena, channels } of recordings) {
    for (const { name, bytes, packets } of channels) {
      // Zero pages may come before the first that has data; they clear what is clear.
      if (!packets.some(({ method }) => method !== 0)) continue
      arena.clear()
      feed.put(bytes)
      const { code } = receiveChannel(feed.open(), arena.load())
      t.equal(code, 'ERR_MULTIFD_PROTOCOL', name)
      t.ok(arena.untouched, `${name}: no page written`)
      t.ok(arena.intact, `${name}: nothing written outside of its blocks`)
    }
  }
})
