// Damaged streams: tens of thousands, over descriptors, in the receiver's own loops.

import t from 'tap'
import { listCaptures, loadCapture } from '../support/captures.js'
import { channelSpecimen, excerptChannel, excerptMain } from './anatomy.js'
import { Arena } from './arena.js'
import { FileFeed } from './feed.js'
import { damage, seededRandom } from './random.js'
import { ArenaTarget, FULL, PEER_CODES, receiveChannel, receiveMain, Tally } from './runs.js'
import { splitChannel, splitMain } from './streams.js'

const CHANNEL_RUNS = FULL ? 400_000 : 20_000
const MAIN_RUNS = FULL ? 200_000 : 12_000
/** Channels of at most so many bytes are damaged as a whole, longer ones a few packets at a time. */
const WHOLE_SIZE = 64 * 1024
/** Runs after which every byte of every guard is looked at. */
const BATCH = 250

/** How streams end that are as they were recorded: some have what is not supported. */
const UNDAMAGED = new Set(['end', 'ERR_MULTIFD_UNSUPPORTED'])
// A program has none of a guest's devices, and an excerpt may begin inside one.
const UNDAMAGED_FOR_PROGRAM = new Set([...UNDAMAGED, 'ERR_MULTIFD_DEVICE', 'ERR_MULTIFD_PROTOCOL'])
const MAIN_CODES = new Set([...PEER_CODES, 'ERR_MULTIFD_IO'])

const feed = new FileFeed()
t.teardown(() => feed.close())

const recordings = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ main }) => main.length > 0)
  .map((capture) => {
    const stream = splitMain(capture)
    const channels = capture.channels.map((bytes, id) => splitChannel(`${stream.name}, channel ${id}`, bytes))
    return { stream, channels, arena: new Arena(stream.blocks) }
  })

t.test(`${CHANNEL_RUNS} damaged channels`, async (t) => {
  const tally = new Tally()
  const random = seededRandom(t)
  const able = recordings.filter(({ channels }) => channels.length > 0)
  while (tally.runs < CHANNEL_RUNS) {
    const { channels, arena } = random.pick(able)
    const channel = random.pick(channels)
    const specimen =
      channel.bytes.length <= WHOLE_SIZE && random.below(2) === 0
        ? channelSpecimen(channel)
        : excerptChannel(channel, random, 1 + random.below(3))
    const blocks = arena.load()
    for (let i = 0; i < 25; i++) {
      const { bytes, what } = damage(specimen.bytes, specimen.anatomy, random)
      feed.put(bytes)
      const words = (): string => `run ${tally.runs}: ${specimen.name}: ${what}`
      tally.run(() => receiveChannel(feed.open(), blocks), PEER_CODES, words)
      if (!arena.nearIntact) tally.problem(`${words()}: wrote outside of its blocks`)
    }
    if (tally.runs % BATCH === 0 && !arena.intact) tally.problem(`${specimen.name}: wrote far outside of its blocks`)
  }
  for (const { arena, stream } of able) if (!arena.intact) tally.problem(`${stream.name}: wrote outside of its blocks`)
  t.comment(tally.summary)
  t.same(tally.problems, [])
  t.ok(tally.count('end') > 100, 'some damage is harmless')
})

t.test(`${MAIN_RUNS} damaged main streams`, async (t) => {
  const tally = new Tally()
  const random = seededRandom(t)
  while (tally.runs < MAIN_RUNS) {
    const { stream, arena } = random.pick(recordings)
    // The description is long and of one kind.
    const specimen = excerptMain(stream, random, random.below(4) === 0)
    const keeps = random.below(4) !== 0
    const target = (): ArenaTarget => new ArenaTarget(arena.blocks, stream.machineType, keeps)
    feed.put(specimen.bytes)
    tally.run(
      () => receiveMain(feed.open(), target, 1, stream.ignoreShared),
      keeps ? UNDAMAGED : UNDAMAGED_FOR_PROGRAM,
      () => `${specimen.name}, not damaged`,
    )
    for (let i = 0; i < 24; i++) {
      const { bytes, what } = damage(specimen.bytes, specimen.anatomy, random)
      feed.put(bytes)
      const words = (): string => `run ${tally.runs}: ${specimen.name}: ${what}`
      const { error } = tally.run(
        () => receiveMain(feed.open(), target, random.below(3), stream.ignoreShared),
        MAIN_CODES,
        words,
      )
      // A damaged command may ask for an answer, and a file takes none.
      if (error?.code === 'ERR_MULTIFD_IO' && error.errnoName !== 'EBADF') tally.problem(`${words()}: ${error.message}`)
      if (!arena.nearIntact) tally.problem(`${words()}: wrote outside of its blocks`)
    }
    if (tally.runs % BATCH === 0 && !arena.intact) tally.problem(`${specimen.name}: wrote far outside of its blocks`)
  }
  for (const { arena, stream } of recordings) {
    if (!arena.intact) tally.problem(`${stream.name}: wrote outside of its blocks`)
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
})
