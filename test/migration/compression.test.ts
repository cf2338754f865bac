// Compressed channels: round trips with every method and level, what is agreed on, and payloads that are not what they
// should be.

import { createHash, randomFillSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { constants, deflateSync } from 'node:zlib'
import t, { type Test } from 'tap'
import {
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type MigrationStatistics,
  RamBlock,
} from '../../src/index.js'
import type { Compressor } from '../../src/method/compressed.js'
import { hasZstd, makeZstdCompressor } from '../../src/method/zstd.js'
import type { StreamExtras } from '../../src/migration/source.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import { SnapshotSender } from '../../src/snapshot/send.js'
import { ADAPTIVE_ANSWER, ADAPTIVE_QUESTION } from '../../src/wire/agreement.js'
import { COMMAND } from '../../src/wire/command.js'
import { MULTIFD_FLAG } from '../../src/wire/multifd-packet.js'
import { RETURN_MESSAGE } from '../../src/wire/return-path.js'
import {
  allocate,
  checksums,
  command,
  fillMixed,
  fillNoise,
  HandDestination,
  HandSource,
  HEADER_SIZE,
  leavesNothing,
  misplaced,
  openDescriptors,
  openReturnPath,
  PAGE,
  packet,
  pageOf,
  rejection,
  stampAll,
  streamHead,
  tells,
  Writer,
  worksAgain,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
const shapes = [
  { idstr: 'heap', size: 6 * MiB },
  { idstr: 'tiny', size: PAGE },
  { idstr: 'odd', size: 133 * PAGE },
]
t.setTimeout(300_000)
const haveZstd = hasZstd()
const zstd = haveZstd ? {} : { skip: 'no zstd here' }

interface Setting {
  parameters?: Partial<MigrationParameters>
  theirs?: Partial<MigrationParameters>
  ram?: RamBlock[]
}

/** Migrates mixed pages, checks that they are the same, and that nothing is left. */
async function migrate(t: Test, { parameters = {}, theirs = {}, ram }: Setting) {
  const before = openDescriptors()
  const blocks = ram ?? allocate(shapes)
  if (!ram) for (const block of blocks) fillMixed(block)
  const to = allocate(blocks)
  for (const block of to) block.bytes().fill(0x55)
  const warnings: string[] = []
  const logger = { warn: (_: object, text: string) => warnings.push(text), info() {}, debug() {}, error() {} }
  const destination = new MigrationDestination({ ram: to, parameters: theirs })
  const source = new MigrationSource({ ram: blocks, parameters, logger: logger as never })
  const sent = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  const received = await destination.completed
  await Promise.all([source.close(), destination.close()])
  t.strictSame(checksums(to), checksums(blocks), 'the same memory')
  await leavesNothing(t, before)
  return { sent, received, warnings }
}

function compresses(t: Test, { sent, received }: { sent: MigrationStatistics; received: MigrationStatistics }): void {
  const { multifdBytes, normalBytes } = sent.ram
  t.ok(multifdBytes < 0.6 * normalBytes, `${multifdBytes} bytes for ${normalBytes}`)
  t.equal(received.ram.multifdBytes, multifdBytes, 'both sides counted the same')
}

for (const method of ['zlib', 'zstd'] as const) {
  const options = method === 'zstd' ? zstd : {}
  const name = method === 'zlib' ? 'multifdZlibLevel' : 'multifdZstdLevel'
  for (const level of method === 'zlib' ? [undefined, 0, 9] : [undefined, 0, 20]) {
    t.test(`${method}, level ${level ?? 'by default'}`, options, async (t) => {
      const parameters = { multifdCompression: method, ...(level === undefined ? {} : { [name]: level }) }
      const figures = await migrate(t, { parameters })
      if (!(method === 'zlib' && level === 0)) compresses(t, figures)
      t.equal(figures.sent.multifdCompression, method)
      t.equal(figures.received.multifdCompression, method, 'the destination found out')
    })
  }

  t.test(`${method}: agreed on both sides, each way of zero pages, old and new machine types`, options, async (t) => {
    for (const zeroPageDetection of ['none', 'legacy', 'multifd'] as const) {
      const parameters = { multifdCompression: method, zeroPageDetection, multifdChannels: 3 }
      const theirs = { multifdCompression: method, multifdChannels: 3 }
      const { sent } = await migrate(t, { parameters, theirs })
      t.equal(sent.ram.duplicate > 0, zeroPageDetection !== 'none')
    }
  })

  t.test(`${method}: pages that do not compress, that are zero, that are all equal`, options, async (t) => {
    for (const [fill, level] of [
      [undefined, 0],
      [undefined, 9],
      [0, 1],
      [0xff, 9],
    ] as const) {
      const ram = allocate([{ idstr: 'heap', size: 4 * MiB }])
      if (fill === undefined) fillNoise(ram[0]!)
      else ram[0]!.bytes().fill(fill)
      const levels = { multifdZlibLevel: level, multifdZstdLevel: level }
      const parameters = { multifdCompression: method, zeroPageDetection: 'none' as const, ...levels }
      const { sent } = await migrate(t, { ram, parameters })
      t.equal(sent.ram.normal, 1024)
      t.ok(sent.ram.multifdBytes < 4 * MiB * 1.02, `${sent.ram.multifdBytes} bytes`)
    }
  })

  for (const pageSize of [1024, 16384, 65536]) {
    t.test(`${method}: a machine with pages of ${pageSize} bytes, in mapped files`, options, async (t) => {
      const size = 3 * MiB
      const folder = t.testdir()
      const block = (path: string): RamBlock =>
        RamBlock.mapFile({ idstr: 'pc.ram', path: join(folder, path), size, pageSize })
      const [ram, to] = [block('from'), block('to')]
      for (let at = 0; at < size; at += 8192) {
        const bytes = ram.bytes(at, 8192)
        if (at % 24576 === 0) randomFillSync(Buffer.from(bytes.buffer, bytes.byteOffset, 8192))
        else bytes.fill(at / 8192)
      }
      const parameters = { multifdCompression: method }
      const destination = new MigrationDestination({ ram: [to] })
      const source = new MigrationSource({ ram: [ram], parameters }, extrasOf(pageSize))
      await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
      await destination.completed
      await Promise.all([source.close(), destination.close()])
      t.equal(hashOf(to), hashOf(ram), 'the same content')
      ram.close()
      to.close()
    })
  }

  t.test(`${method}: into a snapshot, and out of it`, options, async (t) => {
    const ram = allocate(shapes)
    for (const block of ram) fillMixed(block)
    const path = join(t.testdir(), 'snapshot')
    const parameters = { multifdCompression: method }
    const receiver = new SnapshotReceiver(path, { parameters })
    const source = new MigrationSource({ ram, parameters })
    await source.migrate(await receiver.listen('tcp:127.0.0.1:0'))
    await receiver.completed
    await Promise.all([source.close(), receiver.close()])
    const to = allocate(shapes)
    for (const block of to) block.bytes().fill(0x55)
    const sender = new SnapshotSender(path, { parameters })
    const destination = new MigrationDestination({ ram: to })
    const figures = await sender.send(await destination.listen('tcp:127.0.0.1:0'))
    const received = await destination.completed
    await Promise.all([sender.close(), destination.close()])
    t.strictSame(checksums(to), checksums(ram), 'the same memory')
    compresses(t, { sent: figures, received })
  })

  t.test(`${method}: a program writes while it migrates`, options, async (t) => {
    const ram = allocate([{ idstr: 'heap', size: 16 * MiB }])
    const to = allocate(ram)
    stampAll(ram)
    const writer = await Writer.start(ram, 1)
    const destination = new MigrationDestination({ ram: to })
    const parameters = { multifdCompression: method, maxBandwidth: 20e6, downtimeLimit: 50 }
    const source = new MigrationSource({ ram, parameters })
    const sent = await source.migrate(await destination.listen('tcp:127.0.0.1:0'), { stop: () => writer.stop() })
    await destination.completed
    t.strictSame(misplaced(ram, to), [], 'the last content of every page')
    t.ok(sent.ram.normal > 4096, `${sent.ram.normal} pages sent`)
  })

  t.test(`${method}: maxBandwidth counts what is on the wire`, options, async (t) => {
    const ram = allocate([{ idstr: 'heap', size: 8 * MiB }])
    // Half of each page is noise.
    const bytes = ram[0]!.bytes()
    for (let at = 0; at < bytes.length; at += PAGE) bytes.set(randomFillSync(Buffer.alloc(PAGE / 2)), at)
    const parameters = { multifdCompression: method, maxBandwidth: 4 * MiB }
    const { sent } = await migrate(t, { ram, parameters })
    const activeMs = sent.totalTime - sent.setupTime!
    const expectedMs = (sent.ram.transferred * 1000) / (4 * MiB)
    t.ok(expectedMs < 1400, 'it is less than the pages, which would take 2000 ms')
    t.ok(activeMs > 0.8 * expectedMs, `${Math.round(activeMs)} ms for what takes ${Math.round(expectedMs)}`)
    t.ok(activeMs < 1900, 'and pages do not count')
  })
}

t.test('auto: agreed between two of ours, packets differ, and figures tell', zstd, async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 48 * MiB }])
  fillMixed(ram[0]!)
  const parameters = { multifdCompression: 'auto', maxBandwidth: 25e6 } as const
  const figures = await migrate(t, { ram, parameters })
  t.equal(figures.sent.multifdCompression, 'adaptive')
  t.equal(figures.received.multifdCompression, 'adaptive')
  const { none, low, high } = figures.sent.multifdPicks!
  t.ok(none > 0 && low + high > 0, JSON.stringify({ none, low, high }))
  t.ok(none + low + high >= 48 * 2, 'every packet')
  t.ok(figures.sent.ram.multifdBytes < 0.8 * figures.sent.ram.normalBytes, 'a slow link is worth compressing')
  t.strictSame(figures.warnings, [])
})

