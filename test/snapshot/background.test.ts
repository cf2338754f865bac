// Background snapshots: the file holds exactly what was there at one moment, whatever the program does meanwhile.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import workerThreads, { type Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { missingFromKernel } from '../../src/faults.js'
import {
  inspectSnapshot,
  MigrationDestination,
  RamBlock,
  readSnapshot,
  SnapshotSender,
  saveSnapshot,
} from '../../src/index.js'
import { WriteTracker } from '../../src/ram/write-tracker.js'
import type { Device } from '../../src/vmstate/device.js'
import { makeSharedMemory } from '../../src/wasm/kernel.js'
import { noWriteTracker as skip } from '../support/kernel.js'
import { save } from './program.js'
import { groupFault, StepWriter } from './step-writer.js'

const PAGE = 4096
const MIB = 2 ** 20

t.setTimeout(120_000)

/** A program: blocks, and threads that write to them. */
class Program {
  readonly ram: RamBlock[]
  readonly writers: StepWriter[]
  /** What was there as it stood still. */
  moment: Buffer[] = []
  stops = 0
  resumes = 0

  constructor(t: Test, ram: RamBlock[]) {
    this.ram = ram
    this.writers = ram.flatMap((block) => {
      const half = block.pages / 2
      return [new StepWriter(block, 0, half), new StepWriter(block, half, half)]
    })
    t.teardown(() => Promise.all(this.writers.map((writer) => writer.end())))
  }

  readonly stop = (): void => {
    this.stops++
    for (const writer of this.writers) writer.halt()
    this.moment = this.ram.map((block) => Buffer.from(block.bytes(0, block.size)))
  }

  readonly resume = (): void => {
    this.resumes++
    for (const writer of this.writers) writer.resume()
  }

  async runs(writes = 500): Promise<void> {
    await Promise.all(this.writers.map((writer) => writer.goesOn(writes)))
  }
}

/** In memory: what waits for a disk is no part of these tests. */
function folder(t: Test): string {
  const path = mkdtempSync('/dev/shm/multifd-background-')
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

function filled(block: RamBlock): RamBlock {
  // Every fourth page stays zero.
  for (let page = 0; page < block.pages; page++)
    if (page % 4 !== 3) block.bytes(page * PAGE, PAGE).fill((page % 255) + 1)
  return block
}

/** The blocks as the file has them. */
function contents(path: string): Buffer[] {
  const file = readFileSync(path)
  return readSnapshot(path).blocks.map(({ size, pagesOffset, populated }) => {
    const bytes = Buffer.alloc(size)
    for (let page = 0; page < size / PAGE; page++) {
      const at = pagesOffset + page * PAGE
      if (populated.has(page)) file.copy(bytes, page * PAGE, at, at + PAGE)
    }
    return bytes
  })
}

function words(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

t.test('the file is of one moment, while threads write to every kind of block', { skip }, async (t) => {
  const place = folder(t)
  const mapped = RamBlock.mapFile({ idstr: 'mapped', path: join(place, 'heap'), size: 8 * MIB })
  t.teardown(() => mapped.close())
  const memory = makeSharedMemory(4 * MIB)
  const sparse = RamBlock.allocate({ idstr: 'dimm', size: 8 * MIB, discardManager: { granuleSize: MIB } })
  sparse.discardManager!.populate(0, 8 * MIB)
  const ram = [
    filled(RamBlock.allocate({ idstr: 'heap', size: 32 * MIB })),
    RamBlock.adopt({ idstr: 'adopted', memory }),
    filled(mapped),
    sparse,
  ]
  const program = new Program(t, ram)
  const path = join(place, 'x')
  for (let round = 0; round < 3; round++) {
    await program.runs()
    const { pages, downtime, totalTime } = await saveSnapshot({ ram, path, stop: program.stop, resume: program.resume })
    t.strictSame([program.stops, program.resumes], [round + 1, round + 1])
    for (const [index, bytes] of contents(path).entries()) {
      t.equal(bytes.compare(program.moment[index]!), 0, `${ram[index]!.idstr} is what was there`)
      for (const first of [0, ram[index]!.pages / 2]) t.equal(groupFault(words(bytes), first), undefined)
    }
    t.ok(pages.held > 0, `${pages.held} pages had a writer that waited`)
    t.equal(
      pages.normal + pages.duplicate,
      ram.reduce((sum, block) => sum + block.pages, 0),
    )
    t.ok(downtime > 0 && downtime < totalTime)
    t.notOk(existsSync(`${path}.partial`))
  }
  await program.runs()
  t.not(Buffer.compare(ram[0]!.bytes(), program.moment[0]!), 0, 'the program went on')
})

t.test("a write of the program's own thread is held up too", { skip }, async (t) => {
  const block = filled(RamBlock.allocate({ idstr: 'heap', size: 64 * MIB }))
  const before = Buffer.from(block.bytes())
  const path = join(folder(t), 'x')
  const { pages } = await saveSnapshot({
    ram: [block],
    path,
    resume() {
      t.fail('nobody stopped it')
    },
    logger: { debug() {}, info: () => block.bytes().fill(7), warn() {}, error() {} },
  })
  t.equal(contents(path)[0]!.compare(before), 0)
  t.equal(pages.normal, (block.pages / 4) * 3)
  await saveSnapshot({ ram: [block], path, stop() {}, resume: () => void block.bytes().fill(9) })
  t.equal(contents(path)[0]!.compare(Buffer.alloc(block.size, 7)), 0, 'nothing of what came after the moment')
})

t.test('the file is a snapshot like any other', { skip }, async (t) => {
  const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 16 * MIB }))])
  await program.runs()
  const path = join(folder(t), 'x')
  await saveSnapshot({ ram: program.ram, path, stop: program.stop, resume: program.resume })
  t.match(inspectSnapshot(path), { machineType: 'multifd', ram: { size: 16 * MIB }, devices: [] })
  const block = RamBlock.allocate({ idstr: 'heap', size: 16 * MIB })
  await using destination = new MigrationDestination({ ram: [block] })
  await using sender = new SnapshotSender(path)
  await sender.send(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  t.equal(Buffer.compare(block.bytes(), program.moment[0]!), 0, 'and a program gets its memory back from it')
})

