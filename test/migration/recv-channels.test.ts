// A destination with more channels than its threads have from the start: those beyond are the coordinator's until pages come.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import {
  endIdleThreads,
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type RamBlock,
} from '../../src/index.js'
import { threadsFromStart } from '../../src/migration/recv-channels.js'
import {
  allocate,
  checksums,
  type Expected,
  fillMixed,
  HandSource,
  HEADER_SIZE,
  leavesNothing,
  openDescriptors,
  PAGE,
  packet,
  pageOf,
  ramSection,
  rejection,
  streamEnd,
  syncPacket,
  tells,
} from '../support/peers/index.js'

const channels = threadsFromStart() + 4
// Is the coordinator's at first.
const idle = channels - 2
const shape = { idstr: 'heap', size: channels * 128 * PAGE }
const small = { idstr: 'heap', size: PAGE }

t.setTimeout(120_000)

interface Begun {
  destination: MigrationDestination
  ram: RamBlock[]
  source: HandSource
}

async function begin(t: import('tap').Test, parameters: Partial<MigrationParameters> = {}): Promise<Begun> {
  const ram = allocate([shape])
  const destination = new MigrationDestination({ ram, parameters: { multifdChannels: channels, ...parameters } })
  const source = await HandSource.connect(await destination.listen('tcp:127.0.0.1:0'), { blocks: [shape], channels })
  t.teardown(() => source.destroy())
  return { destination, ram, source }
}

/** Every page, on these channels in turn. */
function pagesOn(source: HandSource, which: readonly number[], byte: number): void {
  for (let first = 0; first < shape.size; first += 128 * PAGE) {
    const pages = Array.from({ length: 128 }, (_, at) => [first + at * PAGE, pageOf(byte)] as const)
    source.channels[which[(first / (128 * PAGE)) % which.length]!]!.send(packet({ idstr: 'heap', pages }))
  }
}

async function completes({ destination, ram, source }: Begun, t: import('tap').Test, byte: number): Promise<void> {
  t.equal(await source.word(), 0)
  source.close()
  const statistics = await destination.completed
  t.ok(Buffer.from(ram[0]!.bytes()).every((value) => value === byte))
  t.equal(statistics.ram.normal, shape.size / PAGE)
}

for (const [title, which] of [
  ['channels on which no page comes', [0, 1]],
  ['all pages on one of them', [idle]],
] as const) {
  t.test(title, async (t) => {
    const before = openDescriptors()
    const begun = await begin(t)
    const { destination, source } = begun
    await source.begin()
    for (let pass = 0; pass < 5; pass++) source.barrier()
    pagesOn(source, which, 7)
    // In front of a SYNC: nobody else looks there then.
    while (!destination.statistics()?.ram.normal) await delay(10)
    source.finish()
    await completes(begun, t, 7)
    await leavesNothing(t, before)
  })
}

t.test('all of them at once, in front of the barrier that is waited for', async (t) => {
  const before = openDescriptors()
  const begun = await begin(t)
  const { destination, source } = begun
  await source.begin()
  // The mark first: the coordinator waits for the SYNCs when the pages come.
  source.main.send(ramSection('part', [], source.dialect))
  await delay(50)
  pagesOn(
    source,
    source.channels.map((_, id) => id),
    11,
  )
  source.sync()
  source.finish()
  await completes(begun, t, 11)
  t.equal(destination.status, 'completed')
  await leavesNothing(t, before)
})

t.test('SYNCs of later barriers may be there already', async (t) => {
  const before = openDescriptors()
  const begun = await begin(t)
  const { source } = begun
  await source.begin()
  for (let barrier = 0; barrier < 3; barrier++) source.sync([idle])
  source.channels[idle]!.send(syncPacket().subarray(0, 10))
  const others = source.channels.map((_, id) => id).filter((id) => id !== idle)
  const mark = (type: 'part' | 'end'): void => source.main.send(ramSection(type, [], source.dialect))
  for (let barrier = 0; barrier < 2; barrier++) {
    mark('part')
    source.sync(others)
  }
  pagesOn(source, [0], 3)
  mark('part')
  source.sync(others)
  source.channels[idle]!.send(syncPacket().subarray(10))
  mark('end')
  source.sync(others)
  source.main.send(streamEnd())
  await completes(begun, t, 3)
  await leavesNothing(t, before)
})

