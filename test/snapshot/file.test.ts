// The snapshot as a file: its room on the disk, its name, and what is kept beside it.

import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Packr } from 'msgpackr'
import t, { type Test } from 'tap'
import { inspectSnapshot, MigrationSource, readSnapshot, SnapshotReceiver, SnapshotSender } from '../../src/index.js'
import { blockHashes } from './content.js'
import { filledBlock, PAGE, save } from './program.js'

const PAGES = 2048
const MIB = 1024 * 1024
const UUID = '12345678-9abc-def0-1122-334455667788'
/** Headers, bitmaps, the end; whole blocks of the file system's. */
const BESIDES = 256 * 1024

t.setTimeout(300_000)

function room(path: string): number {
  return statSync(path).blocks * 512
}

for (const multifd of [true, false]) {
  const how = multifd ? 'multifd' : 'no multifd'

  t.test(`zero pages take no room, ${how}`, async (t) => {
    const path = join(t.testdir(), 'x')
    const block = filledBlock('heap', PAGES)
    block.bytes().fill(0, 2 * MIB)
    const { receiver } = await save(path, { ram: [block], parameters: { multifd } })
    await receiver.completed
    t.ok(statSync(path).size > 8 * MIB, 'every page has its place')
    t.ok(room(path) >= 2 * MIB && room(path) < 2 * MIB + BESIDES, `${room(path)} bytes on disk`)
    t.match(inspectSnapshot(path), { allocated: room(path), ram: { size: 8 * MIB, populated: 2 * MIB } })
  })

  t.test(`pages that became zero are given back, ${how}`, async (t) => {
    const path = join(t.testdir(), 'x')
    const block = filledBlock('heap', PAGES)
    const { receiver } = await save(path, { ram: [block], parameters: { multifd } }, () => {
      block.bytes().fill(0, MIB, 7 * MIB)
      block.markDirty(MIB, 6 * MIB)
    })
    await receiver.completed
    const { blocks } = readSnapshot(path)
    t.equal(blocks[0]!.populated.count(), 512)
    t.ok(room(path) < 2 * MIB + BESIDES, `${room(path)} bytes on disk`)
    // What QEMU would read, should it look at a page whose bit is clear.
    const pages = readFileSync(path).subarray(blocks[0]!.pagesOffset, blocks[0]!.pagesOffset + block.size)
    t.equal(Buffer.compare(pages, block.bytes()), 0, 'the places of zero pages read as zeros')
  })

  t.test(`zero pages that are sent as data take no room either, ${how}`, async (t) => {
    const path = join(t.testdir(), 'x')
    const block = filledBlock('heap', PAGES)
    block.bytes().fill(0, 4 * MIB)
    const { receiver } = await save(path, { ram: [block], parameters: { multifd, zeroPageDetection: 'none' } })
    await receiver.completed
    t.equal(receiver.statistics()?.ram.normal, PAGES, 'all of them were data')
    t.equal(readSnapshot(path).blocks[0]!.populated.count(), PAGES / 2)
    t.ok(room(path) < 4 * MIB + BESIDES, `${room(path)} bytes on disk`)
  })
}

t.test('when the source has the word, the file has its name and is whole', async (t) => {
  const path = join(t.testdir(), 'x')
  const block = filledBlock('heap', PAGES)
  // Nothing is waited for on the receiving side.
  const { receiver } = await save(path, { ram: [block] })
  t.notOk(existsSync(`${path}.partial`))
  const [hash] = Object.values(blockHashes(readSnapshot(path)))
  await receiver.completed
  t.equal(hash, Object.values(blockHashes(readSnapshot(path)))[0])
  t.equal(readSnapshot(path).blocks[0]!.populated.count(), PAGES)
})

// A small block is sent before the receiver's threads have begun: the sockets hold it.
async function appears(path: string): Promise<void> {
  for (let waited = 0; !existsSync(path) && waited < 10_000; waited += 10) await sleep(10)
}

t.test('until then the name is what it was', async (t) => {
  const path = join(t.testdir({ x: 'an older file' }), 'x')
  const block = filledBlock('heap', PAGES)
  const { receiver } = await save(path, { ram: [block] }, async () => {
    await appears(`${path}.partial`)
    t.equal(readFileSync(path, 'utf8'), 'an older file')
    t.ok(existsSync(`${path}.partial`))
  })
  await receiver.completed
  t.equal(readSnapshot(path).configuration.machineType, 'multifd')
})

t.test('a migration that fails leaves the older file and no other', async (t) => {
  const dir = t.testdir({ x: 'an older file', 'x.meta': 'beside it' })
  const path = join(dir, 'x')
  const stop = (): never => {
    throw new Error('the program does not stop')
  }
  await t.rejects(save(path, { ram: [filledBlock('heap', PAGES)], uuid: UUID }, stop), { code: 'ERR_MULTIFD_STATE' })
  t.equal(readFileSync(path, 'utf8'), 'an older file')
  t.equal(readFileSync(`${path}.meta`, 'utf8'), 'beside it')
  nothingPartial(t, path)
})