t.test('auto without an agreement is none, and says why', async (t) => {
  for (const [setting, why] of [
    [{ theirs: { multifdCompression: 'none' } }, /the destination does not know it/],
    [{ parameters: { returnPath: false } }, /there is no return path/],
    [{ parameters: { multifd: false }, theirs: { multifd: false } }, /multifd is off/],
  ] as const) {
    const { parameters = {}, theirs = {} } = setting as Setting
    const { sent, warnings } = await migrate(t, { parameters: { multifdCompression: 'auto', ...parameters }, theirs })
    t.equal(sent.multifdCompression, 'none')
    t.equal(sent.multifdPicks, undefined)
    t.match(warnings, [why])
  }
})

t.test('a peer that is not ours sees a PING more, and plain packets', async (t) => {
  const hand = await HandDestination.listen()
  t.teardown(() => hand.destroy())
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  fillMixed(ram[0]!)
  const source = new MigrationSource({ ram, parameters: { multifdCompression: 'auto' } })
  const migrated = source.migrate(hand.uri)
  const main = await hand.main()
  const question = command(COMMAND.ping, word(ADAPTIVE_QUESTION))
  await main.until(() => main.tail.includes(question), 'the question')
  HandDestination.pong(main, 1)
  HandDestination.pong(main, ADAPTIVE_QUESTION)
  await hand.wholeStream()
  HandDestination.say(main, 0)
  const { multifdCompression } = await migrated
  t.equal(multifdCompression, 'none')
})