t.test('a thread that has started when everything is over', async (t) => {
  const before = openDescriptors()
  for (let round = 0; round < 3; round++) {
    // Threads that are there already would not be late.
    await endIdleThreads()
    const many = channels + 24
    const destination = new MigrationDestination({ ram: allocate([small]), parameters: { multifdChannels: many } })
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const source = await HandSource.connect(uri, { blocks: [small], channels: many })
    await source.begin()
    source.channels[0]!.send(packet({ idstr: 'heap', pages: [[0, pageOf(1)]] }))
    source.finish()
    t.equal(await source.word(), 0)
    source.close()
    await destination.completed
  }
  await leavesNothing(t, before)
})

interface Case extends Expected {
  title: string
  parameters?: Partial<MigrationParameters>
  play(source: HandSource): void
}

const wrong: Case[] = [
  {
    title: 'it ends before its SYNC',
    code: 'ERR_MULTIFD_CLOSED',
    channel: idle,
    says: /: the peer closed it before barrier 2/,
    play(source) {
      source.channels[idle]!.close()
      source.barrier()
    },
  },
  {
    title: 'it ends inside a header',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: idle,
    says: /: the peer closed it inside a packet's header, \d+ bytes short/,
    play(source) {
      source.channels[idle]!.send(syncPacket().subarray(0, 30))
      source.channels[idle]!.close()
      source.barrier()
    },
  },
  {
    title: 'it is reset',
    code: 'ERR_MULTIFD_CLOSED',
    channel: idle,
    says: new RegExp(`^channel ${idle}: `),
    play: (source) => source.channels[idle]!.reset(),
  },
  {
    title: 'it sends what is no packet',
    code: 'ERR_MULTIFD_PROTOCOL',
    channel: idle,
    says: new RegExp(`^channel ${idle}: `),
    play: (source) => source.channels[idle]!.send(Buffer.alloc(HEADER_SIZE, 0x5a)),
  },
  {
    title: 'it says nothing at a barrier',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: new RegExp(`^channel ${idle}: no SYNC for barrier 2, and nothing else came`),
    parameters: { stallTimeoutMs: 500 },
    play(source) {
      source.main.send(ramSection('part', [], source.dialect))
      source.sync(source.channels.flatMap((_, id) => (id === idle ? [] : [id])))
    },
  },
  {
    title: 'its pages come after the last barrier',
    code: 'ERR_MULTIFD_BARRIER',
    channel: idle,
    // Whether the end of the stream is known before them is chance.
    says: /pages after (the last barrier|its last SYNC)/,
    play(source) {
      pagesOn(source, [0], 1)
      source.finish()
      source.channels[idle]!.send(packet({ idstr: 'heap', pages: [[0, pageOf(2)]] }))
    },
  },
]

for (const one of wrong) {
  t.test(`of a channel of the coordinator's: ${one.title}`, async (t) => {
    const before = openDescriptors()
    const { destination, source } = await begin(t, { stallTimeoutMs: 4000, ...one.parameters })
    await source.begin()
    const failed = rejection(destination.completed)
    one.play(source)
    tells(t, await failed, one)
    t.strictSame(destination.threads(), [])
    source.destroy()
    await leavesNothing(t, before)
  })
}

t.test('cancelled while such a channel is waited for', async (t) => {
  const before = openDescriptors()
  const { destination, source } = await begin(t)
  await source.begin()
  source.main.send(ramSection('part', [], source.dialect))
  while (destination.threads().length <= channels) await delay(5)
  destination.cancel()
  t.match(await rejection(destination.completed), { code: 'ERR_MULTIFD_ABORTED' })
  source.destroy()
  await leavesNothing(t, before)
})

for (const compression of ['none', 'zstd'] as const) {
  t.test(`between two of ours, ${channels} channels, ${compression}`, async (t) => {
    const before = openDescriptors()
    const [ram, theirs] = [allocate([shape]), allocate([shape])]
    for (const block of ram) fillMixed(block)
    const parameters = { multifdChannels: channels, multifdCompression: compression }
    const destination = new MigrationDestination({ ram: theirs, parameters: { multifdChannels: channels } })
    const source = new MigrationSource({ ram, parameters })
    await Promise.all([source.migrate(await destination.listen('tcp:127.0.0.1:0')), destination.completed])
    t.strictSame(checksums(theirs), checksums(ram))
    await leavesNothing(t, before)
  })
}
