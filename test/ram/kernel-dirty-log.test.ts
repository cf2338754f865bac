// The kernel dirty log: every page that changes is told, whoever changes it, and no other.

import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type KernelFeature, missingFromKernel } from '../../src/faults.js'
import { MigrationSource, RamBlock } from '../../src/index.js'
import { HUGE_PAGE_SIZE } from '../../src/os/memory.js'
import { dropPages } from '../../src/os/residency.js'
import { KernelDirtyLog } from '../../src/ram/kernel-dirty-log.js'
import { LoneDirtyBitmap } from '../support/dirty-bitmap.js'
import { noKernelLog as skip } from '../support/kernel.js'
import { wasmProgram } from '../support/wasm.js'
import { PageWriter } from './page-writer.js'

const PAGE = 4096
const MIB = 2 ** 20
const folder = mkdtempSync(join(tmpdir(), 'multifd-kernel-log-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** The pages that a log tells of. */
function changed(log: KernelDirtyLog, block: RamBlock): number[] {
  const bitmap = new LoneDirtyBitmap(block.pages, block)
  const added = log.synchronise(bitmap)
  const pages: number[] = []
  bitmap.drain(64, (first, count) => {
    for (let page = first; page < first + count; page++) pages.push(page)
  })
  if (added !== pages.length) throw new Error(`${added} counted, ${pages.length} there`)
  return pages
}

function started(t: Test, block: RamBlock): KernelDirtyLog {
  const log = new KernelDirtyLog(block)
  t.teardown(() => log.stop())
  log.start()
  return log
}

/** Blocks of every kind of memory that can be tracked. */
const kinds: Record<string, (size: number) => RamBlock> = {
  'shared memory of ours': (size) => RamBlock.allocate({ idstr: 'heap', size, dirtyLog: 'kernel' }),
  "a program's WebAssembly memory": (size) =>
    RamBlock.adopt({ idstr: 'heap', memory: wasmProgram(size / 65536).memory }),
  'a mapped file': (size) => mapped(folder, size),
  'a file in memory': (size) => mapped(mkdtempSync('/dev/shm/multifd-kernel-log-'), size),
}

function mapped(inside: string, size: number): RamBlock {
  const path = join(inside, 'memory')
  t.teardown(() => rmSync(inside, { recursive: true, force: true }))
  return RamBlock.mapFile({ idstr: 'heap', path, size, dirtyLog: 'kernel' })
}

for (const [kind, make] of Object.entries(kinds)) {
  t.test(`${kind}: what is written is told, once, and nothing else is`, { skip }, async (t) => {
    const block = make(4 * MIB)
    t.teardown(() => block.close())
    const bytes = block.bytes()
    for (let page = 0; page < 512; page += 3) bytes[page * PAGE] = 1
    const log = started(t, block)
    t.same(changed(log, block), [], 'nothing of what was before')
    bytes.reduce((sum, byte) => sum + byte, 0)
    t.same(changed(log, block), [], 'reading is no change, of memory that nobody touched either')
    bytes[3 * PAGE] = 2
    bytes[1000 * PAGE + 17] = 3
    t.same(changed(log, block), [3, 1000], 'touched before, and not')
    t.same(changed(log, block), [], 'once')
    bytes[3 * PAGE] = 2
    t.same(changed(log, block), [3], 'and again when it is written again, be it the same')

    const source = join(folder, 'source')
    writeFileSync(source, Buffer.alloc(3 * PAGE, 7))
    const fd = openSync(source, 'r')
    readSync(fd, bytes, 700 * PAGE - 1, PAGE + 2, 0)
    closeSync(fd)
    t.same(changed(log, block), [699, 700, 701], 'what the kernel writes for the program')

    block.markDirty(5 * PAGE, 1)
    t.same(changed(log, block), [5], 'what is marked all the same')
    // The kernel tells of the process's own memory by itself.
    const drop = (offset: number, length: number): unknown =>
      block.fileBacked ? block.drop(offset, length) : dropPages(block.address + offset, length)
    drop(8 * PAGE, 2 * PAGE)
    drop(2 * MIB, 2 * MIB)
    const last = Array.from({ length: 512 }, (_, at) => 512 + at)
    t.same(changed(log, block), [8, 9, ...last], 'what is given back to the kernel is gone: pages, and whole tables')
    log.stop()
    bytes[0] = 9
    t.same(changed(log, block), [], 'nothing after its end')
  })
}

t.test('no change is lost while threads and the kernel write as they like', { skip }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 64 * MIB, dirtyLog: 'kernel' })
  const bytes = block.bytes()
  const log = started(t, block)
  const mirror = bytes.slice()
  const random = openSync('/dev/urandom', 'r')
  const writers = [new PageWriter(block), new PageWriter(block, { first: 4096, count: 64 })]
  const bitmap = new LoneDirtyBitmap(block.pages)
  const copy = (): number => {
    const added = log.synchronise(bitmap)
    bitmap.drain(16, (first, count) => {
      mirror.set(bytes.subarray(first * PAGE, (first + count) * PAGE), first * PAGE)
    })
    return added
  }
  let pages = 0
  const end = performance.now() + 2000
  for (let round = 0; performance.now() < end || writers.some(({ writes }) => writes < 1000); round++) {
    bytes[Math.floor(Math.random() * block.size)] = round
    const at = Math.floor(Math.random() * (block.size - 3 * PAGE))
    readSync(random, bytes, at, 1 + Math.floor(Math.random() * 3 * PAGE), null)
    pages += copy()
    if (round % 16 === 0) await turn()
  }
  await Promise.all(writers.map((writer) => writer.stop()))
  closeSync(random)
  copy()
  t.ok(pages > 1000, `${pages} pages were told`)
  t.equal(Buffer.compare(mirror, bytes), 0, 'a copy of what was told is the memory')
  t.equal(copy(), 0)
})

