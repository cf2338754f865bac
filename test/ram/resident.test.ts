// Memory that nobody touched stays without memory: blocks of 1 GiB of zeros, on both sides, by every way that they go.

import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MigrationDestination, type MigrationParameters, MigrationSource, RamBlock } from '../../src/index.js'
import { FileHoles } from '../../src/ram/file-holes.js'
import { SharedBitmap } from '../../src/shm/bitmap.js'
import { makeSharedMemory } from '../../src/wasm/kernel.js'
import { openDescriptors, PAGE } from '../support/peers/index.js'

const MiB = 2 ** 20
const GiB = 2 ** 30
const PLACES = 8

t.setTimeout(300_000)

/** Folders on the file systems there are: a disk's, and memory's. */
const folders = [tmpdir(), '/dev/shm']
  .filter(existsSync)
  .map((parent) => mkdtempSync(join(parent, 'multifd-resident-')))
t.teardown(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

const residentMiB = (): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024

async function migrate(ram: RamBlock, theirs: RamBlock, parameters: Partial<MigrationParameters>): Promise<number> {
  const { multifd = true } = parameters
  const destination = new MigrationDestination({ ram: [theirs], parameters: { multifd } })
  const source = new MigrationSource({ ram: [ram], parameters })
  const { ram: figures } = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  return figures.duplicate
}

/** A few pages with data, each in a region of its own. */
function scatter(block: RamBlock): void {
  for (let at = 0; at < PLACES; at++) block.bytes((at * block.size) / PLACES + 5 * PAGE, PAGE).fill(1 + at)
}

function hasScattered(t: Test, block: RamBlock): void {
  for (let at = 0; at < PLACES; at++) {
    const around = block.bytes((at * block.size) / PLACES + 4 * PAGE, 3 * PAGE)
    const right = around.every((byte, i) => byte === (i >= PAGE && i < 2 * PAGE ? 1 + at : 0))
    t.ok(right, `page ${at} and what is around it`)
  }
}

const ways: Partial<MigrationParameters>[] = [
  { zeroPageDetection: 'multifd' },
  { zeroPageDetection: 'legacy' },
  { multifd: false },
]

// The first migration of a process brings the engine's own code and threads, which is not what is measured here.
t.before(async () => {
  const [ram, theirs] = [0, 1].map(() => RamBlock.allocate({ idstr: 'heap', size: 64 * PAGE })) as [RamBlock, RamBlock]
  for (const way of ways) await migrate(ram, theirs, way)
})

for (const way of ways) {
  const name = JSON.stringify(way)

  t.test(`memory of the program: ${name}`, async (t) => {
    const [ram, theirs] = [0, 1].map(() => RamBlock.allocate({ idstr: 'heap', size: GiB })) as [RamBlock, RamBlock]
    scatter(ram)
    const before = residentMiB()
    t.equal(await migrate(ram, theirs, way), GiB / PAGE - PLACES)
    const growth = residentMiB() - before
    t.ok(growth < 200, `1 GiB of zeros takes ${Math.round(growth)} MiB`)
    hasScattered(t, theirs)
  })

  for (const folder of folders) {
    t.test(`mapped files in ${folder}: ${name}`, async (t) => {
      if (!FileHoles.trusted(folder)) t.comment('its holes can not be asked for: only the content is checked')
      const paths = ['from', 'to'].map((name) => join(folder, name)) as [string, string]
      const [ram, theirs] = paths.map((path) => RamBlock.mapFile({ idstr: 'heap', path, size: GiB })) as [
        RamBlock,
        RamBlock,
      ]
      scatter(ram)
      const before = residentMiB()
      t.equal(await migrate(ram, theirs, way), GiB / PAGE - PLACES)
      const growth = residentMiB() - before
      if (FileHoles.trusted(folder)) {
        t.ok(growth < 100, `two files of 1 GiB of zeros take ${Math.round(growth)} MiB of memory`)
        for (const path of paths) {
          const taken = statSync(path).blocks * 512
          t.ok(taken < 100 * MiB, `${path} takes ${Math.round(taken / MiB)} MiB`)
        }
      }
      hasScattered(t, theirs)
      for (const block of [ram, theirs]) block.close()
      for (const path of paths) rmSync(path)
    })
  }
}

for (const folder of folders) {
  t.test(`what was in a file before gives way: ${folder}`, async (t) => {
    const size = 32 * MiB
    for (const way of ways) {
      const path = join(folder, 'old')
      const theirs = RamBlock.mapFile({ idstr: 'heap', path, size })
      // Old content that lies in the page cache, and some that was written to the file.
      for (let page = 0; page < theirs.pages; page += 3) theirs.bytes(page * PAGE, PAGE).fill(0x55)
      const fd = openSync(path, 'r+')
      for (let page = 1; page < theirs.pages; page += 300)
        writeSync(fd, new Uint8Array(PAGE).fill(0x66), 0, PAGE, page * PAGE)
      closeSync(fd)
      const ram = RamBlock.allocate({ idstr: 'heap', size })
      scatter(ram)
      t.equal(await migrate(ram, theirs, way), size / PAGE - PLACES)
      t.equal(Buffer.compare(theirs.bytes(), Buffer.from(ram.bytes().slice())), 0, 'no byte of it is left')
      theirs.close()
      rmSync(path)
    }
  })

  t.test(`a program that writes into holes of its file while it migrates: ${folder}`, async (t) => {
    const size = 64 * MiB
    const paths = ['from', 'to'].map((name) => join(folder, name)) as [string, string]
    const [ram, theirs] = paths.map((path) => RamBlock.mapFile({ idstr: 'heap', path, size })) as [RamBlock, RamBlock]
    const destination = new MigrationDestination({ ram: [theirs] })
    const source = new MigrationSource({ ram: [ram], parameters: { maxBandwidth: 40e6, downtimeLimit: 0 } })
    let change = 0
    // Every page becomes something once, and every fourth of them zero again.
    const timer = setInterval(() => {
      for (let i = 0; i < 150; i++, change++) {
        const page = (change * 7) % ram.pages
        ram.bytes(page * PAGE, PAGE).fill(change % 4 === 3 ? 0 : 1 + (change % 250))
        ram.markDirty(page * PAGE, PAGE)
      }
    }, 5)
    t.teardown(() => clearInterval(timer))
    let passes = 0
    source.on('pass', () => {
      if (++passes === 5) clearInterval(timer)
    })
    const { ram: figures } = await source.migrate(await destination.listen('tcp:127.0.0.1:0'), {
      stop: () => clearInterval(timer),
    })
    await destination.completed
    t.ok(figures.normal > 300 && change > 300, `${figures.normal} pages with data, ${change} changes, ${passes} passes`)
    t.equal(Buffer.compare(theirs.bytes(), ram.bytes()), 0, 'the last content of every page')
    for (const block of [ram, theirs]) block.close()
    for (const path of paths) rmSync(path)
  })

  t.test(`what is in a file is no hole, whoever wrote it and however: ${folder}`, async (t) => {
    const path = join(folder, 'file')
    const block = RamBlock.mapFile({ idstr: 'heap', path, size: 16 * MiB, offset: 3 * PAGE })
    const zero = (...pages: number[]) => pages.map((page) => block.isZeroPage(page))
    t.strictSame(zero(0, 1, 2, 4095), [true, true, true, true])
    block.bytes(PAGE, 1)[0] = 1
    t.strictSame(zero(0, 1, 2), [true, false, true], 'written through the mapping, and not on the disk yet')
    const fd = openSync(path, 'r+')
    writeSync(fd, new Uint8Array([1]), 0, 1, (3 + 4095) * PAGE + PAGE - 1)
    closeSync(fd)
    t.strictSame(zero(4094, 4095), [true, false], 'written to the file')
    block.bytes(PAGE, 1)[0] = 0
    t.strictSame(zero(1), [true], 'zero again')
    block.bytes(2 * PAGE, 1)[0] = 1
    t.strictSame(zero(1, 2, 3), [true, false, true], 'written after it was looked at')
    const other = RamBlock.from(block.handle)
    t.strictSame(
      [other.isZeroPage(1), other.isZeroPage(2), other.isZeroPage(3)],
      [true, false, true],
      'and to a thread',
    )
    block.close()
    rmSync(path)
  })
}

t.test('a closed block leaves no descriptor, and a snapshot needs none', async (t) => {
  const path = join(folders[0]!, 'file')
  const before = openDescriptors().size
  const block = RamBlock.mapFile({ idstr: 'heap', path, size: MiB })
  const again = RamBlock.mapFile({ idstr: 'heap', path, size: MiB, populated: new SharedBitmap(256) })
  RamBlock.from(block.handle).close()
  t.ok(block.isZeroPage(0), "another thread's view does not close it")
  t.ok(openDescriptors().size <= before + 1)
  for (const one of [block, again, block]) one.close()
  t.equal(openDescriptors().size, before)
  rmSync(path)
})

t.test('a block that was allocated gives its memory back when it is closed, and an adopted one does not', async (t) => {
  const size = 64 * MiB
  const block = RamBlock.allocate({ idstr: 'heap', size })
  const memory = makeSharedMemory(size)
  const adopted = RamBlock.adopt({ idstr: 'adopted', memory })
  for (const each of [block, adopted]) each.bytes().fill(1)
  const elsewhere = RamBlock.from(block.handle)
  elsewhere.close()
  t.equal(block.residentBytes(0, size), size, 'whoever only knows the block gives nothing back')
  const before = residentMiB()
  for (let twice = 0; twice < 2; twice++) block.close()
  t.ok(before - residentMiB() > 60, `${before} MiB before, ${residentMiB()} after`)
  adopted.close()
  t.equal(new Uint8Array(memory.buffer)[size - 1], 1, "an adopted one is the program's")
})