t.test('a name that can not be taken fails the migration on both sides', async (t) => {
  const path = join(t.testdir(), 'x')
  const receiver = new SnapshotReceiver(path)
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  const source = new MigrationSource({ ram: [filledBlock('heap', PAGES)], uuid: UUID })
  const stop = async (): Promise<void> => {
    await appears(`${path}.partial`)
    mkdirSync(path)
  }
  await t.rejects(source.migrate(uri, { stop }), { code: 'ERR_MULTIFD_REMOTE' })
  await t.rejects(receiver.completed, { code: 'ERR_MULTIFD_FILE', message: /x: EISDIR/ })
  nothingPartial(t, path)
})

t.test('what is there and no regular file is refused before anything comes', async (t) => {
  const dir = t.testdir({ folder: {} })
  for (const path of [join(dir, 'folder'), '/dev/null']) {
    const receiver = new SnapshotReceiver(path)
    const refused = { code: 'ERR_MULTIFD_FILE', message: /no regular file/ }
    await t.rejects(receiver.listen('tcp:127.0.0.1:0'), refused)
    nothingPartial(t, path)
  }
})

t.test('the uuid is kept beside the file, and may be lost', async (t) => {
  const path = join(t.testdir(), 'x')
  const { receiver } = await save(path, { ram: [filledBlock('heap', PAGES)], uuid: UUID })
  await receiver.completed
  t.match(inspectSnapshot(path), { uuid: UUID, uuidFrom: 'sidecar' })
  t.notOk(existsSync(`${path}.meta.partial`))
  t.equal(await uuidSentFrom(path), UUID)

  rmSync(`${path}.meta`)
  t.equal(inspectSnapshot(path).uuid, undefined)
  t.equal(await uuidSentFrom(path), undefined)
})

t.test('a damaged sidecar is as good as none', async (t) => {
  const path = join(t.testdir(), 'x')
  const { receiver } = await save(path, { ram: [filledBlock('heap', 16)], uuid: UUID })
  await receiver.completed
  const good = readFileSync(`${path}.meta`)
  const pack = (value: unknown): Buffer => new Packr({ useRecords: false }).pack(value)
  for (const [name, bytes] of Object.entries({
    empty: Buffer.alloc(0),
    'cut off': good.subarray(0, good.length - 5),
    'no msgpack': Buffer.from('no msgpack'),
    'all ones': Buffer.alloc(100, 0xff),
    'a list': pack([UUID]),
    'no object': pack(null),
    'a number for a uuid': pack({ uuid: 1 }),
    'no uuid': pack({ uuid: 'none' }),
    'far too large': pack({ uuid: UUID, more: 'x'.repeat(100_000) }),
  })) {
    writeFileSync(`${path}.meta`, bytes)
    t.equal(inspectSnapshot(path).uuid, undefined, name)
  }
  t.equal(await uuidSentFrom(path), undefined, 'and the file is sent without a uuid')
})

t.test("a file does not inherit an older one's sidecar", async (t) => {
  const path = join(t.testdir(), 'x')
  const block = filledBlock('heap', 16)
  await (await save(path, { ram: [block], uuid: UUID })).receiver.completed
  t.ok(existsSync(`${path}.meta`))
  await (await save(path, { ram: [block] })).receiver.completed
  t.notOk(existsSync(`${path}.meta`))
  t.equal(inspectSnapshot(path).uuid, undefined)
})

t.test('blocks of a program keep their names and sizes', async (t) => {
  const path = join(t.testdir(), 'x')
  const ram = [filledBlock('heap', 300), filledBlock('a name with spaces and ümlauts', 1)]
  await (await save(path, { ram })).receiver.completed
  const info = inspectSnapshot(path)
  t.match(info, {
    machineType: 'multifd',
    pageSize: PAGE,
    minimumQemu: { file: '9.0', send: undefined },
    runState: undefined,
    devices: [],
  })
  t.strictSame(
    info.ram.blocks,
    ram.map(({ idstr, size }) => ({ idstr, size, populated: size })),
  )
})

function nothingPartial(t: Test, path: string): void {
  t.notOk(existsSync(`${path}.partial`))
  t.notOk(existsSync(`${path}.meta.partial`))
}

/** The uuid that a sent snapshot's channels name. */
async function uuidSentFrom(path: string): Promise<string | undefined> {
  const copy = `${path}.copy`
  const receiver = new SnapshotReceiver(copy)
  await using sender = new SnapshotSender(path)
  await sender.send(await receiver.listen('tcp:127.0.0.1:0'))
  await receiver.completed
  const { uuid } = inspectSnapshot(copy)
  rmSync(`${copy}.meta`, { force: true })
  return uuid
}
