// Statistics: what they say was sent and received is what somebody between the two sides counted.

import t, { type Test } from 'tap'
import {
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type MigrationStatistics,
  type RamBlock,
} from '../../src/index.js'
import { allocate, fillMixed, fillNoise } from '../support/peers/index.js'
import { CountingProxy } from './counting-proxy.js'

const MIB = 2 ** 20
const SIZE = 8 * MIB

interface Case {
  name: string
  parameters?: Partial<MigrationParameters>
  fill?: (block: RamBlock) => void
  machineType?: string
  /** Whether the program writes while it is migrated, so that pages go again. */
  writes?: true
  looks?: (t: Test, source: MigrationStatistics, destination: MigrationStatistics) => void
}

/** Four passes, each of them long enough for the program to write in. */
const passes: Partial<MigrationParameters> = {
  maxBandwidth: 50 * MIB,
  downtimeLimit: 0,
  maxPasses: 4,
  atLimit: 'switchover',
}

/** A program that changes some of its pages again and again, until it is stopped. */
function program(block: RamBlock): { stop(): void } {
  let round = 0
  const timer = setInterval(() => {
    round++
    for (let page = 0; page < 512; page++) block.bytes()[page * 4096 + (round % 4096)] = round
    block.markDirty(0, 512 * 4096)
  }, 2)
  return { stop: () => clearInterval(timer) }
}

const cases: Case[] = [
  { name: 'one channel', parameters: { multifdChannels: 1 }, fill: fillNoise },
  { name: 'four channels', parameters: { multifdChannels: 4 } },
  { name: 'zero pages only', parameters: { multifdChannels: 8 }, fill: () => {} },
  { name: 'zero pages as records', parameters: { multifdChannels: 2, zeroPageDetection: 'legacy' } },
  { name: 'an older machine', parameters: { multifdChannels: 2 }, machineType: 'pc-i440fx-7.2' },
  { name: 'zlib', parameters: { multifdChannels: 2, multifdCompression: 'zlib' } },
  { name: 'zstd', parameters: { multifdChannels: 2, multifdCompression: 'zstd' } },
  { name: 'adaptive', parameters: { multifdChannels: 2, multifdCompression: 'auto' } },
  { name: 'several passes', parameters: { ...passes, multifdChannels: 2 }, writes: true },
  { name: 'without multifd', parameters: { multifd: false } },
  { name: 'without multifd and return path', parameters: { multifd: false, returnPath: false } },
  {
    name: 'XBZRLE',
    parameters: { ...passes, multifd: false, xbzrle: true },
    fill: fillNoise,
    writes: true,
    looks(t, { xbzrleCache, ram }, destination) {
      t.ok(xbzrleCache!.pages > 500, `${xbzrleCache!.pages} pages as changes`)
      t.match(destination.xbzrleCache, { pages: xbzrleCache!.pages, bytes: xbzrleCache!.bytes })
      t.equal(xbzrleCache!.cacheSize, 64 * MIB)
      t.ok(ram.transferred < SIZE * 1.5, 'less than whole pages would take')
    },
  },
]

for (const { name, parameters, fill = fillMixed, machineType, writes, looks } of cases) {
  t.test(name, async (t) => {
    const [block] = allocate([{ idstr: 'heap', size: SIZE }]) as [RamBlock]
    fill(block)
    const machine = machineType === undefined ? {} : { machineType }
    const source = new MigrationSource({ ram: [block], ...machine, ...(parameters && { parameters }) })
    const { multifd = true, multifdChannels = 2 } = parameters ?? {}
    const destination = new MigrationDestination({
      ram: allocate([block]),
      ...machine,
      parameters: { multifd, multifdChannels },
    })
    const proxy = await CountingProxy.start(await destination.listen('tcp:127.0.0.1:0'))
    t.teardown(() => proxy.close())
    const hooks = writes ? program(block) : {}
    const [sent] = await Promise.all([source.migrate(proxy.uri, hooks), destination.completed])
    await Promise.all([source.close(), destination.close()])
    const received = destination.statistics()!
    const { there } = proxy.bytes
    const close = (bytes: number, what: string): void => {
      t.ok(Math.abs(bytes / there - 1) < 0.01, `${what}: ${bytes}, counted: ${there}`)
    }
    close(sent.ram.transferred, 'sent')
    close(received.ram.transferred, 'received')
    close(
      sent.ram.precopyBytes + sent.ram.downtimeBytes + sent.ram.postcopyBytes,
      'sent before, in and after the downtime',
    )
    t.equal(sent.ram.transferred, source.statistics()!.ram.transferred, 'nothing comes after the end')
    for (const { ram } of [sent, received]) {
      if (multifd) t.ok(ram.multifdBytes > 0 && ram.multifdBytes < ram.transferred)
      else t.equal(ram.multifdBytes, 0)
      t.match(ram, { total: SIZE, pageSize: 4096, remaining: 0, postcopyBytes: 0, dirtySyncMissedZeroCopy: 0 })
      t.equal(ram.normalBytes, ram.normal * ram.pageSize)
    }
    t.equal(received.ram.normal, sent.ram.normal)
    t.equal(received.ram.duplicate, sent.ram.duplicate)
    t.ok(sent.ram.mbps > 0 && sent.ram.pagesPerSecond > 0)
    const { totalTime, setupTime = -1, downtime = -1 } = sent
    t.ok(setupTime >= 0 && downtime >= 0 && totalTime >= setupTime + downtime, `${[setupTime, downtime, totalTime]}`)
    looks?.(t, sent, received)
  })
}

t.test('while it runs: what is left becomes less, and what is known is told', async (t) => {
  const [block] = allocate([{ idstr: 'heap', size: SIZE }]) as [RamBlock]
  fillNoise(block)
  const source = new MigrationSource({ ram: [block], parameters: { maxBandwidth: 20 * MIB, downtimeLimit: 10 } })
  t.equal(source.statistics(), undefined)
  const destination = new MigrationDestination({ ram: allocate([block]) })
  const migrated = source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  const looks: MigrationStatistics[] = []
  const timer = setInterval(() => looks.push(source.statistics()!), 20)
  source.once('passBegin', () => {
    const { remaining } = source.statistics()!.ram
    t.ok(remaining > SIZE * 0.8 && remaining <= SIZE, `${remaining}: nearly all of it at the beginning`)
  })
  await migrated
  clearInterval(timer)
  const active = looks.filter(({ status, ram }) => status === 'active' && ram.dirtySyncCount === 1)
  t.ok(active.length > 5)
  for (const [at, { ram }] of active.entries()) {
    t.ok(at === 0 || ram.remaining <= active[at - 1]!.ram.remaining)
    t.equal(ram.remaining, SIZE - (ram.normal + ram.duplicate) * ram.pageSize)
    t.match(ram, { downtimeBytes: 0, precopyBytes: ram.transferred })
  }
  const last = looks.filter(({ status }) => status === 'active').at(-1)!
  t.type(last.setupTime, 'number')
  await destination.completed
  await Promise.all([source.close(), destination.close()])
})

t.test('a failed one has its reason', async (t) => {
  const [block] = allocate([{ idstr: 'heap', size: MIB }]) as [RamBlock]
  const source = new MigrationSource({ ram: [block] })
  await t.rejects(source.migrate('tcp:127.0.0.1:1'), { code: 'ERR_MULTIFD_CONNECT' })
  t.match(source.statistics(), { status: 'failed', errorDesc: /127\.0\.0\.1/ })
})
