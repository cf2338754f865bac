// Memory made resident ahead: what is populated and nothing else, and a clean refusal where there is not enough.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MigrationDestination, MigrationSource, preallocate, RamBlock } from '../../src/index.js'

const MIB = 2 ** 20
const KIB = 1024

/** Figures of a machine that has so much available. */
function machineWith(t: Test, available: number) {
  const proc = mkdtempSync(join(tmpdir(), 'multifd-prealloc-'))
  t.teardown(() => rmSync(proc, { recursive: true, force: true }))
  mkdirSync(join(proc, 'self'))
  writeFileSync(join(proc, 'meminfo'), `MemAvailable: ${available / KIB} kB\n`)
  return { proc, cgroups: join(proc, 'none'), hugePages: join(proc, 'none') }
}

const resident = (block: RamBlock): number => block.residentBytes(0, block.size)

t.test('what is populated becomes resident, what is discarded stays untouched', async (t) => {
  const plain = RamBlock.allocate({ idstr: 'heap', size: 50 * MIB })
  const sparse = RamBlock.allocate({ idstr: 'dimm', size: 64 * MIB, discardManager: { granuleSize: 2 * MIB } })
  sparse.discardManager!.populate(2 * MIB, 20 * MIB)
  sparse.discardManager!.populate(62 * MIB, 2 * MIB)
  plain.bytes()[5] = 9
  t.equal(plain.bytes(20 * MIB, 20 * MIB).indexOf(1), -1)
  t.ok(resident(plain) <= 2 * MIB, 'what was only read takes nothing')
  t.equal(resident(sparse), 0)
  let turns = 0
  const turning = setInterval(() => turns++, 1)
  await preallocate([plain, sparse])
  clearInterval(turning)
  t.equal(resident(plain), 50 * MIB)
  t.equal(plain.bytes()[5], 9, 'with what was there')
  t.equal(resident(sparse), 22 * MIB)
  t.equal(sparse.residentBytes(22 * MIB, 40 * MIB), 0)
  t.ok(turns > 0, 'the event loop turned meanwhile')
})

t.test('where memory runs short nothing is taken, and it is told how short', async (t) => {
  const one = RamBlock.allocate({ idstr: 'one', size: 40 * MIB })
  const two = RamBlock.allocate({ idstr: 'two', size: 40 * MIB })
  // 64 MiB are left to the rest: 70 MiB for these.
  const sources = machineWith(t, 134 * MIB)
  await t.rejects(preallocate([one, two], { sources }), {
    code: 'ERR_MULTIFD_FILE',
    message: `preallocating 'one', 'two' needs ${80 * MIB} bytes, and there are ${70 * MIB} (MemAvailable of the machine, less ${64 * MIB} for the rest)`,
  })
  t.equal(resident(one) + resident(two), 0)
  await preallocate([one], { sources })
  t.equal(resident(one), 40 * MIB, 'each alone fits')
  await preallocate([one, two], { sources })
  t.equal(resident(two), 40 * MIB, 'what is resident already is not needed again')
})

t.test('memory that runs short on the way ends it', async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 512 * MIB })
  const sources = machineWith(t, 1024 * MIB)
  const done = preallocate([block], { sources, threads: 1 })
  writeFileSync(join(sources.proc, 'meminfo'), 'MemAvailable: 1024 kB\n')
  await t.rejects(done, { code: 'ERR_MULTIFD_FILE', message: /ran short while 'heap'/ })
  t.ok(resident(block) < 512 * MIB, `${resident(block)} bytes`)
})

t.test('it can be cancelled', async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 512 * MIB })
  const abort = new AbortController()
  const done = preallocate([block], { signal: abort.signal, threads: 2 })
  abort.abort()
  await t.rejects(done, { code: 'ERR_MULTIFD_ABORTED' })
  t.ok(resident(block) < 512 * MIB)
})

t.test('a file that its file system has no room for is an error, not a death', async (t) => {
  // A file in memory that is mapped for reading can not be written ahead: the kernel refuses it.
  const folder = mkdtempSync('/dev/shm/multifd-prealloc-')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'heap')
  RamBlock.mapFile({ idstr: 'heap', path, size: MIB }).close()
  const block = RamBlock.mapFile({ idstr: 'heap', path, size: MIB, writable: false })
  t.teardown(() => block.close())
  await t.rejects(preallocate([block]), { code: 'ERR_MULTIFD_FILE', message: /'heap' can not be preallocated/ })
})

t.test('a destination populates what is plugged before pages arrive, or touches nothing', async (t) => {
  for (const prealloc of [true, false]) {
    const make = (): RamBlock =>
      RamBlock.allocate({ idstr: 'dimm', size: 64 * MIB, discardManager: { granuleSize: 2 * MIB } })
    const [ours, theirs] = [make(), make()]
    ours.discardManager!.populate(4 * MIB, 40 * MIB)
    theirs.discardManager!.populate(60 * MIB, 4 * MIB)
    ours.bytes(4 * MIB, 1)[0] = 1
    const destination = new MigrationDestination({ ram: [theirs], prealloc })
    t.teardown(() => destination.close())
    const source = new MigrationSource({ ram: [ours] })
    await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
    await destination.completed
    t.equal(theirs.bytes(4 * MIB, 1)[0], 1)
    if (prealloc) t.equal(resident(theirs), 40 * MIB, 'what is populated over there')
    else t.ok(resident(theirs) <= 4 * MIB, `${resident(theirs)} bytes: only where there was something to write`)
  }
})

t.test('a destination that can not populate fails the migration by name, before pages', async (t) => {
  const folder = mkdtempSync('/dev/shm/multifd-prealloc-')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'heap')
  RamBlock.mapFile({ idstr: 'heap', path, size: MIB }).close()
  const theirs = RamBlock.mapFile({ idstr: 'heap', path, size: MIB, writable: false })
  t.teardown(() => theirs.close())
  const ours = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const destination = new MigrationDestination({ ram: [theirs], prealloc: true })
  t.teardown(() => destination.close())
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const [sent, received] = await Promise.allSettled([
    new MigrationSource({ ram: [ours] }).migrate(uri),
    destination.completed,
  ])
  t.match(received, { status: 'rejected', reason: { code: 'ERR_MULTIFD_FILE', message: /can not be preallocated/ } })
  t.equal(sent.status, 'rejected')
})