/** A sparse block with granules 1 and 3 of 8, and what a sparse program has to be at the other end. */
function sparseBlock(filledUp: boolean): RamBlock {
  const block = RamBlock.allocate({ idstr: 'dimm', size: 8 * MIB, discardManager: { granuleSize: MIB } })
  // Other granules than the source's: what comes decides.
  for (const granule of filledUp ? [1, 3] : [0, 3]) block.discardManager!.populate(granule * MIB, MIB)
  if (filledUp) for (const granule of [1, 3]) block.bytes(granule * MIB, MIB / 2).fill(granule)
  return block
}

/** Sends a snapshot to a new program with such blocks. */
async function revive(path: string, ram: RamBlock[], devices: Device[] = [], multifd = true): Promise<void> {
  await using destination = new MigrationDestination({ ram, devices, parameters: { multifd } })
  await using sender = new SnapshotSender(path, { parameters: { multifd } })
  await sender.send(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
}

t.test('devices and what a sparse block has are in it, and come back into a program', { skip }, async (t) => {
  const ram = [filled(RamBlock.allocate({ idstr: 'heap', size: 4 * MIB })), sparseBlock(true)]
  const path = join(folder(t), 'x')
  let turns = 0
  const counter: Device = {
    idstr: 'counter',
    version: 1,
    // What a device writes into memory as it is saved is of the moment.
    save() {
      ram[0]!.bytes(3 * PAGE, PAGE).fill(7)
      return turns
    },
    load() {},
  }
  const resume = (): void => {
    turns++
    ram[1]!.bytes(MIB, MIB).fill(99)
    t.throws(() => ram[1]!.discardManager!.populate(0, MIB), { code: 'ERR_MULTIFD_STATE' }, 'the map stands still')
  }
  const stop = (): void => {
    turns = 41
  }
  const { pages } = await saveSnapshot({ ram, devices: [counter], path, stop, resume })
  t.equal(pages.normal + pages.duplicate, (4 + 2) * 256, 'what is discarded is no page')
  t.match(inspectSnapshot(path).devices, [
    { idstr: 'dimm/virtio-mem-device-early', early: true },
    { idstr: 'counter', early: false },
  ])
  for (const multifd of [true, false]) {
    const there = [RamBlock.allocate({ idstr: 'heap', size: 4 * MIB }), sparseBlock(false)]
    let loaded: unknown
    const device: Device = {
      ...counter,
      load: (value) => {
        loaded = value
      },
    }
    await revive(path, there, [device], multifd)
    t.equal(loaded, 41)
    t.equal(there[0]!.bytes(3 * PAGE, 1)[0], 7)
    const { discardManager } = there[1]!
    t.strictSame(
      Array.from({ length: 8 }, (_, granule) => discardManager!.isPopulated(granule * MIB, MIB)),
      [false, true, false, true, false, false, false, false],
    )
    const wanted = sparseBlock(true)
    t.equal(Buffer.compare(there[1]!.bytes(0, 8 * MIB), wanted.bytes(0, 8 * MIB)), 0)
    t.equal(there[1]!.residentBytes(0, MIB), 0, 'what is discarded takes no memory')
  }
  ram[1]!.discardManager!.populate(0, MIB) // it is not held any more
})

t.test('a sparse program that migrated into a file comes back as well', async (t) => {
  const path = join(folder(t), 'x')
  await save(path, { ram: [sparseBlock(true)] })
  const there = sparseBlock(false)
  await revive(path, [there])
  t.equal(Buffer.compare(there.bytes(0, 8 * MIB), sparseBlock(true).bytes(0, 8 * MIB)), 0)
  t.notOk(there.discardManager!.isPopulated(0, MIB))
  const file = readFileSync(path)
  const idstr = 'dimm/virtio-mem-device-early'
  // Behind the name: instance, version, address, size.
  file.writeBigUInt64BE(BigInt(4 * MIB), file.indexOf(idstr) + idstr.length + 16)
  writeFileSync(path, file)
  t.throws(() => new SnapshotSender(path), { code: 'ERR_MULTIFD_SNAPSHOT', message: /'dimm' .* its map 4194304 bytes/ })
})

t.test('devices that can not be kept are refused by name, and the program goes on', { skip }, async (t) => {
  const place = folder(t)
  const path = join(place, 'x')
  const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 4 * MIB }))])
  const { ram, stop, resume } = program
  const device: Device = { idstr: 'modem', version: 1, save: () => 0, load() {} }
  const saving = (devices: Device[]): Promise<unknown> => saveSnapshot({ ram, path, stop, resume, devices })
  await t.rejects(saving([{ ...device, early: true }]), {
    code: 'ERR_MULTIFD_UNSUPPORTED',
    message: /'modem' 0 is saved/,
  })
  await t.rejects(saving([{ ...device, unmigratable: 'it dials' }]), {
    code: 'ERR_MULTIFD_DEVICE',
    message: /it dials/,
  })
  t.equal(program.stops, 0, 'what can be known before does not stop it')
  const broken = (): never => {
    throw new Error('no carrier')
  }
  await t.rejects(saving([{ ...device, save: broken }]), { code: 'ERR_MULTIFD_DEVICE', message: /no carrier/ })
  t.equal(program.stops, 1)
  await unharmed(t, program, place)
})