t.test('a destination answers the question only where it allows it', zstd, async (t) => {
  for (const [multifdCompression, answer] of [
    ['auto', ADAPTIVE_ANSWER],
    ['zstd', ADAPTIVE_QUESTION],
    ['none', ADAPTIVE_QUESTION],
  ] as const) {
    const destination = new MigrationDestination({ ram: allocate([shape]), parameters: { multifdCompression } })
    const source = await HandSource.connect(await destination.listen('tcp:127.0.0.1:0'), { blocks: [shape] })
    await source.openChannels()
    const asked = command(COMMAND.ping, word(ADAPTIVE_QUESTION))
    source.main.send(Buffer.concat([streamHead('multifd'), openReturnPath(), asked]))
    const message = await source.main.take(8)
    t.equal(message.readUInt16BE(0), RETURN_MESSAGE.pong)
    t.equal(message.readUInt32BE(4), answer, multifdCompression)
    await destination.close()
    source.destroy()
  }
})

const shape = { idstr: 'heap', size: 256 * PAGE }
/** The pages that a spoiled packet names. */
const named = Array.from({ length: 64 }, (_, at) => (at * 3 + 5) * PAGE)
const text = Buffer.alloc(named.length * PAGE, 'what pages have in them, ')
for (let at = 0; at < text.length; at += 64) text.writeUInt32BE(at * 7919, at)

/** What a compressor makes of bytes in one packet. */
const chunkOf = {
  zlib: (bytes: Buffer): Buffer => deflateSync(bytes, { level: 1, finishFlush: constants.Z_SYNC_FLUSH }),
  zstd(bytes: Buffer): Buffer {
    const compressor = makeZstdCompressor(1)
    const chunk = compressAll(compressor, bytes)
    compressor.close()
    return chunk
  },
}

