// The dirty rate: what is measured is what a writer of known rate does, and nobody is disturbed by it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { missingFromKernel } from '../../src/faults.js'
import {
  DirtyRateMeter,
  type DirtyRateMode,
  MigrationDestination,
  MigrationSource,
  RamBlock,
  saveSnapshot,
} from '../../src/index.js'
import { noKernelLog, noWriteTracker } from '../support/kernel.js'
import { threadsNamed } from '../support/peers/index.js'
import { PacedWriter } from './paced-writer.js'

const MIB = 2 ** 20
/** Half of 128 MiB changes while it is measured. */
const RATE = 128 * MIB
const CALC_TIME = 500
const ATTEMPTS = 5

function allocate(size: number): RamBlock {
  return RamBlock.allocate({ idstr: 'heap', size, dirtyLog: 'kernel' })
}

/** First touch would hold the writer up. */
function touched(size: number): RamBlock {
  const block = allocate(size)
  block.bytes().fill(1)
  return block
}

/** What is measured, to what the writer wrote in that time. */
async function ratio(t: Test, writer: PacedWriter, meter: DirtyRateMeter, mode: DirtyRateMode): Promise<number> {
  await meter.begin({ mode, calcTime: CALC_TIME })
  const from = { bytes: writer.bytes, at: performance.now() }
  t.equal(meter.latest.status, 'measuring')
  while (meter.latest.status === 'measuring') await sleep(2)
  const truth = ((writer.bytes - from.bytes) * 1000) / (performance.now() - from.at)
  t.equal(meter.latest.status, 'measured')
  return meter.latest.bytesPerSecond! / truth
}

/** A writer that the machine has no processor for, or a test that hears late of the end, tells nothing of the measure. */
async function within(t: Test, tolerance: number, mode: DirtyRateMode): Promise<void> {
  const other = allocate(16 * MIB)
  for (const scattered of [false, true]) {
    const block = touched(128 * MIB)
    const writer = new PacedWriter(block, RATE, scattered)
    t.teardown(() => writer.stop())
    while (writer.bytes === 0) await sleep(5)
    const meter = new DirtyRateMeter([other, block])
    const ratios: number[] = []
    for (let held = false; !held && ratios.length < ATTEMPTS; ) {
      ratios.push(await ratio(t, writer, meter, mode))
      held = Math.abs(ratios.at(-1)! - 1) < tolerance
    }
    await writer.stop()
    const text = ratios.map((one) => one.toFixed(3)).join(', ')
    t.ok(Math.abs(ratios.at(-1)! - 1) < tolerance, `${text} of the truth, ${scattered ? 'here and there' : 'in order'}`)
  }
}

t.test('page sampling is within 20 % of the truth', (t) => within(t, 0.2, 'page-sampling'))

t.test('the bitmap is within 5 %', { skip: noKernelLog }, (t) => within(t, 0.05, 'dirty-bitmap'))

t.test('memory that nobody writes to has none, and is not made resident by being looked at', async (t) => {
  const plain = RamBlock.allocate({ idstr: 'heap', size: 64 * MIB })
  const sparse = RamBlock.allocate({ idstr: 'dimm', size: 64 * MIB, discardManager: { granuleSize: 2 * MIB } })
  sparse.discardManager!.populate(0, 2 * MIB)
  for (const mode of noKernelLog ? (['page-sampling'] as const) : (['page-sampling', 'dirty-bitmap'] as const)) {
    const { bytesPerSecond } = await new DirtyRateMeter([plain, sparse]).measure({ mode, calcTime: 100 })
    t.equal(bytesPerSecond, 0, mode)
  }
  t.equal(plain.residentBytes(0, plain.size) + sparse.residentBytes(0, sparse.size), 0)
})

t.test("the program's event loop turns meanwhile, and its thread has a name", async (t) => {
  const block = touched(256 * MIB)
  const meter = new DirtyRateMeter([block])
  await meter.measure({ calcTime: 50 })
  const before = performance.eventLoopUtilization()
  await meter.begin({ calcTime: 100, samplePages: 16_384 })
  t.equal(threadsNamed((name) => name === 'mig/dirtyrate').size, 1)
  while (meter.latest.status === 'measuring') await sleep(5)
  const { utilization } = performance.eventLoopUtilization(before)
  // All of that time is hashing's, but for some milliseconds.
  t.ok(utilization < 0.5, `busy for ${Math.round(utilization * 100)} % of the time`)
  t.equal(threadsNamed((name) => name === 'mig/dirtyrate').size, 0)
})

