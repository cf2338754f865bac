// Compressed payloads that are cut, damaged or exchanged, through the codecs that write into blocks by address.

import t from 'tap'
import { MultifdError } from '../../src/errors.js'
import { DescriptorChannel } from '../../src/io/descriptor-channel.js'
import { IoVector } from '../../src/io/iovec.js'
import type { CompressedRecv } from '../../src/method/compressed.js'
import { zlibRecv } from '../../src/method/zlib.js'
import { zstdRecv } from '../../src/method/zstd.js'
import type { RamBlock } from '../../src/ram/block.js'
import { PageRuns } from '../../src/shm/page-runs.js'
import { viewOf } from '../../src/wire/bytes.js'
import { decodeIdstr, IDSTR_OFFSET, MULTIFD_FLAG } from '../../src/wire/multifd-packet.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import { decodePacketHeader, WholeHeader } from '../support/packet-codec.js'
import { Arena } from './arena.js'
import { FileFeed } from './feed.js'
import { damage, seededRandom } from './random.js'
import { type Ending, endingOf, FULL, Tally } from './runs.js'
import { type ChannelStream, HEADER_SIZE, splitChannel, splitMain } from './streams.js'

const RUNS = FULL ? 50_000 : 1000
const CUT_STRIDE = FULL ? 1 : 503
const PAGES = 128
/** Damage that the method has no check for comes out as other data. */
const MAY_END: ReadonlySet<string> = new Set(['end', 'ERR_MULTIFD_PROTOCOL'])

const METHODS = [
  { name: 'zlib', flag: MULTIFD_FLAG.zlib, open: zlibRecv },
  { name: 'zstd', flag: MULTIFD_FLAG.zstd, open: zstdRecv },
] as const

const recordings = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ channels }) => channels.length > 0)
  .map((capture) => ({
    arena: new Arena(splitMain(capture).blocks),
    channels: capture.channels.map((bytes, id) => splitChannel(`${capture.meta.name}, channel ${id}`, bytes)),
  }))

const feed = new FileFeed()
t.teardown(() => feed.close())

/** A packet with data: its header, decoded and checked, the block that it names, and its chunk. */
interface Chunk {
  header: WholeHeader
  block: RamBlock
  bytes: Uint8Array
}

/** The packets with data of a channel, in order. */
function chunksOf({ bytes, packets }: ChannelStream, arena: Arena): Chunk[] {
  const view = viewOf(bytes)
  return packets.flatMap(({ at, end }) => {
    const header = new WholeHeader(PAGES)
    decodePacketHeader(view, at, PAGES, header)
    if (header.normalPages === 0) return []
    const idstr = decodeIdstr(view, at + IDSTR_OFFSET)
    return {
      header,
      block: arena.blocks.find((block) => block.idstr === idstr)!,
      bytes: bytes.subarray(at + HEADER_SIZE, end),
    }
  })
}

/** Receives chunks one after the other, as a channel does that has read their headers. */
function receive(method: CompressedRecv, chunks: readonly Chunk[]): Ending {
  feed.put(...chunks.map(({ bytes }) => bytes))
  const channel = new DescriptorChannel(feed.open(), 0, () => {})
  const vector = new IoVector()
  try {
    for (const { header, block, bytes } of chunks) {
      const runs = PageRuns.alone(PAGES)
      for (let i = 0; i < header.normalPages; i++) runs.push(header.offsets[i]! / block.pageSize, 1)
      vector.reset()
      method.expect(runs, block, bytes.length, vector)
      channel.readFull(vector, -1)
      method.finish(runs, block, bytes.length)
    }
    return { code: 'end' }
  } catch (thrown) {
    return endingOf(thrown)
  } finally {
    channel.close()
    method.close()
  }
}

function available(open: () => CompressedRecv): boolean {
  try {
    open().close()
    return true
  } catch (error) {
    // The library is not on every machine.
    if (error instanceof MultifdError && error.code === 'ERR_MULTIFD_UNSUPPORTED') return false
    throw error
  }
}

