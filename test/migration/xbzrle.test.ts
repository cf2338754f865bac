// XBZRLE from program to program: a little of many pages changes over several passes, and only that is sent.

import { randomFillSync } from 'node:crypto'
import t, { type Test } from 'tap'
import {
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type MigrationStatistics,
  MultifdError,
  type PassInfo,
  RamBlock,
} from '../../src/index.js'
import type { MigrateOptions } from '../../src/migration/source.js'
import { allocate, checksums, fillNoise, misplaced, PAGE, stampAll, Writer } from '../support/peers/index.js'

const MiB = 1024 * 1024
const XBZRLE = { multifd: false, xbzrle: true }

t.setTimeout(120_000)

async function migrate(
  ram: RamBlock[],
  theirs: RamBlock[],
  parameters: Partial<MigrationParameters>,
  hooks: MigrateOptions & { onPass?: (info: PassInfo) => void } = {},
): Promise<{ sent: MigrationStatistics; received: MigrationStatistics }> {
  const destination = new MigrationDestination({ ram: theirs, parameters: { multifd: false } })
  const source = new MigrationSource({ ram, parameters })
  if (hooks.onPass) source.on('pass', hooks.onPass)
  const sent = await source.migrate(await destination.listen('tcp:127.0.0.1:0'), hooks)
  return { sent, received: await destination.completed }
}

/** Changes a byte in every page of a block every now and then, until it is stopped. */
class SmallChanges {
  count = 0
  readonly #block: RamBlock
  readonly #timer: NodeJS.Timeout

  constructor(block: RamBlock, everyMs: number) {
    this.#block = block
    this.#timer = setInterval(() => this.#change(), everyMs)
  }

  #change(): void {
    const { pages, size } = this.#block
    const bytes = this.#block.bytes()
    for (let page = 0; page < pages; page++) bytes[page * PAGE + ((this.count * 61) % PAGE)]!++
    this.count++
    this.#block.markDirty(0, size)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

function bothAgree(t: Test, { sent, received }: { sent: MigrationStatistics; received: MigrationStatistics }): void {
  const { xbzrleCache } = sent
  t.ok(xbzrleCache, 'the source tells of XBZRLE')
  t.strictSame(
    received.xbzrleCache,
    {
      cacheSize: 0,
      bytes: xbzrleCache!.bytes,
      pages: xbzrleCache!.pages,
      cacheMiss: 0,
      overflow: 0,
      cacheMissRate: 0,
      encodingRate: 0,
    },
    'as many records came as went',
  )
  for (const name of ['normal', 'duplicate', 'transferred'] as const) {
    t.equal(received.ram[name], sent.ram[name], `both counted the same: ${name}`)
  }
}

t.test('a writer thread changes a little of each page, over several passes', async (t) => {
  // The writer takes the blocks' pages in turn: a hot block, and one that is larger than the cache.
  const ram = allocate([
    { idstr: 'hot', size: 64 * PAGE },
    { idstr: 'warm', size: 1024 * PAGE },
  ])
  const theirs = allocate(ram)
  stampAll(ram)
  const writer = await Writer.start(ram, 1)
  const passes: PassInfo[] = []
  let stopping: Promise<void> | undefined
  const figures = await migrate(
    ram,
    theirs,
    { ...XBZRLE, xbzrleCacheSize: 512 * 1024, maxBandwidth: 6e6, downtimeLimit: 0 },
    {
      onPass: (info) => {
        passes.push(info)
        if (passes.length === 12) stopping = writer.stop()
      },
      stop: () => writer.stop(),
    },
  )
  await stopping
  t.strictSame(misplaced(ram, theirs), [], 'the last content of every page')
  t.ok(passes.length >= 12, `${passes.length} passes`)
  bothAgree(t, figures)
  const { cacheSize, pages, bytes, cacheMiss, cacheMissRate, encodingRate } = figures.sent.xbzrleCache!
  t.equal(cacheSize, 512 * 1024)
  t.ok(pages > 100, `${pages} pages as changes`)
  t.ok(bytes < pages * 1500, `in ${bytes} bytes`)
  t.ok(cacheMiss > 0, `${cacheMiss} pages without a place in the cache`)
  t.ok(cacheMissRate >= 0 && cacheMissRate <= 1 && encodingRate >= 0, `${cacheMissRate} missed, ${encodingRate}`)
})

t.test('a network that is too slow for the pages is fast enough for their changes', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 8 * MiB }])
  fillNoise(ram[0]!)
  const theirs = allocate(ram)
  const changes = new SmallChanges(ram[0]!, 10)
  t.teardown(() => changes.stop())
  const passes: PassInfo[] = []
  // All pages take half a second; what changes of them, some milliseconds.
  const parameters = { ...XBZRLE, maxBandwidth: 16 * MiB, downtimeLimit: 100 }
  const hooks = { onPass: (info: PassInfo) => passes.push(info), stop: () => changes.stop() }
  const figures = await migrate(ram, theirs, parameters, hooks)
  t.strictSame(checksums(theirs), checksums(ram))
  bothAgree(t, figures)
  const { sent } = figures
  const estimates = passes.map(({ expectedDowntime }) => Math.round(expectedDowntime))
  t.ok(estimates[0]! > 300, `whole pages would take too long: ${estimates} ms`)
  t.ok(passes.length < 10, `it ends after ${passes.length} passes`)
  const { pages, bytes, cacheMiss, overflow } = sent.xbzrleCache!
  t.ok(pages >= 2048 && bytes < pages * 500, `${pages} pages in ${bytes} bytes`)
  t.strictSame(
    { cacheMiss, overflow },
    { cacheMiss: 2048, overflow: 0 },
    'each page was whole once more, for the cache',
  )
})

