// Writes held up: what is read when a write is told is always what was there before it.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, openSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { missingFromKernel } from '../../src/faults.js'
import { RamBlock } from '../../src/index.js'
import { WriteTracker } from '../../src/ram/write-tracker.js'
import { noWriteTracker as skip } from '../support/kernel.js'
import { PageWriter, stampOf } from './page-writer.js'

const PAGE = 4096
const MIB = 2 ** 20

function tracker(t: Test): WriteTracker {
  const tracker = new WriteTracker()
  t.teardown(() => tracker.stop())
  return tracker
}

function word(block: RamBlock, page: number): number {
  return new Int32Array(block.bytes(page * PAGE, 4).slice().buffer)[0]!
}

/** Saves pages as they are told, until `done`; how many, and what was wrong. */
function save(
  held: WriteTracker,
  expected: (block: RamBlock, page: number) => number,
  done: (saved: number) => boolean,
) {
  const wrong: string[] = []
  let saved = 0
  const deadline = performance.now() + 20_000
  while (!done(saved)) {
    if (performance.now() > deadline) return { saved, wrong: ['it never ended'] }
    const write = held.next(50)
    if (!write) continue
    const { block, page, count } = write
    for (let at = page; at < page + count; at++) {
      const is = word(block, at)
      if (is !== expected(block, at)) wrong.push(`page ${at} of ${block.idstr} held ${is}`)
    }
    held.release(block, page, count)
    saved += count
  }
  return { saved, wrong }
}

for (const unpopulated of [true, false]) {
  const kernel = unpopulated ? 'on any kernel of today' : 'on a kernel that protects only what is there'
  t.test(`threads write, and the old content is what is read: ${kernel}`, { skip }, async (t) => {
    if (!unpopulated) missingFromKernel.add('wp-unpopulated')
    t.teardown(() => missingFromKernel.clear())
    const plain = RamBlock.allocate({ idstr: 'heap', size: 4 * MIB })
    const sparse = RamBlock.allocate({ idstr: 'dimm', size: 4 * MIB, discardManager: { granuleSize: MIB } })
    sparse.discardManager!.populate(MIB, MIB)
    // The other half was never touched.
    for (let page = 0; page < 512; page++) plain.bytes().set(stamp(page + 7), page * PAGE)
    const held = tracker(t)
    held.start([plain, sparse])
    const writers = [
      new PageWriter(plain, { once: true }),
      new PageWriter(sparse, { first: 256, count: 256, once: true }),
      new PageWriter(sparse, { first: 700, count: 68, once: true }),
    ]
    const old = (block: RamBlock, page: number): number => (block === plain && page < 512 ? page + 7 : 0)
    const { saved, wrong } = save(held, old, (count) => count >= 1024 + 256)
    t.same(wrong, [])
    t.equal(saved, 1024 + 256, 'each page that is populated once')
    await Promise.all(writers.map((writer) => writer.ended()))
    t.equal(held.next(0), undefined, 'discarded pages are nobody’s')
    for (let page = 0; page < 1024; page++)
      if (word(plain, page) !== stampOf(page)) t.fail(`page ${page} is not written`)
    held.stop()
    t.doesNotThrow(() => sparse.discardManager!.populate(0, MIB))
  })
}

function stamp(value: number): Uint8Array {
  return new Uint8Array(new Int32Array([value]).buffer)
}

t.test('a page that was saved in its turn is not told any more, and pages beside it still are', { skip }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const held = tracker(t)
  held.start([block])
  held.release(block, 0, 100)
  const writer = new PageWriter(block, { once: true })
  const { saved, wrong } = save(
    held,
    () => 0,
    (count) => count === 156,
  )
  await writer.ended()
  t.same(wrong, [])
  t.equal(saved, 156)
  t.equal(held.next(0), undefined)
})

t.test('two threads on one page go on together', { skip }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const held = tracker(t)
  held.start([block])
  const writers = [0, 1].map(() => new PageWriter(block, { first: 5, count: 1, once: true }))
  while (!held.next(100));
  await new Promise((resolve) => setTimeout(resolve, 500))
  t.same(
    writers.map(({ writes }) => writes),
    [0, 0],
    'both wait',
  )
  held.release(block, 5)
  await Promise.all(writers.map((writer) => writer.ended()))
  t.equal(held.next(0), undefined, 'the second telling is of a page that is saved')
})