function compressAll(compressor: Compressor, bytes: Buffer): Buffer {
  const input = new PinnedBuffer(bytes.length)
  input.bytes.set(bytes)
  const chunk = new PinnedBuffer(MiB)
  const span = { address: input.address, bytes: input.bytes, at: 0, length: bytes.length }
  return Buffer.from(chunk.bytes.subarray(0, compressor.compress(span, chunk, 0, true)))
}

function compressed(flags: number, chunk: Uint8Array, offsets = named): Buffer {
  const pages = offsets.map((offset) => [offset, pageOf(0)] as const)
  const spoil = (header: DataView): void => header.setUint32(20, chunk.length)
  return Buffer.concat([packet({ idstr: 'heap', pages, flags, spoil }).subarray(0, HEADER_SIZE), chunk])
}

interface Spoiled {
  title: string
  parameters?: Partial<MigrationParameters>
  code?: 'ERR_MULTIFD_UNSUPPORTED' | 'ERR_MULTIFD_TRUNCATED'
  says: RegExp
  packets: Buffer[]
  closes?: true
}

function spoiledBy(method: 'zlib' | 'zstd'): Spoiled[] {
  const flag = MULTIFD_FLAG[method]
  const other = method === 'zlib' ? 'zstd' : 'zlib'
  const chunk = chunkOf[method](text)
  const broken = Buffer.from(chunk)
  broken.fill(0xff, chunk.length >> 1, (chunk.length >> 1) + 64)
  const last = named.slice(0, -1)
  return [
    {
      title: 'cut',
      says: /has \d+ bytes of pages, expected 262144/,
      packets: [compressed(flag, chunk.subarray(0, -100))],
    },
    {
      title: 'cut by a closed connection',
      says: /closed it inside page data/,
      code: 'ERR_MULTIFD_TRUNCATED',
      packets: [compressed(flag, chunk).subarray(0, -100)],
      closes: true,
    },
    {
      title: 'corrupted',
      says: new RegExp(`${method} can not|bytes of pages|expands`),
      packets: [compressed(flag, broken)],
    },
    {
      title: 'not a stream of its method at all',
      says: new RegExp(`${method} can not`),
      packets: [compressed(flag, Buffer.alloc(4096, 0x5a))],
    },
    { title: 'more than its pages', says: /expands to more than 63 pages/, packets: [compressed(flag, chunk, last)] },
    {
      title: 'a bomb',
      says: /expands to more than 64 pages/,
      packets: [compressed(flag, chunkOf[method](Buffer.alloc(64 * MiB)))],
    },
    { title: 'no bytes', says: /next_packet_size is 0/, packets: [compressed(flag, Buffer.alloc(0))] },
    {
      title: 'a payload longer than any',
      says: /next_packet_size is 1048577/,
      packets: [compressed(flag, Buffer.alloc(MiB + 1))],
    },
    {
      title: 'another method than agreed',
      parameters: { multifdCompression: other },
      says: new RegExp(`compression method ${method} is not the agreed one, which is ${other}`),
      packets: [compressed(flag, chunk)],
    },
    {
      title: 'another method than the channel began with',
      says: new RegExp(`method none is not the one that the channel began with, which is ${method}`),
      packets: [compressed(flag, chunk), packet({ idstr: 'heap', pages: [[named[0]!, pageOf(1)]] })],
    },
    {
      title: 'another method, by a packet of zero pages',
      says: new RegExp(`method ${other} is not the one that the channel began with, which is ${method}`),
      packets: [compressed(flag, chunk), packet({ idstr: 'heap', zeros: [named[0]!], flags: MULTIFD_FLAG[other] })],
    },
  ]
}

for (const method of ['zlib', 'zstd'] as const) {
  if (method === 'zstd' && !haveZstd) continue
  for (const { title, says, packets, closes, parameters = {}, code = 'ERR_MULTIFD_PROTOCOL' } of spoiledBy(method)) {
    t.test(`${method}, ${title}: refused by name, and nothing written outside its pages`, async (t) => {
      const before = openDescriptors()
      const ram = allocate([shape])
      ram[0]!.bytes().fill(0x55)
      const destination = new MigrationDestination({ ram, parameters })
      const source = await HandSource.connect(await destination.listen('tcp:127.0.0.1:0'), { blocks: [shape] })
      await source.begin()
      for (const bytes of packets) source.channels[1]!.send(bytes)
      if (closes) source.channels[1]!.close()
      else source.sync()
      tells(t, await rejection(destination.completed), { code, says, channel: 1 })
      await destination.close()
      source.destroy()
      const bytes = ram[0]!.bytes()
      const touched = Array.from({ length: ram[0]!.pages }, (_, page) => page * PAGE)
        .filter((at) => !named.includes(at))
        .filter((at) => bytes.subarray(at, at + PAGE).some((byte) => byte !== 0x55))
      t.strictSame(touched, [])
      await leavesNothing(t, before)
    })
  }
}

