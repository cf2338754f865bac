// A stream in a file: written by a source, read by a destination, behind what somebody else keeps in front of it.

import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  inspectSnapshot,
  MigrationDestination,
  MigrationSource,
  RamBlock,
  SnapshotReceiver,
  SnapshotSender,
} from '../../src/index.js'
import { parseUri } from '../../src/io/uri.js'

const SIZE = 8 * 2 ** 20
const parameters = { multifd: false, returnPath: false }
const HEAD = Buffer.alloc(5000, 'head')

function block(byte: number): RamBlock {
  const ram = RamBlock.allocate({ idstr: 'heap', size: SIZE })
  ram.bytes().fill(byte)
  return ram
}

const equal = (one: RamBlock, other: RamBlock): boolean => Buffer.from(one.bytes()).equals(Buffer.from(other.bytes()))

t.test('an offset is bytes, in any of the forms that QEMU takes', (t) => {
  for (const [text, offset] of [
    ['file:a', 0],
    ['file:a,offset=4096', 4096],
    ['file:a,offset=0x1000', 4096],
    ['file:a,offset=2M', 2 * 2 ** 20],
    ['file:a,offset=1k', 1024],
  ] as const) {
    t.match(parseUri(text), { transport: 'file', path: 'a', offset })
  }
  t.match(parseUri('file:/a:b,c'), { path: '/a:b,c', offset: 0 })
  for (const text of [
    'file:',
    'file:,offset=1',
    'file:a,offset=',
    'file:a,offset=0x20M',
    'file:a,offset=-1',
    'file:a,offset=1.5',
  ]) {
    t.throws(() => parseUri(text), { code: 'ERR_MULTIFD_ARGUMENT', message: /file:PATH\[,offset=N\]/ }, text)
  }
  t.end()
})

for (const offset of [0, HEAD.length]) {
  t.test(`a program's memory goes through a file, from byte ${offset} on`, async (t) => {
    const path = join(t.testdir(), 'stream')
    // An older and longer one, of which nothing may be left behind.
    writeFileSync(path, Buffer.concat([HEAD, Buffer.alloc(2 * SIZE, 'old')]))
    const uri = `file:${path}${offset === 0 ? '' : `,offset=${offset}`}`
    const [here, there] = [block(0x11), block(0x22)]
    await using source = new MigrationSource({ ram: [here], parameters })
    t.match(await source.migrate(uri), { status: 'completed' })
    t.ok(readFileSync(path).subarray(0, offset).equals(HEAD.subarray(0, offset)), 'what lies before it stays')
    t.ok(statSync(path).size < offset + 1.1 * SIZE, 'what lay behind it is gone')
    await using destination = new MigrationDestination({ ram: [there], parameters: { multifd: false } })
    t.equal(await destination.listen(uri), uri)
    t.match(await destination.completed, { status: 'completed' })
    t.ok(equal(here, there))
  })
}

t.test('a migration into a file that fails leaves nothing of its stream', async (t) => {
  const path = join(t.testdir(), 'stream')
  for (const offset of [0, HEAD.length]) {
    writeFileSync(path, HEAD)
    await using source = new MigrationSource({ ram: [block(1)], parameters: { ...parameters, maxBandwidth: 10e6 } })
    source.on('status', (status) => {
      if (status === 'active') source.cancel()
    })
    await t.rejects(source.migrate(`file:${path},offset=${offset}`), { code: 'ERR_MULTIFD_ABORTED' })
    if (offset === 0) t.notOk(existsSync(path))
    else t.ok(readFileSync(path).equals(HEAD))
  }
})

t.test('what can not be written or read is named', async (t) => {
  const folder = t.testdir({ short: 'x' })
  const ram = [block(1)]
  await using source = new MigrationSource({ ram, parameters })
  await using destination = new MigrationDestination({ ram, parameters: { multifd: false } })
  const missing = `file:${join(folder, 'missing', 'stream')}`
  await t.rejects(source.migrate(missing), { code: 'ERR_MULTIFD_FILE', message: /stream: ENOENT/ })
  await t.rejects(destination.listen(missing), { code: 'ERR_MULTIFD_FILE', message: /stream: ENOENT/ })
  await t.rejects(source.migrate(`file:${folder}`), { code: 'ERR_MULTIFD_FILE', message: /EISDIR/ })
  await t.rejects(source.migrate('file:/dev/full'), {
    code: 'ERR_MULTIFD_FILE',
    message: '/dev/full: the disk is full (ENOSPC)',
  })
  await t.rejects(destination.listen(`file:${join(folder, 'short')},offset=1`), {
    code: 'ERR_MULTIFD_FILE',
    message: /it has 1 bytes, and the stream is to begin at 1/,
  })
  await destination.listen(`file:${join(folder, 'short')}`)
  await t.rejects(destination.completed, { code: 'ERR_MULTIFD_TRUNCATED' })
  for (const [wrong, message] of [
    [{ multifd: true }, /file: is one connection: switch multifd off/],
    [{ returnPath: true }, /a file gives no word back/],
    [{ tls: { dir: folder } }, /file: has no other end for TLS/],
  ] as const) {
    await using other = new MigrationSource({ ram, parameters: { ...parameters, ...wrong } })
    await t.rejects(other.migrate(`file:${join(folder, 'never')}`), { code: 'ERR_MULTIFD_ARGUMENT', message })
  }
  t.notOk(existsSync(join(folder, 'never')))
})

t.test('a snapshot behind a header of somebody else', async (t) => {
  const path = join(t.testdir(), 'snapshot')
  writeFileSync(path, Buffer.concat([HEAD, Buffer.from('more')]))
  const [here, there] = [block(0x33), block(0)]
  const offset = HEAD.length
  await using receiver = new SnapshotReceiver(path, { offset })
  await using source = new MigrationSource({ ram: [here] })
  await source.migrate(await receiver.listen('tcp:127.0.0.1:0'))
  await receiver.completed
  t.ok(readFileSync(path).subarray(0, offset).equals(HEAD))
  t.match(inspectSnapshot(path, { offset }), { ram: { size: SIZE, populated: SIZE } })
  t.throws(() => inspectSnapshot(path), { code: 'ERR_MULTIFD_SNAPSHOT' })
  await using destination = new MigrationDestination({ ram: [there] })
  await using sender = new SnapshotSender(path, { offset })
  await sender.send(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  t.ok(equal(here, there))
  t.throws(() => new SnapshotReceiver(path, { offset: -1 }), { code: 'ERR_MULTIFD_ARGUMENT', message: /offset is -1/ })
})

t.test("a program's mapped memory is never the file that its stream goes into", async (t) => {
  const path = join(t.testdir(), 'memory')
  const ram = [RamBlock.mapFile({ idstr: 'heap', size: SIZE, path })]
  ram[0]!.bytes().fill(7)
  await using source = new MigrationSource({ ram, parameters })
  await t.rejects(source.migrate(`file:${path}`), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.ok(readFileSync(path).equals(Buffer.alloc(SIZE, 7)))
  ram[0]!.close()
})