t.test('what is out of range, or can not be had', async (t) => {
  const meter = new DirtyRateMeter([allocate(MIB)])
  for (const options of [
    { calcTime: 49 },
    { calcTime: 60_001 },
    { calcTime: 100.5 },
    { samplePages: 127 },
    { samplePages: 16_385 },
    { mode: 'dirty-bitmap', samplePages: 512 },
    { mode: 'guess' as 'page-sampling' },
  ] as const) {
    await t.rejects(meter.measure(options), { code: 'ERR_MULTIFD_ARGUMENT' }, JSON.stringify(options))
  }
  await t.rejects(meter.measure({ mode: 'dirty-ring' }), { code: 'ERR_MULTIFD_UNSUPPORTED', message: /dirty-ring/ })
  t.throws(() => new DirtyRateMeter([]), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.match(meter.latest, { status: 'unstarted', samplePages: 0, startTime: 0 })
  await meter.begin({ calcTime: 60_000 })
  await t.rejects(meter.measure(), { code: 'ERR_MULTIFD_STATE', message: /already/ }, 'one at a time')
  await meter.close()
  t.match(meter.latest, { status: 'unstarted' })
  const abort = new AbortController()
  const cancelled = meter.measure({ calcTime: 60_000, signal: abort.signal })
  abort.abort()
  await t.rejects(cancelled, { code: 'ERR_MULTIFD_ABORTED' })
  await t.rejects(meter.measure({ signal: abort.signal }), { code: 'ERR_MULTIFD_ABORTED' })
  t.match(await meter.measure({ calcTime: 50, samplePages: 128 }), {
    status: 'measured',
    samplePages: 128,
    calcTime: 50,
  })
})

t.test('a kernel that can not tell says so', { skip: noKernelLog }, async (t) => {
  const meter = new DirtyRateMeter([allocate(MIB)])
  missingFromKernel.add('pagemap-scan')
  t.teardown(() => missingFromKernel.clear())
  const expected = { code: 'ERR_MULTIFD_UNSUPPORTED', message: /PAGEMAP_SCAN/ }
  await t.rejects(meter.begin({ mode: 'dirty-bitmap' }), expected)
  t.match(meter.latest, { status: 'unstarted' })
  t.match(await meter.measure({ calcTime: 50 }), { bytesPerSecond: 0 }, 'page sampling does without')
})

t.test('a migration has the dirty log to itself', { skip: noKernelLog }, async (t) => {
  const block = allocate(4 * MIB)
  block.bytes().fill(1)
  const meter = new DirtyRateMeter([block])
  const source = new MigrationSource({ ram: [block], parameters: { maxBandwidth: 8 * MIB } })
  const destination = new MigrationDestination({ ram: [allocate(4 * MIB)] })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const lost = t.rejects(meter.measure({ mode: 'dirty-bitmap', calcTime: 60_000 }), {
    code: 'ERR_MULTIFD_STATE',
    message: /a migration or a snapshot began/,
  })
  const migrated = source.migrate(uri)
  await lost
  await new Promise((resolve) => source.once('passBegin', resolve))
  await t.rejects(meter.measure({ mode: 'dirty-bitmap' }), { code: 'ERR_MULTIFD_STATE', message: /has the dirty log/ })
  t.match(await meter.measure({ calcTime: 100 }), { status: 'measured' }, 'page sampling does not need it')
  await migrated
  await destination.completed
  t.match(await meter.measure({ mode: 'dirty-bitmap', calcTime: 50 }), { bytesPerSecond: 0 }, 'and afterwards')
  await Promise.all([source.close(), destination.close()])
})

t.test('a background snapshot too', { skip: noWriteTracker || noKernelLog }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-dirty-rate-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const block = allocate(4 * MIB)
  const lost = t.rejects(new DirtyRateMeter([block]).measure({ mode: 'dirty-bitmap', calcTime: 60_000 }), {
    code: 'ERR_MULTIFD_STATE',
  })
  t.match(await saveSnapshot({ ram: [block], path: join(folder, 'snapshot') }), { pages: { duplicate: 1024 } })
  await lost
})