t.test('hardware methods are refused by name before a byte of RAM is touched', async (t) => {
  for (const name of ['qpl', 'uadk', 'qatzip'] as const) {
    const ram = allocate([shape])
    ram[0]!.bytes().fill(0x55)
    const destination = new MigrationDestination({ ram })
    const source = await HandSource.connect(await destination.listen('tcp:127.0.0.1:0'), { blocks: [shape] })
    await source.begin()
    source.channels[0]!.send(compressed(MULTIFD_FLAG[name], Buffer.alloc(1000)))
    const says = new RegExp(name)
    tells(t, await rejection(destination.completed), { code: 'ERR_MULTIFD_UNSUPPORTED', says, channel: 0 })
    t.ok(ram[0]!.bytes().every((byte) => byte === 0x55))
    source.destroy()
    await destination.close()
    for (const make of [
      () => new MigrationSource({ ram, parameters: { multifdCompression: name as 'none' } }),
      () => new MigrationDestination({ ram, parameters: { multifdCompression: name as 'none' } }),
    ]) {
      t.throws(make, { code: 'ERR_MULTIFD_UNSUPPORTED', message: new RegExp(`compression ${name} wants hardware`) })
    }
  }
})

t.test('levels out of range, and methods without channels, are wrong usage', async (t) => {
  const ram = allocate([shape])
  for (const parameters of [
    { multifdZlibLevel: 10 },
    { multifdZlibLevel: -1 },
    { multifdZstdLevel: 21 },
    { multifdCompression: 'lz4' as 'none' },
    { multifd: false, multifdCompression: 'zlib' as const },
  ]) {
    t.throws(() => new MigrationSource({ ram, parameters }), { code: 'ERR_MULTIFD_ARGUMENT' })
  }
})

const residentMiB = (): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024

t.test("codecs' memory is freed when a migration fails or is cancelled", zstd, async (t) => {
  const ram = allocate([{ idstr: 'heap', size: 16 * MiB }])
  fillNoise(ram[0]!)
  const to = allocate(ram)
  let after = 0
  for (let turn = 0; turn < 10; turn++) {
    const cancelled = turn % 2 === 0
    const destination = new MigrationDestination({ ram: to })
    const parameters = { multifdCompression: 'zstd', multifdZstdLevel: 15, maxBandwidth: 8e6 } as const
    const source = new MigrationSource({ ram, parameters })
    const abort = new AbortController()
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const failed = rejection(source.migrate(uri, { signal: abort.signal }))
    while ((source.statistics()?.ram.normal ?? 0) < 128) await delay(5)
    if (cancelled) abort.abort()
    else await destination.close()
    tells(t, await failed, {
      code: cancelled ? 'ERR_MULTIFD_ABORTED' : ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_REMOTE'],
      says: /./,
    })
    await Promise.all([source.close(), destination.close()])
    if (turn === 3) after = residentMiB()
  }
  // Two channels of that level take about 30 MiB each.
  const growth = residentMiB() - after
  t.ok(growth < 120, `six more took ${Math.round(growth)} MiB`)
  await worksAgain(t, new MigrationSource({ ram, parameters: { multifdCompression: 'zstd' } }), ram)
})

function word(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function hashOf(block: RamBlock): string {
  return createHash('sha1').update(block.bytes()).digest('hex')
}

/** Of a machine whose page size varies. */
function extrasOf(pageSize: number): StreamExtras {
  const json = Buffer.from(JSON.stringify({ page_size: pageSize, devices: [] }))
  const deviceState = Buffer.concat([Buffer.from([0, 6]), word(json.length), json])
  const empty = new Uint8Array()
  return {
    ramSectionId: 0,
    beforeRam: empty,
    afterRam: empty,
    switchoverStart: false,
    deviceState,
    validateUuid: false,
    pageBits: Math.log2(pageSize),
  }
}
