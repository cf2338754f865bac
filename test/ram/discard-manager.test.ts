// Sparse blocks: what is populated, who hears of it, what is given back, and that nothing else is read, sent or taken.

import { execFileSync } from 'node:child_process'
import { ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  MigrationDestination,
  MigrationSource,
  RamBlock,
  type RamDiscardManager,
  type vmstate,
} from '../../src/index.js'
import { sparseDevices } from '../../src/migration/sparse-device.js'
import { viewOf } from '../../src/wire/bytes.js'
import { MemoryReader } from '../../src/wire/reader.js'
import {
  decodeFooter,
  decodeSectionHeader,
  type SectionIntroduction,
  sectionHeaderSize,
} from '../../src/wire/stream.js'
import { decodeVirtioMemEarly, isPlugged } from '../../src/wire/virtio-mem.js'
import { noKernelLog } from '../support/kernel.js'
import { loadDevices, saveDevices } from '../vmstate/helpers.js'

const PAGE = 4096
const MIB = 2 ** 20
const folder = mkdtempSync(join(tmpdir(), 'multifd-sparse-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

type Sparse = RamBlock & { discardManager: RamDiscardManager }

function sparse(size = 8 * MIB, extra: { granuleSize?: number; address?: number; dirtyLog?: 'kernel' } = {}): Sparse {
  const { granuleSize = MIB, address = 0, ...rest } = extra
  const discardManager = { granuleSize, address }
  return RamBlock.allocate({ idstr: 'dimm', size, discardManager, ...rest }) as Sparse
}

function replayed({ discardManager }: Sparse, populated: boolean): [number, number][] {
  const ranges: [number, number][] = []
  const visit = (offset: number, length: number): unknown => ranges.push([offset / MIB, length / MIB])
  if (populated) discardManager.replayPopulated(visit)
  else discardManager.replayDiscarded(visit)
  return ranges
}

t.test('granules are populated and discarded, and every thread sees the same', (t) => {
  const block = sparse()
  const manager = block.discardManager
  t.equal(manager.populatedBytes, 0, 'nothing at first')
  t.same(replayed(block, false), [[0, 8]])
  manager.populate(MIB, 2 * MIB)
  manager.populate(2 * MIB, 3 * MIB)
  manager.populate(0, 0)
  t.same(replayed(block, true), [[1, 4]])
  t.same(replayed(block, false), [
    [0, 1],
    [5, 3],
  ])
  const elsewhere = RamBlock.from(structuredClone(block.handle)) as Sparse
  manager.discard(2 * MIB, MIB)
  t.same(replayed(elsewhere, true), [
    [1, 1],
    [3, 2],
  ])
  t.equal(elsewhere.discardManager.populatedBytes, 3 * MIB)
  t.ok(manager.isPopulated(MIB + 5, MIB - 5))
  t.notOk(manager.isPopulated(MIB + 5, MIB))
  t.notOk(manager.isPopulated(0, 1))
  t.ok(manager.isPopulated(0, 0))
  for (const [offset, length] of [
    [1, MIB],
    [0, PAGE],
    [7 * MIB, 2 * MIB],
    [-MIB, MIB],
    [Number.NaN, MIB],
  ] as const) {
    t.throws(() => manager.populate(offset, length), { code: 'ERR_MULTIFD_ARGUMENT' }, `${offset}, ${length}`)
    t.throws(() => manager.discard(offset, length), { code: 'ERR_MULTIFD_ARGUMENT' })
  }
  t.end()
})

t.test('the map and its listeners beside a list of booleans, over many changes', (t) => {
  const block = sparse(192 * PAGE, { granuleSize: PAGE })
  const manager = block.discardManager
  const model = new Array<boolean>(block.pages).fill(false)
  const heard = model.slice()
  const note = (value: boolean) => (offset: number, length: number) => {
    for (let page = offset / PAGE; page < (offset + length) / PAGE; page++) {
      if (heard[page] === value) t.fail(`a listener heard twice of page ${page}`)
      heard[page] = value
    }
  }
  const listener = { populated: note(true), discarded: note(false) }
  manager.addListener(listener)
  for (let step = 0; step < 300; step++) {
    const first = Math.floor(Math.random() * block.pages)
    const count = Math.floor(Math.random() * (block.pages - first + 1))
    const populate = Math.random() < 0.5
    model.fill(populate, first, first + count)
    if (populate) manager.populate(first * PAGE, count * PAGE)
    else manager.discard(first * PAGE, count * PAGE)
    const is = model.map((_, page) => manager.isPopulated(page * PAGE, PAGE))
    if (heard.join() !== model.join() || is.join() !== model.join()) t.fail(`step ${step}`)
    if (manager.populatedBytes !== model.filter(Boolean).length * PAGE) t.fail(`bytes at step ${step}`)
  }
  manager.removeListener(listener)
  t.notOk(heard.includes(true), 'at the end it hears that all is gone')
  manager.removeListener(listener)
  manager.addListener(listener)
  t.equal(heard.join(), model.join(), 'and at the beginning, what there is')
  t.end()
})

t.test('a listener that refuses takes the change back, for those before it too', (t) => {
  const { discardManager: manager } = sparse()
  const heard: string[] = []
  manager.addListener({
    populated: (offset) => heard.push(`+${offset}`),
    discarded: (offset) => heard.push(`-${offset}`),
  })
  const refusing = {
    populated() {
      throw new RangeError('no room')
    },
  }
  manager.addListener(refusing)
  t.throws(() => manager.populate(MIB, MIB), RangeError)
  t.same(heard, [`+${MIB}`, `-${MIB}`])
  t.equal(manager.populatedBytes, 0)
  manager.removeListener(refusing)
  manager.populate(MIB, MIB)
  t.equal(manager.populatedBytes, MIB)
  t.end()
})

t.test('what is held does not change', (t) => {
  const block = sparse()
  const other = RamBlock.from(block.handle) as Sparse
  block.discardManager.hold()
  other.discardManager.hold()
  block.discardManager.release()
  t.throws(() => block.discardManager.populate(0, MIB), { code: 'ERR_MULTIFD_STATE', message: /'dimm' migrates/ })
  t.throws(() => block.discardManager.discard(0, MIB), { code: 'ERR_MULTIFD_STATE' })
  other.discardManager.release()
  block.discardManager.addListener({
    populated: () => t.throws(() => other.discardManager.hold(), { code: 'ERR_MULTIFD_STATE' }),
  })
  block.discardManager.populate(0, MIB)
  t.doesNotThrow(() => other.discardManager.hold(), 'once the change is made')
  t.end()
})

for (const kind of ['memory', 'a file', 'a file in memory'] as const) {
  t.test(`discarding gives the room back: ${kind}`, (t) => {
    const place = mkdtempSync(join(kind === 'a file in memory' ? '/dev/shm' : folder, 'multifd-sparse-'))
    t.teardown(() => rmSync(place, { recursive: true, force: true }))
    const path = join(place, 'dimm')
    const discardManager = { granuleSize: MIB }
    const shape = { idstr: 'dimm', size: 8 * MIB, discardManager }
    const block = kind === 'memory' ? RamBlock.allocate(shape) : RamBlock.mapFile({ ...shape, path })
    t.teardown(() => block.close())
    block.discardManager!.populate(0, 8 * MIB)
    t.equal(block.residentBytes(0, block.size), 0, 'populating touches nothing')
    block.bytes().fill(7)
    t.equal(block.residentBytes(0, block.size), 8 * MIB)
    block.discardManager!.discard(2 * MIB, 4 * MIB)
    t.equal(block.residentBytes(2 * MIB, 4 * MIB), 0)
    if (kind !== 'memory') t.ok(statSync(path).blocks * 512 <= 4 * MIB + 65536, `${statSync(path).blocks} sectors left`)
    t.equal(block.bytes(2 * MIB - 1, 1)[0], 7)
    t.equal(block.bytes(6 * MIB, 1)[0], 7)
    block.discardManager!.populate(2 * MIB, 4 * MIB)
    t.ok(
      block.bytes(2 * MIB, 4 * MIB).every((byte) => byte === 0),
      'and what comes into being again is zero',
    )
    t.end()
  })
}

t.test('shapes that can not be are refused', (t) => {
  const refused = (size: number, options: object, message: RegExp): unknown =>
    t.throws(() => sparse(size, options), { code: 'ERR_MULTIFD_ARGUMENT', message })
  refused(8 * MIB, { granuleSize: 3 * MIB }, /power of two/)
  refused(8 * MIB, { granuleSize: 2048 }, /at least 4096/)
  refused(8 * MIB, { granuleSize: Number.NaN }, /power of two/)
  refused(9 * MIB, { granuleSize: 2 * MIB }, /not a multiple/)
  refused(8 * MIB, { address: 5 }, /address 5/)
  t.end()
})

t.test('a backing that was preallocated is refused, and why', (t) => {
  const shape = { idstr: 'dimm', size: 8 * MIB, discardManager: { granuleSize: MIB } }
  const expected = { code: 'ERR_MULTIFD_ARGUMENT', message: /'dimm'.*taken beforehand.*sparse/ }
  t.throws(() => RamBlock.allocate({ ...shape, prealloc: true }), expected)
  const path = join(folder, 'taken')
  t.throws(() => RamBlock.mapFile({ ...shape, path, prealloc: true }), expected)
  execFileSync('fallocate', ['-l', `${8 * MIB}`, path])
  t.throws(() => RamBlock.mapFile({ ...shape, path }), expected, 'a file whose room was taken')
  rmSync(path)
  const fd = openSync(path, 'w')
  ftruncateSync(fd, 32 * MIB)
  writeFileSync(fd, 'content')
  t.throws(() => RamBlock.mapFile({ ...shape, path }), expected, 'a file with content in the place')
  const behind = RamBlock.mapFile({ ...shape, path, offset: 16 * MIB })
  t.equal(behind.discardManager?.populatedBytes, 0, 'content elsewhere in the file does not matter')
  behind.close()
  const whole = RamBlock.mapFile({ idstr: 'dimm', size: 8 * MIB, path: join(folder, 'whole'), prealloc: true })
  t.equal(whole.residentBytes(0, whole.size), 8 * MIB, 'others may be')
  whole.close()
  const memory = RamBlock.allocate({ idstr: 'heap', size: 8 * MIB, prealloc: true })
  t.equal(memory.residentBytes(0, memory.size), 8 * MIB)
  t.end()
})

/** Saves the early state of one block, lets it be spoilt, and loads it into another. */
function carry(from: RamBlock, to: RamBlock, spoil: (payload: DataView) => void = () => {}): void {
  const { early } = saveDevices(sparseDevices([from]))
  const bytes = early.slice()
  spoil(viewOf(bytes.subarray(sectionHeaderSize(`${from.idstr}/virtio-mem-device-early`))))
  loadDevices(sparseDevices([to]), { early: bytes, full: new Uint8Array() })
}

t.test('the early state makes the other side the same, and what never changes must be the same', (t) => {
  const shape = { granuleSize: PAGE, address: 64 * MIB }
  const ours = sparse(131 * PAGE, shape)
  for (const page of [0, 7, 8, 63, 64, 65, 130]) ours.discardManager.populate(page * PAGE, PAGE)
  const theirs = sparse(131 * PAGE, shape)
  theirs.discardManager.populate(5 * PAGE, 3 * PAGE)
  theirs.bytes()[5 * PAGE] = 1
  const heard: string[] = []
  theirs.discardManager.addListener({
    populated: (offset) => heard.push(`+${offset / PAGE}`),
    discarded: (offset) => heard.push(`-${offset / PAGE}`),
  })
  heard.length = 0
  carry(ours, theirs)
  t.same(heard, ['+0', '-5', '-6', '+8', '+63', '+64', '+65', '+130'])
  t.same(replayed(theirs, true), replayed(ours, true))
  t.equal(theirs.bytes()[5 * PAGE], 0)

  const refused = (spoil: (payload: DataView) => void, code: string, message: RegExp): unknown =>
    t.throws(() => carry(ours, theirs, spoil), { code, message })
  refused((view) => view.setUint32(4, 0), 'ERR_MULTIFD_BLOCK', /'dimm': address 0 at the source, 67108864 here/)
  refused((view) => view.setUint32(12, 132 * PAGE), 'ERR_MULTIFD_BLOCK', /: size 540672 at the source, 536576 here/)
  refused((view) => view.setUint32(20, 2 * PAGE), 'ERR_MULTIFD_BLOCK', /granule size 8192 at the source, 4096 here/)
  refused((view) => view.setUint32(24, 1), 'ERR_MULTIFD_PROTOCOL', /node is 1, expected 0/)
  refused((view) => view.setUint32(32, 6 * PAGE), 'ERR_MULTIFD_PROTOCOL', /24576 bytes populated, its map says 28672/)
  // Granule 131 of 131: bit 3 of the third word.
  refused((view) => view.setUint8(36 + 23, view.getUint8(36 + 23) | 8), 'ERR_MULTIFD_PROTOCOL', /bitmap/)
  t.throws(() => carry(ours, RamBlock.allocate({ idstr: 'dimm', size: 131 * PAGE })), {
    code: 'ERR_MULTIFD_DEVICE',
    message: /'dimm\/virtio-mem-device-early' 0: this side has no such device/,
  })
  const held = sparse(131 * PAGE, shape)
  held.discardManager.hold()
  t.throws(() => carry(ours, held), { code: 'ERR_MULTIFD_STATE' })
  t.same(replayed(theirs, true), replayed(ours, true), 'nothing changed by what was refused')
  t.end()
})

t.test("it is QEMU's virtio-mem section", (t) => {
  const block = sparse(131 * PAGE, { granuleSize: PAGE, address: 64 * MIB })
  block.discardManager.populate(7 * PAGE, 58 * PAGE)
  const { early } = saveDevices(sparseDevices([block]))
  const reader = new MemoryReader(early)
  const header = decodeSectionHeader(reader) as SectionIntroduction
  t.equal(header.idstr, 'dimm/virtio-mem-device-early')
  const { bitmap, ...state } = decodeVirtioMemEarly(reader)
  t.same(state, { addr: 64 * MIB, regionSize: 131 * PAGE, blockSize: PAGE, node: 0, size: 58 * PAGE })
  const plugged = Array.from({ length: 192 }, (_, granule) => granule).filter((granule) => isPlugged(bitmap, granule))
  t.same([plugged[0], plugged.at(-1), plugged.length], [7, 64, 58])
  decodeFooter(reader, header.sectionId)
  t.equal(reader.remaining, 0)
  t.end()
})

t.test("a sparse block's name leaves room for its section's", (t) => {
  const named = (length: number): RamBlock =>
    RamBlock.allocate({ idstr: 'x'.repeat(length), size: MIB, discardManager: { granuleSize: PAGE } })
  t.doesNotThrow(() => new MigrationSource({ ram: [named(231)] }))
  t.throws(() => new MigrationSource({ ram: [named(232)] }), { code: 'ERR_MULTIFD_ARGUMENT', message: /231 bytes/ })
  t.end()
})

async function migrate(
  t: Test,
  ours: Sparse,
  theirs: Sparse,
  hooks: { stop?(): void } = {},
  devices: vmstate.Device[] = [],
) {
  const destination = new MigrationDestination({ ram: [theirs], devices })
  t.teardown(() => destination.close())
  const source = new MigrationSource({ ram: [ours], devices })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const [sent, received] = await Promise.allSettled([source.migrate(uri, hooks), destination.completed])
  return { sent, received }
}

for (const dirtyLog of ['explicit', 'kernel'] as const) {
  t.test(`a sparse block migrates, log ${dirtyLog}`, { skip: dirtyLog === 'kernel' && noKernelLog }, async (t) => {
    const extra = dirtyLog === 'kernel' ? { dirtyLog } : {}
    const [ours, theirs] = [sparse(64 * MIB, extra), sparse(64 * MIB, extra)]
    for (const block of [ours, theirs]) {
      block.discardManager.populate(3 * MIB, 2 * MIB)
      block.discardManager.populate(60 * MIB, MIB)
    }
    ours.bytes(3 * MIB, 2 * MIB).fill(1)
    ours.bytes(60 * MIB, PAGE).fill(2)
    const stop = (): void => {
      t.throws(() => ours.discardManager.populate(0, MIB), { code: 'ERR_MULTIFD_STATE' }, 'held while it migrates')
      ours.bytes(4 * MIB, PAGE).fill(3)
      ours.markDirty(4 * MIB, PAGE)
      // Written where there is nothing: lost, as it should be.
      ours.bytes(0, PAGE).fill(4)
      ours.markDirty(0, PAGE)
    }
    const { sent, received } = await migrate(t, ours, theirs, { stop })
    t.match(received, { status: 'fulfilled' })
    t.match(sent, { status: 'fulfilled', value: { ram: { normal: 512 + 1 + 1, duplicate: 255 } } })
    t.equal(theirs.residentBytes(0, 3 * MIB), 0, 'nothing was touched where there is nothing')
    t.equal(Buffer.compare(theirs.bytes(MIB), ours.bytes(MIB)), 0)
    t.equal(theirs.bytes()[0], 0)
    t.doesNotThrow(() => ours.discardManager.populate(0, MIB), 'free again')
  })
}

t.test('what is plugged here follows the source, before its pages come', async (t) => {
  const [ours, theirs] = [sparse(), sparse()]
  ours.discardManager.populate(0, 2 * MIB)
  ours.bytes(0, 2 * MIB).fill(7)
  theirs.discardManager.populate(MIB, 4 * MIB)
  theirs.bytes(MIB, 4 * MIB).fill(9)
  const heard: string[] = []
  const megabytes = (offset: number, length: number): string => `${offset / MIB}+${length / MIB}`
  theirs.discardManager.addListener({
    populated: (offset, length) => heard.push(`has ${megabytes(offset, length)}`),
    discarded: (offset, length) => heard.push(`lost ${megabytes(offset, length)}`),
  })
  heard.length = 0
  const look = (): unknown =>
    t.throws(() => theirs.discardManager.populate(0, MIB), { code: 'ERR_MULTIFD_STATE' }, 'held while pages come')
  const device = { idstr: 'look', version: 1, save: () => 1, load: look }
  const { sent, received } = await migrate(t, ours, theirs, {}, [device])
  t.match(sent, { status: 'fulfilled' })
  t.match(received, { status: 'fulfilled' })
  t.same(replayed(theirs, true), replayed(ours, true), 'the same map')
  t.equal(Buffer.compare(theirs.bytes(), ours.bytes()), 0, 'the same content')
  t.equal(theirs.residentBytes(2 * MIB, theirs.size - 2 * MIB), 0, 'what is unplugged takes no memory')
  t.ok(heard.length > 0 && heard.every((line) => /^(has 0|lost [234])/.test(line)), heard.join(', '))
  t.doesNotThrow(() => theirs.discardManager.populate(7 * MIB, MIB), 'and it is free again')
})

t.test('what never changes is compared before any page comes', async (t) => {
  for (const [change, message] of [
    [{ granuleSize: 2 * MIB }, /granule size 1048576 at the source, 2097152 here/],
    [{ address: 64 * MIB }, /address 0 at the source, 67108864 here/],
  ] as const) {
    const [ours, theirs] = [sparse(), sparse(8 * MIB, change)]
    ours.discardManager.populate(0, 2 * MIB)
    ours.bytes(0, 2 * MIB).fill(7)
    const { sent, received } = await migrate(t, ours, theirs)
    t.match(received, { status: 'rejected', reason: { code: 'ERR_MULTIFD_BLOCK', message } })
    t.match(sent, { status: 'rejected', reason: { code: /CLOSED|REMOTE/ } })
    t.equal(theirs.residentBytes(0, theirs.size), 0, 'nothing was touched')
    t.doesNotThrow(() => ours.discardManager.populate(6 * MIB, 2 * MIB), 'a failed migration holds nothing')
    t.doesNotThrow(() => theirs.discardManager.populate(6 * MIB, 2 * MIB))
  }
})

t.test('a block that is sparse on one side only is refused by name', async (t) => {
  const plain = (): RamBlock => RamBlock.allocate({ idstr: 'dimm', size: 8 * MIB })
  const ours = await migrate(t, sparse(), plain() as Sparse)
  t.match(ours.received, {
    status: 'rejected',
    reason: { code: 'ERR_MULTIFD_DEVICE', message: /'dimm\/virtio-mem-device-early' 0: this side has no such device/ },
  })
  const theirs = await migrate(t, plain() as Sparse, sparse())
  t.match(theirs.received, {
    status: 'rejected',
    reason: { code: 'ERR_MULTIFD_DEVICE', message: /has sent no section 'dimm\/virtio-mem-device-early' 0/ },
  })
})