t.test('where its thread dies everybody goes on, and nothing stays', { skip }, async (t) => {
  const place = folder(t)
  const sparse = sparseBlock(true)
  const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 128 * MIB }))])
  const ram = [...program.ram, sparse]
  for (const when of ['while it waits for the program', 'in the middle']) {
    let thread: Worker | undefined
    const { Worker: Real } = workerThreads
    workerThreads.Worker = class extends Real {
      constructor(...options: ConstructorParameters<typeof Real>) {
        super(...options)
        thread = this
      }
    }
    syncBuiltinESMExports()
    const stop = async (): Promise<void> => {
      program.stop()
      if (when !== 'in the middle') await thread!.terminate()
    }
    const resume = (): void => {
      program.resume()
      setTimeout(() => thread!.terminate(), 5)
    }
    const saving = saveSnapshot({ ram, path: join(place, 'x'), stop, resume })
    workerThreads.Worker = Real
    syncBuiltinESMExports()
    await t.rejects(saving, { code: 'ERR_MULTIFD_INTERNAL', message: /thread of the snapshot died/ }, when)
    await program.runs()
    t.strictSame(readdirSync(place), [])
    sparse.discardManager!.discard(3 * MIB, MIB)
    sparse.discardManager!.populate(3 * MIB, MIB)
  }
  await unharmed(t, program, place)
})

/** After a snapshot that failed: the program runs, nothing of the file is left, the next one succeeds. */
async function unharmed(t: Test, program: Program, place: string): Promise<void> {
  t.equal(program.stops, program.resumes)
  await program.runs()
  for (const block of program.ram) {
    program.stop()
    for (const first of [0, block.pages / 2]) t.equal(groupFault(words(block.bytes(0, block.size)), first), undefined)
    program.resume()
  }
  t.strictSame(readdirSync(place), [])
  const path = join(folder(t), 'again')
  await saveSnapshot({ ram: program.ram, path, stop: program.stop, resume: program.resume })
  t.equal(contents(path)[0]!.compare(program.moment[0]!), 0)
}