for (const { name, flag, open } of METHODS) {
  const options = available(open) ? {} : { skip: `no ${name} here` }
  const sources = recordings.flatMap(({ arena, channels }) =>
    channels
      .filter(({ packets }) => packets.some(({ method }) => method === flag))
      .map((channel) => ({ arena, channel })),
  )

  t.test(
    `${name}: recorded channels expand; their first chunks, cut at every ${CUT_STRIDE}th byte, do not`,
    options,
    async (t) => {
      const tally = new Tally()
      for (const { arena, channel } of sources) {
        const chunks = chunksOf(channel, arena)
        if (chunks.length === 0) continue
        tally.run(
          () => receive(open(), chunks),
          'end',
          () => channel.name,
        )
        // A stream's state goes from chunk to chunk: the first is enough, and the only one that stands alone.
        const [first] = chunks
        for (let length = 1; length < first!.bytes.length; length += length < 40 ? 1 : CUT_STRIDE) {
          const cut = { ...first!, bytes: first!.bytes.subarray(0, length) }
          const what = (): string => `${channel.name}, ${length} of ${first!.bytes.length} bytes`
          // What is missing at the very end may be the flush's own mark, which makes no bytes.
          const mark = length >= first!.bytes.length - 8
          tally.run(() => receive(open(), [cut]), mark ? MAY_END : 'ERR_MULTIFD_PROTOCOL', what)
          if (!arena.nearIntact) tally.problem(`${what()}: wrote outside of its blocks`)
        }
        if (!arena.intact) tally.problem(`${channel.name}: wrote far outside of its blocks`)
      }
      t.comment(tally.summary)
      t.same(tally.problems, [])
    },
  )

  t.test(`${name}: ${RUNS} channels with a damaged chunk, or pages that are not its own`, options, async (t) => {
    const tally = new Tally()
    const random = seededRandom(t)
    while (tally.runs < RUNS) {
      const { arena, channel } = random.pick(sources)
      const chunks = chunksOf(channel, arena).slice(0, 1 + random.below(3))
      if (chunks.length === 0) continue
      const which = random.below(chunks.length)
      const { bytes, header, block } = chunks[which]!
      let what: string
      if (random.below(4) === 0) {
        // More pages or fewer than the chunk has, all of which are inside the block.
        header.normalPages = 1 + random.below(PAGES)
        for (let i = 0; i < header.normalPages; i++) header.offsets[i] = random.below(block.pages) * block.pageSize
        if (random.below(4) === 0) header.offsets[0] = block.size - block.pageSize
        what = `${header.normalPages} other pages`
      } else {
        const fields = [0, 1, 2, 3, 4, 5, 6, 8, 12, bytes.length - 4].map((at) => ({
          at: Math.max(0, at),
          size: 1 as const,
        }))
        const half = Math.floor(bytes.length / 2)
        const units = [
          { at: 0, end: half },
          { at: half, end: bytes.length },
        ]
        const damaged = damage(bytes, { fields, units }, random)
        // Longer ones, and empty ones, are refused by their header.
        const limited = damaged.bytes.length === 0 ? bytes : damaged.bytes.subarray(0, 2 ** 20)
        chunks[which] = { header, block, bytes: limited }
        what = damaged.what
      }
      const words = (): string => `run ${tally.runs}: ${channel.name}, chunk ${which}: ${what}`
      tally.run(() => receive(open(), chunks), MAY_END, words)
      if (!arena.nearIntact) tally.problem(`${words()}: wrote outside of its blocks`)
    }
    for (const { arena, channel } of sources) {
      if (!arena.intact) tally.problem(`${channel.name}: wrote far outside of its blocks`)
    }
    t.comment(tally.summary)
    t.same(tally.problems, [])
    t.ok(tally.count('ERR_MULTIFD_PROTOCOL') > 100, 'most damage is found')
  })
}
