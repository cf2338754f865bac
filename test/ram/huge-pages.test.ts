// Huge pages (hugetlbfs) behind blocks: logs, sparse blocks, preallocation and held writes in their units.

import { mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { preallocate, RamBlock } from '../../src/index.js'
import { hugePageRoom } from '../../src/os/memory-room.js'
import { KernelDirtyLog } from '../../src/ram/kernel-dirty-log.js'
import { WriteTracker } from '../../src/ram/write-tracker.js'
import { LoneDirtyBitmap } from '../support/dirty-bitmap.js'
import { noKernelLog, noWriteTracker } from '../support/kernel.js'
import { PageWriter } from './page-writer.js'

const PAGE = 4096
const PAGES = 8

/** Where huge pages can be had, of what size. */
function hugePages(): { folder: string; unit: number } | undefined {
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [, folder, kind] = line.split(' ')
    if (kind !== 'hugetlbfs') continue
    const unit = statfsSync(folder!).bsize
    if (hugePageRoom(unit).available >= PAGES * unit) return { folder: folder!, unit }
  }
  return undefined
}

const huge = hugePages()
const skip = !huge && `needs a mounted hugetlbfs with ${PAGES} free pages`

function map(t: Test, extra: object = {}): { block: RamBlock; unit: number; perUnit: number } {
  const { folder, unit } = huge!
  const place = mkdtempSync(join(folder, 'multifd-'))
  const block = RamBlock.mapFile({ idstr: 'dimm', path: join(place, 'dimm'), size: PAGES * unit, ...extra })
  t.teardown(() => {
    block.close()
    rmSync(place, { recursive: true, force: true })
  })
  return { block, unit, perUnit: unit / PAGE }
}

t.test('the kernel tells of whole huge pages', { skip: skip || noKernelLog }, (t) => {
  const { block, unit, perUnit } = map(t, { dirtyLog: 'kernel' })
  t.same(block.backing, { kind: 'huge', unit })
  const bytes = block.bytes()
  bytes[0] = 1
  const log = new KernelDirtyLog(block)
  t.teardown(() => log.stop())
  log.start()
  const bitmap = new LoneDirtyBitmap(block.pages)
  t.equal(log.synchronise(bitmap), 0)
  bytes[1] = 1
  bytes[3 * unit + 5] = 1
  t.equal(log.synchronise(bitmap), 2 * perUnit)
  const runs: number[][] = []
  bitmap.drain(perUnit, (first, count) => runs.push([first / perUnit, count / perUnit]))
  t.same(runs, [
    [0, 1],
    [3, 1],
  ])
  t.equal(log.synchronise(bitmap), 0)
  t.end()
})

t.test('sparse: granules of whole huge pages, which go back to the pool', { skip }, async (t) => {
  const { unit } = huge!
  const tooSmall = { discardManager: { granuleSize: unit / 2 } }
  t.throws(() => map(t, tooSmall), { code: 'ERR_MULTIFD_ARGUMENT', message: /at least/ })
  const before = hugePageRoom(unit).available
  const { block } = map(t, { discardManager: { granuleSize: unit } })
  t.equal(hugePageRoom(unit).available, before, 'none is set aside')
  block.discardManager!.populate(unit, 3 * unit)
  await preallocate([block])
  t.equal(hugePageRoom(unit).available, before - 3 * unit)
  block.discardManager!.discard(unit, unit)
  t.equal(hugePageRoom(unit).available, before - 2 * unit)
  const other = map(t, { discardManager: { granuleSize: unit } }).block
  other.discardManager!.populate(0, PAGES * unit)
  if (before < (PAGES + 2) * unit) {
    await t.rejects(preallocate([other]), { code: 'ERR_MULTIFD_FILE', message: /free huge pages/ })
  }
})

t.test('a write is held up, and its whole huge page with it', { skip: skip || noWriteTracker }, async (t) => {
  const { block, perUnit } = map(t)
  const tracker = new WriteTracker()
  t.teardown(() => tracker.stop())
  tracker.start([block])
  const writer = new PageWriter(block, { once: true })
  const seen: number[] = []
  while (seen.length < PAGES) {
    const held = tracker.next(100)
    if (!held) continue
    t.equal(held.count, perUnit)
    t.ok(block.isZeroPage(held.page), 'nothing of it was written')
    t.throws(() => tracker.release(block, held.page, 1), { code: 'ERR_MULTIFD_ARGUMENT' })
    seen.push(held.page / perUnit)
    tracker.release(block, held.page, held.count)
  }
  await writer.ended()
  t.same(
    seen,
    Array.from({ length: PAGES }, (_, at) => at),
  )
})