t.test('pages that were marked and did not change are not sent again', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 2 * MiB }])
  fillNoise(ram[0]!)
  const theirs = allocate(ram)
  const timer = setInterval(() => ram[0]!.markDirty(0, ram[0]!.size), 5)
  t.teardown(() => clearInterval(timer))
  let passes = 0
  const figures = await migrate(
    ram,
    theirs,
    { ...XBZRLE, maxBandwidth: 20 * MiB, downtimeLimit: 0 },
    {
      onPass: () => {
        if (++passes === 5) clearInterval(timer)
      },
      stop: () => clearInterval(timer),
    },
  )
  t.strictSame(checksums(theirs), checksums(ram))
  t.ok(figures.sent.ram.dirtySyncCount >= 3)
  t.equal(figures.sent.ram.normal, 2 * 512, 'once in the first pass, once for the cache')
  t.equal(figures.sent.xbzrleCache!.pages, 0)
  t.equal(figures.sent.xbzrleCache!.cacheMiss, 512)
})

t.test('pages become zero, something, and something else altogether', async (t) => {
  for (const zeroPageDetection of ['legacy', 'none'] as const) {
    const ram = allocate([{ idstr: 'heap', size: 4 * MiB }])
    fillNoise(ram[0]!)
    const theirs = allocate(ram)
    const noise = randomFillSync(new Uint8Array(PAGE))
    let round = 0
    const change = () => {
      round++
      for (let page = 0; page < 1024; page++) {
        const place = ram[0]!.bytes(page * PAGE, PAGE)
        const kind = (page + round) % 4
        if (kind === 0) place.fill(0)
        else if (kind === 1) place.set(noise)
        else place[(page * 17) % PAGE]!++
      }
      ram[0]!.markDirty(0, ram[0]!.size)
    }
    const timer = setInterval(change, 10)
    t.teardown(() => clearInterval(timer))
    let passes = 0
    const figures = await migrate(
      ram,
      theirs,
      { ...XBZRLE, zeroPageDetection, maxBandwidth: 40 * MiB, downtimeLimit: 0 },
      {
        onPass: () => {
          if (++passes === 12) clearInterval(timer)
        },
        stop: () => clearInterval(timer),
      },
    )
    t.strictSame(checksums(theirs), checksums(ram), `the same memory, zero pages: ${zeroPageDetection}`)
    bothAgree(t, figures)
    t.ok(figures.sent.xbzrleCache!.overflow > 0, `${figures.sent.xbzrleCache!.overflow} changed too much`)
    t.ok(figures.sent.xbzrleCache!.pages > 0)
    t.equal(figures.sent.ram.duplicate > 0, zeroPageDetection === 'legacy')
  }
})