t.test('the kernel is held up as well', { skip }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const control = new Int32Array(new SharedArrayBuffer(4))
  const held = tracker(t)
  held.start([block])
  const code = `const { workerData } = require('node:worker_threads')
    const fs = require('node:fs')
    const fd = fs.openSync('/dev/urandom', 'r')
    Atomics.store(workerData.control, 0, fs.readSync(fd, new Uint8Array(workerData.memory), 3 * 4096, 4096, null))`
  const worker = new Worker(code, { eval: true, execArgv: [], workerData: { memory: block.memory, control } })
  const ended = new Promise((resolve) => worker.once('exit', resolve))
  let write: ReturnType<WriteTracker['next']>
  do write = held.next(100)
  while (!write)
  t.equal(write.page, 3)
  t.ok(block.isZeroPage(3))
  t.equal(Atomics.load(control, 0), 0, 'it waits')
  held.release(block, 3)
  await ended
  t.equal(Atomics.load(control, 0), 4096, 'and reads all of it then')
  t.notOk(block.isZeroPage(3))
})

t.test('at its end everyone goes on', { skip }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const held = tracker(t)
  held.start([block])
  const writer = new PageWriter(block, { once: true })
  while (!held.next(100));
  held.stop()
  held.stop()
  await writer.ended()
  t.equal(word(block, 255), stampOf(255))
  t.throws(() => held.next(0), { code: 'ERR_MULTIFD_STATE' })
  t.throws(() => held.release(block, 0), { code: 'ERR_MULTIFD_STATE' })
  held.start([block])
  t.throws(() => held.release(block, 250, 7), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.throws(() => held.release(RamBlock.allocate({ idstr: 'x', size: PAGE }), 0), { code: 'ERR_MULTIFD_ARGUMENT' })
  const second = tracker(t)
  t.throws(() => second.start([block]), { code: 'ERR_MULTIFD_STATE', message: /tracked already/ })
  held.release(block, 0)
  block.bytes()[0] = 1
})

t.test('a process exits whoever is held up', { skip }, (t) => {
  const from = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href)
  const code = `
    const { WriteTracker } = await import(${from('../../src/ram/write-tracker.js')})
    const { RamBlock } = await import(${from('../../src/ram/block.js')})
    const { PageWriter } = await import(${from('./page-writer.js')})
    const block = RamBlock.allocate({ idstr: 'heap', size: 65536 })
    const tracker = new WriteTracker()
    tracker.start([block])
    new PageWriter(block, { once: true })
    const look = () => {
      if (!tracker.next(10)) return setTimeout(look, 1)
      console.log('held')
      process.exit(7)
    }
    look()`
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    timeout: 30_000,
    env: {},
  })
  t.equal(stdout, 'held\n')
  t.equal(status, 7)
  t.end()
})

t.test('a file on a disk can not be held, one in memory can', { skip }, async (t) => {
  const place = (inside: string): string => {
    const folder = mkdtempSync(join(inside, 'multifd-tracker-'))
    t.teardown(() => rmSync(folder, { recursive: true, force: true }))
    return join(folder, 'heap')
  }
  const shm = RamBlock.mapFile({ idstr: 'shm', path: place('/dev/shm'), size: MIB })
  t.teardown(() => shm.close())
  const held = tracker(t)
  held.start([shm])
  const writer = new PageWriter(shm, { once: true })
  const { saved, wrong } = save(
    held,
    () => 0,
    (count) => count === 256,
  )
  await writer.ended()
  t.same(wrong, [])
  t.equal(saved, 256)
  held.stop()
  missingFromKernel.add('wp-shmem')
  t.teardown(() => missingFromKernel.clear())
  t.throws(() => held.start([shm]), { code: 'ERR_MULTIFD_UNSUPPORTED', message: /WP_HUGETLBFS_SHMEM/ })
  missingFromKernel.clear()
  const disk = RamBlock.mapFile({ idstr: 'disk', path: place(tmpdir()), size: MIB })
  t.teardown(() => disk.close())
  if (disk.backing.kind !== 'file') return
  t.throws(() => held.start([shm, disk]), { code: 'ERR_MULTIFD_UNSUPPORTED', message: /'disk'.*on a disk/ })
  const fd = openSync('/dev/zero', 'r')
  t.equal(readSync(fd, shm.bytes(), 0, PAGE, null), PAGE, 'nothing is held by a start that failed')
})
