// From one program to another: every number of channels, every transport, every kind of page, and what is told of it.

import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type MigrationStatistics,
  type PassInfo,
  RamBlock,
} from '../../src/index.js'
import type { MigrateOptions } from '../../src/migration/source.js'
import { acceptOne, closeDescriptor, openListener, startConnect, unixAddress } from '../../src/os/socket.js'
import {
  allocate,
  Child,
  checksums,
  fillMixed,
  fillNoise,
  leavesNothing,
  migrationThreads,
  misplaced,
  openDescriptors,
  PAGE,
  stampAll,
  Writer,
  worksAgain,
  zeroPagesOfMixed,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
const GiB = 1024 * MiB
const folder = mkdtempSync(join(tmpdir(), 'multifd-roundtrip-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

// A large block, one of a single page, one that no packet's size divides, and one more page at the end.
const shapes = [
  { idstr: 'heap', size: 8 * MiB },
  { idstr: 'tiny', size: PAGE },
  { idstr: 'odd', size: 133 * PAGE },
  { idstr: '/rom@etc/last', size: PAGE },
]
const pages = shapes.reduce((sum, { size }) => sum + size / PAGE, 0)
const zeroPages = shapes.reduce((sum, shape) => sum + zeroPagesOfMixed(shape), 0)

interface Setting {
  parameters?: Partial<MigrationParameters>
  machineType?: string
  uri?: string
  uuid?: string
}

/** Migrates `ram` into blocks of the same shapes; both sides' figures. */
async function migrate(
  ram: RamBlock[],
  theirs: RamBlock[],
  { uri = 'tcp:127.0.0.1:0', ...options }: Setting,
  hooks: MigrateOptions & { onPass?: (info: PassInfo) => void } = {},
): Promise<{ sent: MigrationStatistics; received: MigrationStatistics }> {
  const destination = new MigrationDestination({ ram: theirs, ...options })
  const source = new MigrationSource({ ram, ...options })
  if (hooks.onPass) source.on('pass', hooks.onPass)
  const sent = await source.migrate(await destination.listen(uri), hooks)
  return { sent, received: await destination.completed }
}

function figuresAreRight(
  t: Test,
  { sent, received }: { sent: MigrationStatistics; received: MigrationStatistics },
  multifd: boolean,
) {
  const { ram } = sent
  t.equal(sent.status, 'completed')
  t.equal(received.status, 'completed')
  t.equal(ram.normal + ram.duplicate, pages, 'every page once')
  t.equal(ram.total, pages * PAGE)
  t.equal(ram.normalBytes, ram.normal * PAGE)
  t.equal(ram.remaining, 0)
  t.equal(ram.dirtySyncCount, 2, 'a pass, and the last one')
  t.equal(ram.pageSize, PAGE)
  t.ok(ram.transferred > ram.normalBytes && ram.transferred < ram.normalBytes * 1.1 + MiB, `${ram.transferred} bytes`)
  t.ok(multifd ? ram.multifdBytes > ram.normalBytes : ram.multifdBytes === 0, `${ram.multifdBytes} on the channels`)
  t.ok(ram.mbps > 0 && ram.pagesPerSecond > 0)
  t.ok(sent.totalTime > 0 && sent.setupTime! >= 0 && sent.downtime! >= 0 && sent.downtime! <= sent.totalTime)
  for (const name of ['normal', 'duplicate', 'total', 'transferred', 'multifdBytes'] as const) {
    t.equal(received.ram[name], ram[name], `the destination counted the same: ${name}`)
  }
}

t.before(() => worksAgain(t, new MigrationSource({ ram: allocate([shapes[0]!]) }), allocate([shapes[0]!])))

const counts = [0, 1, 2, 4, 8]
for (const [at, channels] of counts.entries()) {
  for (const transport of ['tcp', 'unix'] as const) {
    const machineType = (at + (transport === 'tcp' ? 0 : 1)) % 2 === 0 ? 'multifd' : 'pc-i440fx-7.2'
    const how = channels === 0 ? 'without multifd' : `on ${channels} channels`
    t.test(`${how} over ${transport}, as ${machineType}`, async (t) => {
      const before = openDescriptors()
      const ram = allocate(shapes)
      for (const block of ram) fillMixed(block)
      const theirs = allocate(shapes)
      const parameters = { multifd: channels > 0, multifdChannels: Math.max(1, channels) }
      const uri = transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(folder, 'socket')}`
      const figures = await migrate(ram, theirs, { parameters, machineType, uri })
      t.strictSame(checksums(theirs), checksums(ram), 'the same memory')
      figuresAreRight(t, figures, channels > 0)
      t.equal(figures.sent.ram.duplicate, zeroPages, 'zero pages are sent as such')
      await leavesNothing(t, before)
    })
  }
}

for (const zeroPageDetection of ['none', 'legacy', 'multifd'] as const) {
  for (const multifd of [true, false]) {
    t.test(`zero pages: ${zeroPageDetection}${multifd ? '' : ', without multifd'}`, async (t) => {
      const ram = allocate(shapes)
      for (const block of ram) fillMixed(block)
      const theirs = allocate(shapes)
      // What was there before gives way, where a page is zero too.
      for (const block of theirs) block.bytes().fill(0x55)
      const figures = await migrate(ram, theirs, { parameters: { zeroPageDetection, multifd } })
      t.strictSame(checksums(theirs), checksums(ram), 'the same memory')
      figuresAreRight(t, figures, multifd)
      t.equal(figures.sent.ram.duplicate, zeroPageDetection === 'none' ? 0 : zeroPages)
    })
  }
}

t.test('pages are all equal, all zero, or noise', async (t) => {
  for (const fill of [0, 0xff, undefined]) {
    const ram = allocate([{ idstr: 'heap', size: 4 * MiB }])
    if (fill === undefined) fillNoise(ram[0]!)
    else ram[0]!.bytes().fill(fill)
    const theirs = allocate(ram)
    const { sent } = await migrate(ram, theirs, {})
    t.strictSame(checksums(theirs), checksums(ram))
    t.equal(sent.ram.duplicate, fill === 0 ? 1024 : 0)
  }
})

t.test('both sides know the uuid', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  const { sent } = await migrate(ram, allocate(ram), { uuid: '00112233-4455-6677-8899-AABBCCDDEEFF' })
  t.equal(sent.status, 'completed')
})

for (const multifd of [true, false]) {
  t.test(`a program writes while it migrates${multifd ? '' : ', without multifd'}`, async (t) => {
    const ram = allocate([
      { idstr: 'heap', size: 32 * MiB },
      { idstr: 'stack', size: 64 * PAGE },
    ])
    const theirs = allocate(ram)
    stampAll(ram)
    const writer = await Writer.start(ram, 1)
    const passes: PassInfo[] = []
    const log: string[] = []
    const parameters = { multifd, maxBandwidth: 200e6, downtimeLimit: 50 }
    const hooks = {
      onPass: (info: PassInfo) => passes.push(info),
      stop: async () => {
        await writer.stop()
        log.push('stop')
      },
      resume: () => void log.push('resume'),
    }
    const { sent } = await migrate(ram, theirs, { parameters }, hooks)
    t.strictSame(misplaced(ram, theirs), [], 'the last content of every page')
    t.strictSame(log, ['stop'], 'stopped once, and never resumed here')
    t.ok(passes.length >= 1 && sent.ram.dirtySyncCount === passes.length + 1, `${passes.length} passes`)
    t.equal(passes[0]!.pass, 1)
    t.equal(passes[0]!.pages, 8192 + 64, 'the first pass has every page')
    t.ok(passes[0]!.remainingPages > 0 && passes[0]!.dirtyPagesRate > 0, 'and what changed in it is sent again')
    t.ok(sent.ram.normal + sent.ram.duplicate > 8192 + 64, `${sent.ram.normal} pages sent`)
  })
}

t.test("the threads have QEMU's names, for the operating system too, and are gone afterwards", async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 16 * MiB }])
  fillNoise(ram[0]!)
  const parameters = { multifdChannels: 3, maxBandwidth: 20e6 }
  const destination = new MigrationDestination({ ram: allocate(ram), parameters })
  const source = new MigrationSource({ ram, parameters })
  t.strictSame(source.threads(), [], 'none before')
  t.equal(source.statistics(), undefined)
  const migrated = source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  // The source's third begins only where there is a third core, or once the first two are not enough.
  const senders = Math.min(3, Math.max(2, availableParallelism()))
  const up = (): boolean => source.threads().length > senders && destination.threads().length === 4
  while (source.status !== 'active' || destination.status !== 'active' || !up()) await delay(10)
  const sides = { src: source.threads(), dst: destination.threads() }
  const alive = migrationThreads()
  t.strictSame(
    sides.src.map(({ name }) => name),
    ['mig/src/main', 'mig/src/send_0', 'mig/src/send_1', 'mig/src/send_2'].slice(0, 1 + senders),
  )
  t.strictSame(
    sides.dst.map(({ name }) => name),
    ['mig/dst/main', 'mig/dst/recv_0', 'mig/dst/recv_1', 'mig/dst/recv_2'],
  )
  for (const { name, threadId } of [...sides.src, ...sides.dst])
    t.equal(alive.get(threadId), name, `${threadId} is ${name}`)
  t.equal(alive.size, 5 + senders, 'and there are no others')
  await Promise.all([migrated, destination.completed])
  await Promise.all([source.close(), destination.close()])
  t.strictSame([source.threads(), destination.threads()], [[], []], 'none afterwards')
  for (let look = 0; migrationThreads().size > 0 && look < 200; look++) await delay(10)
  t.strictSame([...migrationThreads()], [])
})

t.test('maxBandwidth is kept', async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 8 * MiB }])
  fillNoise(ram[0]!)
  for (const multifd of [true, false]) {
    const { sent } = await migrate(ram, allocate(ram), { parameters: { multifd, maxBandwidth: 16 * MiB } })
    const activeMs = sent.totalTime - sent.setupTime!
    t.ok(activeMs > 350, `8 MiB at 16 MiB/s in ${Math.round(activeMs)} ms`)
    t.ok(activeMs < 3000)
  }
})

const residentMiB = (): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024

t.test('pages that are zero on both sides stay without memory', async (t) => {
  const shape = { idstr: 'heap', size: GiB }
  for (const zeroPageDetection of ['multifd', 'legacy'] as const) {
    const before = residentMiB()
    const ram = allocate([shape])
    for (let at = 0; at < 16; at++) ram[0]!.bytes(at * 64 * MiB + 8 * PAGE, PAGE).fill(1 + at)
    const theirs = allocate([shape])
    const { sent } = await migrate(ram, theirs, { parameters: { zeroPageDetection } })
    const growth = residentMiB() - before
    t.equal(sent.ram.normal, 16)
    t.equal(sent.ram.duplicate, 262144 - 16)
    t.ok(growth < 300, `two blocks of 1 GiB took ${Math.round(growth)} MiB`)
    for (let at = 0; at < 16; at++) {
      const place = theirs[0]!.bytes(at * 64 * MiB + 7 * PAGE, 3 * PAGE)
      t.ok(place[PAGE - 1] === 0 && place[PAGE] === 1 + at && place[2 * PAGE - 1] === 1 + at && place[2 * PAGE] === 0)
    }
  }
})

function takes(t: Test, path: string, atMost: number): void {
  const bytes = statSync(path).blocks * 512
  t.ok(bytes <= atMost, `${path} takes ${bytes} bytes`)
}

t.test('a sparse file, mapped, stays sparse on both sides', async (t) => {
  const size = 256 * MiB
  const [from, to] = [join(folder, 'sparse-from'), join(folder, 'sparse-to')]
  const ram = RamBlock.mapFile({ idstr: 'heap', path: from, size })
  const theirs = RamBlock.mapFile({ idstr: 'heap', path: to, size })
  for (let at = 0; at < size; at += 16 * MiB) ram.bytes(at, 3 * PAGE).fill(0x77)
  const { sent } = await migrate([ram], [theirs], {})
  t.equal(sent.ram.normal, 16 * 3)
  t.strictSame(checksums([theirs]), checksums([ram]), 'the same content')
  ram.close()
  theirs.close()
  for (const path of [from, to]) takes(t, path, 16 * MiB)
})

t.test('a block of more than 4 GiB, mapped from a file', async (t) => {
  const size = 6 * GiB
  const [from, to] = [join(folder, 'from'), join(folder, 'to')]
  const offsets = [0, PAGE, 4 * GiB - PAGE, 4 * GiB, 4 * GiB + 5 * MiB, 5 * GiB - PAGE, size - PAGE]
  const ram = RamBlock.mapFile({ idstr: 'pc.ram', path: from, size })
  const theirs = RamBlock.mapFile({ idstr: 'pc.ram', path: to, size })
  for (const [at, offset] of offsets.entries()) {
    ram.bytes(offset, PAGE).fill(1 + at)
  }
  const began = performance.now()
  const { sent } = await migrate([ram], [theirs], {})
  t.ok(performance.now() - began < 30_000, `in ${Math.round(performance.now() - began)} ms`)
  t.equal(sent.ram.total, size)
  t.equal(sent.ram.normal, offsets.length)
  for (const [at, offset] of offsets.entries()) {
    t.ok(
      theirs.bytes(offset, PAGE).every((byte) => byte === 1 + at),
      `the page at ${offset}`,
    )
  }
  for (const offset of [2 * PAGE, 4 * GiB + PAGE, size - 2 * PAGE]) {
    t.ok(
      theirs.bytes(offset, PAGE).every((byte) => byte === 0),
      `nothing at ${offset}`,
    )
  }
  ram.close()
  theirs.close()
  for (const path of [from, to]) takes(t, path, 16 * MiB)
})

t.test('between two processes', async (t) => {
  for (const [channels, uri] of [
    [4, 'tcp:127.0.0.1:0'],
    [2, `unix:${join(folder, 'processes')}`],
    [0, 'tcp:[::1]:0'],
  ] as const) {
    const parameters = { multifd: channels > 0, multifdChannels: Math.max(1, channels) }
    const destination = new Child({ role: 'destination', uri, blocks: shapes, parameters })
    t.teardown(() => destination.destroy())
    const at = await destination.says('listening')
    const source = new Child({ role: 'source', uri: at.uri, blocks: shapes, parameters })
    t.teardown(() => source.destroy())
    const { sums } = await source.says('completed')
    t.strictSame((await destination.says('completed')).sums, sums, 'the same memory')
    t.strictSame(await source.ended(), { code: 0, signal: null }, 'the source ends by itself')
    t.strictSame(await destination.ended(), { code: 0, signal: null }, 'and so does the destination')
  }
})

/** Two ends of a connection, as descriptors of this process. */
async function connectionPair(): Promise<[number, number]> {
  const path = unixAddress(join(folder, 'pair'))
  const listener = openListener(path, 1)
  const { fd } = startConnect(path)
  let other = acceptOne(listener)
  while (other === undefined) {
    await delay(1)
    other = acceptOne(listener)
  }
  closeDescriptor(listener)
  rmSync(join(folder, 'pair'))
  return [fd, other]
}

t.test('over an inherited descriptor, between two processes', async (t) => {
  const [left, right] = await connectionPair()
  const job = { uri: 'fd:3', blocks: shapes, parameters: { multifd: false } }
  const destination = new Child({ role: 'destination', ...job }, left)
  const source = new Child({ role: 'source', ...job }, right)
  t.teardown(() => Promise.all([destination.destroy(), source.destroy()]))
  closeDescriptor(left)
  closeDescriptor(right)
  t.equal((await destination.says('listening')).uri, 'fd:3')
  const { sums } = await source.says('completed')
  t.strictSame((await destination.says('completed')).sums, sums, 'the same memory')
  t.strictSame(await source.ended(), { code: 0, signal: null })
  t.strictSame(await destination.ended(), { code: 0, signal: null })
})

t.test('over a descriptor of this process, which is closed at the end', async (t) => {
  const before = openDescriptors()
  const [left, right] = await connectionPair()
  const ram = allocate(shapes)
  for (const block of ram) fillMixed(block)
  const theirs = allocate(shapes)
  const parameters = { multifd: false }
  const destination = new MigrationDestination({ ram: theirs, parameters })
  await destination.listen(`fd:${left}`)
  await new MigrationSource({ ram, parameters }).migrate(`fd:${right}`)
  await destination.completed
  t.strictSame(checksums(theirs), checksums(ram), 'the same memory')
  await leavesNothing(t, before)
})