t.test('a cache that is full of other pages sends them whole', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 2 * MiB }])
  fillNoise(ram[0]!)
  const theirs = allocate(ram)
  const changes = new SmallChanges(ram[0]!, 10)
  t.teardown(() => changes.stop())
  let passes = 0
  const parameters = { ...XBZRLE, xbzrleCacheSize: 16 * PAGE, maxBandwidth: 20 * MiB, downtimeLimit: 0 }
  const hooks = {
    onPass: () => {
      if (++passes === 6) changes.stop()
    },
    stop: () => changes.stop(),
  }
  const figures = await migrate(ram, theirs, parameters, hooks)
  t.strictSame(checksums(theirs), checksums(ram))
  bothAgree(t, figures)
  const { pages, cacheMiss } = figures.sent.xbzrleCache!
  t.ok(pages >= 16 && cacheMiss >= 4 * (512 - 16), `${pages} as changes, ${cacheMiss} whole`)
})

t.test('without it nothing is told of it, and a second migration starts with an empty cache', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  fillNoise(ram[0]!)
  const plain = await migrate(ram, allocate(ram), { multifd: false })
  t.notOk('xbzrleCache' in plain.sent || 'xbzrleCache' in plain.received)
  const source = new MigrationSource({ ram, parameters: XBZRLE })
  for (const value of [1, 2]) {
    ram[0]!.bytes()[5000] = value
    const theirs = allocate(ram)
    const destination = new MigrationDestination({ ram: theirs, parameters: { multifd: false } })
    const sent = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
    await destination.completed
    t.strictSame(checksums(theirs), checksums(ram))
    t.match(sent.xbzrleCache, { cacheSize: 64 * MiB, pages: 0, bytes: 0, cacheMiss: 0, overflow: 0 })
  }
})

t.test('parameters that do not go together are refused by name', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  const refused = (parameters: Partial<MigrationParameters>, says: RegExp, blocks = ram) => {
    for (const Side of [MigrationSource, MigrationDestination]) {
      try {
        new Side({ ram: blocks, parameters })
        t.fail(`${JSON.stringify(parameters)} was taken`)
      } catch (error) {
        t.match(error, { code: 'ERR_MULTIFD_ARGUMENT', message: says })
        t.ok(error instanceof MultifdError)
      }
    }
  }
  refused({ xbzrle: true }, /multifd is not compatible with xbzrle/)
  refused({ multifd: true, xbzrle: true }, /multifd is not compatible with xbzrle/)
  for (const xbzrleCacheSize of [
    0,
    -4096,
    1,
    512,
    5000,
    3 * MiB,
    4096.5,
    2 ** 60,
    Number.NaN,
    '64M' as unknown as number,
  ]) {
    refused({ ...XBZRLE, xbzrleCacheSize }, /'xbzrleCacheSize' is .*: it must be a power of two, and no less than/)
  }
  for (const xbzrleCacheSize of [PAGE, 64 * MiB, 2 ** 40])
    new MigrationSource({ ram, parameters: { ...XBZRLE, xbzrleCacheSize } })
  new MigrationSource({ ram, parameters: { multifd: true, xbzrle: false, xbzrleCacheSize: PAGE } })

  const large = RamBlock.mapFile({ idstr: 'pc.ram', path: `${t.testdir()}/ram`, size: MiB, pageSize: 16384 })
  t.throws(() => new MigrationSource({ ram: [large], parameters: { ...XBZRLE, xbzrleCacheSize: 8192 } }), {
    code: 'ERR_MULTIFD_ARGUMENT',
    message: /'xbzrleCacheSize' is 8192: it must be no less than a target page/,
  })
  large.close()
})
