// Streams that end too early or are damaged, over sockets: recvmsg with its full waits, and answers to the source.

import t from 'tap'
import { listCaptures, loadCapture } from '../support/captures.js'
import { channelSpecimen, excerptChannel, type Specimen } from './anatomy.js'
import { Arena } from './arena.js'
import { SocketPairs } from './feed.js'
import { type Damaged, damage, type Random, seededRandom } from './random.js'
import { ArenaTarget, type Ending, FULL, PEER_CODES, receiveChannel, receiveMain, Tally } from './runs.js'
import { SocketWriter } from './socket-writer.js'
import { type ChannelStream, splitChannel, splitMain } from './streams.js'

const CHANNEL_RUNS = FULL ? 50_000 : 3000
const MAIN_RUNS = FULL ? 20_000 : 1500

const recordings = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ main }) => main.length > 0)
  .map((capture) => {
    const stream = splitMain(capture)
    const channels = capture.channels.map((bytes, id) => splitChannel(`${stream.name}, channel ${id}`, bytes))
    // As recorded, with the commands that want an answer.
    return { stream, main: capture.main, channels, arena: new Arena(stream.blocks) }
  })

const writer = await SocketWriter.start()
t.teardown(() => writer.close())

for (const kind of ['unix', 'tcp'] as const) {
  const pairs = new SocketPairs(kind)
  t.teardown(() => pairs.close())

  const over = (bytes: Uint8Array, random: Random, reset: boolean, receive: (fd: number) => Ending): Ending => {
    const { reader, writer: fd } = pairs.open()
    const piece = bytes.length > 200_000 ? 65536 : random.pick([random.below(2000) + 1, 4096, 65536])
    writer.write(fd, bytes, { piece, reset })
    const ending = receive(reader)
    writer.finish()
    return ending
  }

  t.test(`${kind}: ${CHANNEL_RUNS} channels, cut or damaged`, async (t) => {
    const tally = new Tally()
    const random = seededRandom(t)
    const able = recordings.filter(({ channels }) => channels.length > 0)
    while (tally.runs < CHANNEL_RUNS) {
      const { arena, channels } = random.pick(able)
      const { name, bytes, anatomy } = specimenOf(random.pick(channels), random)
      const { bytes: sent, what } =
        random.below(2) === 0 ? cut(bytes, random.below(bytes.length + 1)) : damage(bytes, anatomy, random)
      const words = (): string => `${name}: ${what}`
      tally.run(
        () => over(sent, random, random.below(8) === 0, (fd) => receiveChannel(fd, arena.load())),
        PEER_CODES,
        words,
      )
      if (!arena.nearIntact) tally.problem(`${words()}: wrote outside of its blocks`)
    }
    for (const { arena, stream } of able) t.ok(arena.intact, `${stream.name}: nothing written outside of its blocks`)
    t.comment(tally.summary)
    t.same(tally.problems, [])
  })

  t.test(`${kind}: ${MAIN_RUNS} main streams with what they ask back, cut or damaged`, async (t) => {
    const tally = new Tally()
    const random = seededRandom(t)
    while (tally.runs < MAIN_RUNS) {
      const { arena, stream, main } = random.pick(recordings)
      const target = (): ArenaTarget => new ArenaTarget(arena.blocks, stream.machineType)
      // Mostly in what comes before the pages.
      const place = random.below(3) === 0 ? random.below(main.length + 1) : random.below(300)
      const fields = Array.from({ length: 8 }, () => ({ at: Math.max(0, place - random.below(60)), size: 4 as const }))
      const units = [{ at: place, end: Math.min(main.length, place + 40) }]
      const { bytes: sent, what } = random.below(2) === 0 ? cut(main, place) : damage(main, { fields, units }, random)
      const words = (): string => `${stream.name}: ${what}`
      tally.run(
        () =>
          over(sent, random, random.below(8) === 0, (fd) =>
            receiveMain(fd, target, stream.channels, stream.ignoreShared),
          ),
        PEER_CODES,
        words,
      )
      if (!arena.nearIntact) tally.problem(`${words()}: wrote outside of its blocks`)
    }
    for (const { arena, stream } of recordings)
      t.ok(arena.intact, `${stream.name}: nothing written outside of its blocks`)
    t.comment(tally.summary)
    t.same(tally.problems, [])
  })

  t.test(`${kind}: recorded streams as they are`, async (t) => {
    const random = seededRandom(t)
    for (const { arena, stream, main, channels } of recordings) {
      const target = (): ArenaTarget => new ArenaTarget(arena.blocks, stream.machineType)
      const { code, error } = over(main, random, false, (fd) =>
        receiveMain(fd, target, stream.channels, stream.ignoreShared),
      )
      t.ok(code === 'end' || code === 'ERR_MULTIFD_UNSUPPORTED', `${stream.name}: ${error?.message ?? 'complete'}`)
      for (const { name, bytes } of channels) {
        const ending = over(bytes, random, false, (fd) => receiveChannel(fd, arena.load()))
        t.equal(ending.code, 'end', name)
      }
      t.ok(arena.intact, `${stream.name}: nothing written outside of its blocks`)
    }
  })
}

function specimenOf(channel: ChannelStream, random: Random): Specimen {
  if (channel.bytes.length <= 65536 && random.below(2) === 0) return channelSpecimen(channel)
  return excerptChannel(channel, random, 1 + random.below(3))
}

function cut(bytes: Uint8Array, length: number): Damaged {
  return { bytes: bytes.subarray(0, length), what: `cut at ${length} of ${bytes.length} bytes` }
}
