// The barrier: what it is for, that it holds, and that a batch's pages never end in another block.

import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'

import { FaultPoints, MigrationDestination, MigrationSource, type RamBlock } from '../../src/index.js'
import {
  allocate,
  type Dialect,
  HandSource,
  HEADER_SIZE,
  leavesNothing,
  misplaced,
  openDescriptors,
  PAGE,
  packet,
  pageOf,
  ramSection,
  stampAll,
  streamEnd,
  syncPacket,
  Writer,
} from '../support/peers/index.js'

const older = 1
const newer = 2
const contested = 3 * PAGE
const shape = { idstr: 'heap', size: 8 * PAGE }

/**
 * Two channels. The older copy of a page travels on channel 0, in the pass that the second SYNC ends; the newer one on
 * channel 1, in the pass after. Channel 0 is slow: its older copy is sent only once `held` resolves.
 *
 * @returns what the page holds in the end
 */
async function raceForPage(
  t: Test,
  dialect: Dialect,
  faults: FaultPoints,
  held: (page: Uint8Array, destination: MigrationDestination) => Promise<void>,
): Promise<number> {
  const [heap] = allocate([shape]) as [RamBlock]
  const destination = new MigrationDestination({ ram: [heap], faults })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const source = await HandSource.connect(uri, { blocks: [shape], dialect })
  t.teardown(() => source.destroy())
  const [slow, fast] = [0, 1] as const
  await source.begin()
  // Counted once the set-up is done: without the barrier nothing else keeps the channels' pages behind it.
  while (mainBytes(destination) === 0) await delay(5)
  // Everything that is not held back, on the main channel too: only channel 0 is late.
  source.main.send(ramSection('part', [], dialect), ramSection('end', [], dialect), streamEnd())
  const others = Array.from({ length: 8 }, (_, page) => page * PAGE).filter((offset) => offset !== contested)
  source.channels[fast]!.send(packet({ idstr: 'heap', zeros: others }), syncPacket())
  source.channels[fast]!.send(packet({ idstr: 'heap', pages: [[contested, pageOf(newer)]] }), syncPacket())
  const page = heap.bytes(contested, PAGE)
  await held(page, destination)
  source.channels[slow]!.send(packet({ idstr: 'heap', pages: [[contested, pageOf(older)]] }), syncPacket())
  source.channels[slow]!.send(syncPacket())
  t.equal(await source.word(), 0, 'the destination says that it has everything')
  source.close()
  t.equal((await destination.completed).status, 'completed')
  t.ok(
    page.every((byte) => byte === page[0]),
    'the page is one copy or the other',
  )
  return page[0]!
}

function mainBytes(destination: MigrationDestination): number {
  const { transferred, multifdBytes } = destination.statistics()!.ram
  return transferred - multifdBytes
}

for (const dialect of ['per-round', 'per-section'] as const) {
  t.test(`a page's older copy on a slow channel does not overwrite the newer one (${dialect} marks)`, async (t) => {
    const last = await raceForPage(t, dialect, new FaultPoints([]), async (page, destination) => {
      // Both first SYNCs, channel 1's packet of zero pages and its second SYNC: now it is at the barrier.
      while (destination.statistics()!.ram.multifdBytes < 4 * HEADER_SIZE) await delay(5)
      for (let look = 0; look < 25; look++) {
        if (page[0] !== 0) t.fail(`the newer copy came in over the barrier, as ${page[0]}`)
        await delay(10)
      }
    })
    t.equal(last, newer, 'the newer copy stays')
  })

  t.test(`with the barrier taken out, the older copy does overwrite it (${dialect} marks)`, async (t) => {
    const last = await raceForPage(t, dialect, new FaultPoints(['recv-without-barrier']), async (page) => {
      const deadline = performance.now() + 10_000
      while (page[0] !== newer && performance.now() < deadline) await delay(5)
    })
    t.equal(last, older, 'stale content wins: the test above shows what it says')
  })
}

t.test('a channel that is ahead waits with its pages; one that is behind is waited for', async (t) => {
  const [heap] = allocate([shape]) as [RamBlock]
  const destination = new MigrationDestination({ ram: [heap], parameters: { multifdChannels: 3 } })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const source = await HandSource.connect(uri, { blocks: [shape], channels: 3 })
  t.teardown(() => source.destroy())
  await source.begin()
  // Pass after pass, one channel sends everything at once and another comes last: each page ends with the last pass.
  const passes = 6
  for (let pass = 1; pass <= passes; pass++) {
    const pages = Array.from({ length: 8 }, (_, page) => [page * PAGE, pageOf(pass)] as const)
    source.channels[pass % 3]!.send(packet({ idstr: 'heap', pages }))
    source.sync([pass % 3, (pass + 1) % 3])
    source.main.send(ramSection(pass === passes ? 'end' : 'part', [], 'per-round'))
    await delay(20)
    source.sync([(pass + 2) % 3])
  }
  source.main.send(streamEnd())
  t.equal(await source.word(), 0)
  source.close()
  await destination.completed
  t.ok(
    heap.bytes().every((byte) => byte === passes),
    'every page is the last one sent',
  )
})

const shapes = Array.from({ length: 64 }, (_, block) => ({ idstr: `block-${block}`, size: (2 + (block % 3)) * PAGE }))

const hammers = [
  { channels: 1, zeroPageDetection: 'legacy', maxBandwidth: 0 },
  { channels: 2, zeroPageDetection: 'multifd', maxBandwidth: 40e6 },
  { channels: 4, zeroPageDetection: 'legacy', maxBandwidth: 40e6 },
  { channels: 8, zeroPageDetection: 'multifd', maxBandwidth: 40e6 },
  { channels: 4, zeroPageDetection: 'none', maxBandwidth: 0 },
] as const

for (const { channels, zeroPageDetection, maxBandwidth } of hammers) {
  const title = `pages of 64 small blocks that change all the time stay in their block: ${channels} channels, `
  t.test(`${title}zero pages ${zeroPageDetection}, ${maxBandwidth / 1e6} MB/s`, async (t) => {
    const before = openDescriptors()
    const ours = allocate(shapes)
    const theirs = allocate(shapes)
    stampAll(ours)
    // The smallest limit: the passes go on for as long as they find changed pages.
    const parameters = { multifdChannels: channels, zeroPageDetection, maxBandwidth, downtimeLimit: 0 }
    const destination = new MigrationDestination({ ram: theirs, parameters })
    const source = new MigrationSource({ ram: ours, parameters })
    let passes = 0
    let changes = 0
    // A pass may be so short that nothing changes in it: then the migration is over, and another one begins.
    for (let round = 0; round < 10 && (passes < 20 || changes === 0); round++) {
      const writer = await Writer.start(ours)
      const stopAt20 = (): void => {
        if (++passes === 20) void writer.stop()
      }
      source.on('pass', stopAt20)
      await source.migrate(await destination.listen('tcp:127.0.0.1:0'), { stop: () => writer.stop() })
      await destination.completed
      source.off('pass', stopAt20)
      changes += writer.changes
      t.strictSame(misplaced(ours, theirs), [], 'every page of every block is its own, and the last')
    }
    t.ok(changes > 0, `${passes} passes, ${changes} changes`)
    await leavesNothing(t, before)
  })
}
