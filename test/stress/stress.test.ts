// The short form of the stress, and that it would notice. The long one: npm run stress

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { PageContents } from './contents.js'
import { type BlockShape, draw, type Run } from './draw.js'
import { differences, makeBlocks, WriteRecord, writablePages } from './memory.js'
import { Namespace } from './network.js'
import { Processes } from './processes.js'
import { perform } from './run.js'
import { soak } from './soak.js'
import { stress } from './stress.js'
import { grows } from './trend.js'

const MiB = 2 ** 20
const PAGE = 4096
const SEED = 20
const folder = mkdtempSync(join(tmpdir(), 'multifd-stress-test-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
t.setTimeout(240_000)

const say = (line: string): void => t.comment(line)

/** A run that is what a test wants it to be, and otherwise as plain as can be. */
function plainRun(changes: Partial<Run>): Run {
  const block = { idstr: 'block-0', size: 4 * MiB, kind: 'allocated', kindThere: 'allocated' } as const
  return {
    seed: 0,
    number: 0,
    blocks: [{ ...block, dirtyLog: 'explicit', content: 'noise' }],
    writer: { pattern: 'sequential', rate: 20_000, seed: 1 },
    transport: 'tcp',
    tls: false,
    channels: { multifd: true, multifdChannels: 2 },
    source: { maxBandwidth: 8 * MiB, maxPasses: 2, atLimit: 'switchover', downtimeLimit: 1 },
    ...changes,
  }
}

t.test('a run follows from its seed and its number', async (t) => {
  for (let number = 0; number < 50; number++) t.strictSame(draw(SEED, number), draw(SEED, number))
  const runs = Array.from({ length: 400 }, (_, number) => draw(SEED, number))
  const kinds = (of: (run: Run) => unknown): number => new Set(runs.map(of)).size
  t.equal(kinds(JSON.stringify), 400, 'and is another one for each')
  t.equal(
    kinds(({ disturbance }) => disturbance?.kind),
    5,
  )
  t.equal(
    kinds(({ channels }) => channels.multifdChannels),
    32,
  )
  t.equal(
    kinds(({ writer }) => writer.pattern),
    5,
  )
  t.equal(
    kinds(({ source }) => source.multifdCompression),
    4,
  )
})

t.test('a version of a page is what the writes up to it made', async (t) => {
  for (const content of ['noise', 'text', 'mixed', 'zeroing', 'patches'] as const) {
    const contents = new PageContents(1, content)
    const bytes = new Uint8Array(3 * PAGE)
    for (let version = 1; version < 100; version++) {
      contents.write(bytes, 1, version)
      if (Buffer.compare(bytes.subarray(PAGE, 2 * PAGE), contents.page(1, version)) !== 0)
        t.fail(`${content} ${version}`)
    }
    t.ok(bytes.subarray(0, PAGE).every((byte) => byte === 0) && bytes.subarray(2 * PAGE).every((byte) => byte === 0))
    const earlier = Buffer.from(contents.page(1, 33))
    t.not(Buffer.compare(earlier, contents.page(1, 35)), 0, `${content}: two versions differ`)
  }
})

t.test('what is not as the record says is named', async (t) => {
  const plain = { ...plainRun({}).blocks[0]!, size: 8 * PAGE }
  const sparse: BlockShape = { ...plain, idstr: 'block-1', kind: 'sparse', granuleSize: PAGE, populated: [1, 2, 5] }
  const all = [plain, sparse]
  const blocks = makeBlocks(all, 'source', folder)
  const record = WriteRecord.open(all, folder)
  const contents = new PageContents(0, 'noise')
  t.equal(writablePages(all).length, 11)
  for (let version = 1; version <= 3; version++) {
    contents.write(blocks[0]!.bytes(), 4, version)
    record.set(0, 4, version)
  }
  t.strictSame(differences(blocks, all, record), [])
  contents.write(blocks[0]!.bytes(), 4, 2)
  t.strictSame(differences(blocks, all, record), ['block-0 page 4: has version 2, not 3'], 'a write that was lost')
  contents.write(blocks[0]!.bytes(), 4, 3)
  blocks[0]!.bytes()[5 * PAGE + 17] = 1
  t.match(differences(blocks, all, record), [/^block-0 page 5: .* 1 bytes differ from byte 17 on$/], 'a byte too many')
  blocks[0]!.bytes()[5 * PAGE + 17] = 0
  blocks[1]!.discardManager!.discard(PAGE, PAGE)
  t.match(differences(blocks, all, record), [/^block-1: other granules/], 'a granule that is not there')
  record.close()
})

t.test('a series grows when its slope says so beyond doubt', async (t) => {
  const noise = [3, -2, 1, 4, -3, 0, 2, -4, 1, -1, 3, -2, 2, 0, -3, 1, 4, -1, -2, 2]
  t.notOk(
    grows(
      noise.map((value) => 80 + value),
      0.1,
    ),
    'one that is level and uneasy does not',
  )
  t.ok(
    grows(
      noise.map((value, at) => 80 + value + at),
      0.1,
    ),
    'one that rises all the time does',
  )
  t.notOk(
    grows(
      noise.map((value, at) => 80 + value / 10 + Math.min(at, 4) * 20),
      0.1,
    ),
    'one that rose at first does not',
  )
  t.notOk(grows([1, 2], 0.1), 'two samples tell nothing')
})

t.test('a program that does not tell what it writes is found out', async (t) => {
  const processes = new Processes(folder)
  t.teardown(() => processes.close())
  const forgets = plainRun({ writer: { pattern: 'sequential', rate: 20_000, seed: 1, forgets: true } })
  const { wrong, source } = await perform(forgets, { processes, folder: join(folder, 'forgets'), tlsDir: folder })
  t.match(source, { status: 'completed' })
  t.match(wrong, [/^destination: block-0 page \d+: has version \d+, not \d+$/])
  const honest = await perform(plainRun({}), { processes, folder: join(folder, 'honest'), tlsDir: folder })
  t.strictSame(honest.wrong, [], 'and one that does is not')
})

const namespace = await Namespace.make()
const noLink = typeof namespace === 'string' && `no network with packets of its own: ${namespace}`
t.test('packets that are late, lost and out of order are a matter of time only', { skip: noLink }, async (t) => {
  if (typeof namespace === 'string') return
  t.teardown(() => namespace.remove())
  const processes = new Processes(folder, namespace)
  t.teardown(() => processes.close())
  const network = { delayMs: 3, jitterMs: 2, rate: 0, lossPercent: 3, reorderPercent: 20, fragments: 65536 }
  const run = plainRun({ network, channels: { multifd: true, multifdChannels: 6 } })
  const { via, wrong } = await perform(run, { processes, folder: join(folder, 'lossy'), tlsDir: folder })
  t.equal(via, namespace.kind)
  t.strictSame(wrong, [])
  const counts = await namespace.counts()
  if (counts) t.ok(counts.lost > 0 && counts.overtook > 0, JSON.stringify(counts))
})

t.test(`random migrations of seed ${SEED}`, async (t) => {
  const failed = await stress({ seed: SEED, runs: 8, draw: { memory: 8 * MiB }, say })
  t.strictSame(
    failed.map(({ run, wrong }) => ({ run: run.number, wrong })),
    [],
  )
})

const clock = Date.now() % 2 ** 31
t.test(`random migrations of seed ${clock}, of the clock`, async (t) => {
  const failed = await stress({ seed: clock, forMs: 4000, draw: { memory: 8 * MiB }, say })
  t.strictSame(
    failed.map(({ run, wrong }) => ({ run: run.number, wrong })),
    [],
  )
})

t.test('no descriptor and no thread becomes more over some migrations', async (t) => {
  // What memory does takes thousands to tell: npm run stress -- --soak
  t.ok(await soak({ seed: SEED, migrations: 20, every: 4, level: ['descriptors', 'threads'], say }))
})