t.test('only what is populated of a sparse block is tracked', { skip }, (t) => {
  const discardManager = { granuleSize: MIB }
  const block = RamBlock.allocate({ idstr: 'heap', size: 4 * MIB, dirtyLog: 'kernel', discardManager })
  block.discardManager!.populate(MIB, MIB)
  block.discardManager!.populate(3 * MIB, MIB)
  const log = started(t, block)
  const bytes = block.bytes()
  for (const page of [0, 256, 511, 512, 767, 768, 1023]) bytes[page * PAGE] = 1
  block.markDirty(0, 2 * PAGE)
  t.same(changed(log, block), [256, 511, 768, 1023])
  t.end()
})

t.test('a child process that is started meanwhile changes nothing', { skip }, (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 8 * MIB, dirtyLog: 'kernel' })
  const bytes = block.bytes()
  bytes.fill(1)
  const log = started(t, block)
  bytes[3 * PAGE] = 2
  t.equal(spawnSync('true').status, 0)
  t.same(changed(log, block), [3])
  bytes[4 * PAGE] = 2
  t.same(changed(log, block), [4])
  t.end()
})

t.test('huge pages that are given back whole are told, though nothing of them was written', { skip }, (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 16 * MIB, dirtyLog: 'kernel' })
  block.bytes().fill(1)
  const log = started(t, block)
  const first = Math.ceil(block.address / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE - block.address
  dropPages(block.address + first, 4 * MIB)
  const expected = Array.from({ length: 1024 }, (_, at) => first / PAGE + at)
  t.same(changed(log, block), expected)
  t.same(changed(log, block), [])
  block.bytes()[first] = 1
  t.same(changed(log, block), [first / PAGE])
  t.end()
})

t.test('memory is tracked by one at a time, and by the next one after', { skip }, (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB, dirtyLog: 'kernel' })
  const log = started(t, block)
  t.throws(() => new KernelDirtyLog(block).start(), {
    code: 'ERR_MULTIFD_STATE',
    message: /block 'heap'.*tracked already/,
  })
  block.bytes()[0] = 1
  t.same(changed(log, block), [0], 'the one that has it is not disturbed')
  log.stop()
  const next = started(t, block)
  block.bytes()[PAGE] = 1
  t.same(changed(next, block), [1])
  t.end()
})

const lacks: [KernelFeature, RegExp][] = [
  ['userfaultfd', /\/dev\/userfaultfd: ENOENT.*userfaultfd: ENOSYS.*vm\.unprivileged_userfaultfd/],
  ['wp-async', /UFFD_FEATURE_WP_ASYNC/],
  ['wp-unpopulated', /UFFD_FEATURE_WP_UNPOPULATED/],
  ['wp-shmem', /UFFD_FEATURE_WP_HUGETLBFS_SHMEM/],
  ['pagemap-scan', /PAGEMAP_SCAN/],
]
for (const [feature, message] of lacks) {
  t.test(`a kernel without ${feature} is told by name`, { skip }, async (t) => {
    missingFromKernel.add(feature)
    t.teardown(() => missingFromKernel.delete(feature))
    const ram = [RamBlock.allocate({ idstr: 'heap', size: MIB, dirtyLog: 'kernel' })]
    const expected = { name: 'MultifdError', code: 'ERR_MULTIFD_UNSUPPORTED', message }
    t.throws(() => new KernelDirtyLog(ram[0]!).start(), expected)
    await t.rejects(new MigrationSource({ ram }).migrate('tcp:127.0.0.1:1'), expected, 'before anything is connected')
    const explicit = new MigrationSource({ ram: [RamBlock.allocate({ idstr: 'heap', size: MIB })] })
    await t.rejects(explicit.migrate('tcp:127.0.0.1:1'), { code: 'ERR_MULTIFD_CONNECT' }, 'others do not mind')
    missingFromKernel.delete(feature)
    t.doesNotThrow(() => started(t, ram[0]!), 'and it leaves nothing behind')
  })
}

t.test('a log of another name is refused', (t) => {
  const dirtyLog = 'hardware' as 'kernel'
  t.throws(() => RamBlock.allocate({ idstr: 'heap', size: MIB, dirtyLog }), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.end()
})