t.test(
  'a full disk',
  { skip: skip || (process.getuid?.() !== 0 && 'only root can mount a small file system') },
  async (t) => {
    const disk = mkdtempSync(join(tmpdir(), 'multifd-full-'))
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'pipe' })
    } catch (error) {
      t.comment(`skipped, no file system can be mounted: ${(error as Error).message}`)
      return
    }
    t.teardown(() => {
      execFileSync('umount', [disk])
      rmSync(disk, { recursive: true })
    })
    const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 32 * MIB }))])
    await program.runs()
    const saving = saveSnapshot({ ram: program.ram, path: join(disk, 'x'), stop: program.stop, resume: program.resume })
    await t.rejects(saving, { code: 'ERR_MULTIFD_FILE', message: /full/ })
    await unharmed(t, program, disk)
  },
)

t.test('cancelled in the middle: an older file stays', { skip }, async (t) => {
  const place = folder(t)
  const path = join(place, 'x')
  writeFileSync(path, 'an older file')
  const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 128 * MIB }))])
  await program.runs()
  const abort = new AbortController()
  const resume = (): void => {
    program.resume()
    setTimeout(() => abort.abort(new Error('enough')), 10)
  }
  const { signal } = abort
  const saving = saveSnapshot({ ram: program.ram, path, stop: program.stop, resume, signal })
  await t.rejects(saving, { code: 'ERR_MULTIFD_ABORTED', cause: { message: 'enough' } })
  await t.rejects(saveSnapshot({ ram: program.ram, path, signal }), { code: 'ERR_MULTIFD_ABORTED' })
  t.strictSame(readdirSync(place), ['x'])
  t.equal(readFileSync(path, 'utf8'), 'an older file')
  await program.runs()
})

t.test('what can not be saved is refused, and the program goes on', { skip }, async (t) => {
  const place = folder(t)
  const path = join(place, 'x')
  const program = new Program(t, [filled(RamBlock.allocate({ idstr: 'heap', size: 4 * MIB }))])
  const { ram, stop, resume } = program
  await t.rejects(saveSnapshot({ ram: [], path }), { code: 'ERR_MULTIFD_ARGUMENT' })
  await t.rejects(saveSnapshot({ ram: [...ram, ...ram], path }), { code: 'ERR_MULTIFD_ARGUMENT', message: /one name/ })
  await t.rejects(saveSnapshot({ ram, path: join(place, 'no', 'x'), stop, resume }), { code: 'ERR_MULTIFD_FILE' })
  t.equal(program.stops, 0, 'what can be known before does not stop it')
  const fails = {
    stop() {
      stop()
      throw new Error('not now')
    },
    resume,
  }
  await t.rejects(saveSnapshot({ ram, path, ...fails }), { code: 'ERR_MULTIFD_STATE', message: /stopped: not now/ })
  const tracker = new WriteTracker()
  const other = RamBlock.allocate({ idstr: 'other', size: MIB })
  tracker.start([other])
  await t.rejects(saveSnapshot({ ram: [...ram, other], path, stop, resume }), {
    code: 'ERR_MULTIFD_STATE',
    message: /tracked already/,
  })
  tracker.stop()
  for (const feature of ['userfaultfd'] as const) {
    missingFromKernel.add(feature)
    t.teardown(() => missingFromKernel.clear())
    await t.rejects(saveSnapshot({ ram, path, stop, resume }), {
      code: 'ERR_MULTIFD_UNSUPPORTED',
      message:
        /userfaultfd can not be opened\. \/dev\/userfaultfd: .*System call userfaultfd: .*vm\.unprivileged_userfaultfd=1/,
    })
    missingFromKernel.clear()
  }
  await unharmed(t, program, place)
})

t.test('a process that exits in the middle of it exits', { skip }, (t) => {
  const place = folder(t)
  const from = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href)
  const code = `
    const { RamBlock, saveSnapshot } = await import(${from('../../src/index.js')})
    const { StepWriter } = await import(${from('./step-writer.js')})
    const block = RamBlock.allocate({ idstr: 'heap', size: ${128 * MIB} })
    block.bytes().fill(1)
    const writer = new StepWriter(block, 0, block.pages)
    await writer.goesOn(1000)
    const resume = () => { writer.resume(); setTimeout(() => { console.log('exits'); process.exit(7) }, 10) }
    await saveSnapshot({ ram: [block], path: ${JSON.stringify(join(place, 'x'))}, stop: () => writer.halt(), resume })
    console.log('saved')`
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    timeout: 30_000,
    env: {},
  })
  t.equal(stderr, '')
  t.equal(stdout, 'exits\n')
  t.equal(status, 7)
  t.end()
})
