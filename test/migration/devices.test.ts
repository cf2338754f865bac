// A program's devices on their way through a migration: when they are saved and loaded, and what fails it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  type MigrateOptions,
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  RamBlock,
  SnapshotReceiver,
  SnapshotSender,
  vmstate,
} from '../../src/index.js'
import { inspectSnapshot } from '../../src/snapshot/inspect.js'
import {
  allocate,
  checksums,
  fillMixed,
  HandSource,
  leavesNothing,
  openDescriptors,
  PAGE,
  rejection,
  streamEnd,
  tells,
  worksAgain,
} from '../support/peers/index.js'
import { sectionOf } from '../vmstate/helpers.js'

const { describe, device, END_OF_LIST, bool, u8, u16, u32, varArray } = vmstate
const MiB = 2 ** 20
const heap = { idstr: 'heap', size: 2 * MiB }

interface Uart {
  divider: number
  enabled: boolean
  fifo: number[]
}

const uart = describe<Uart>({
  name: 'uart',
  fields: [u16('divider'), bool('enabled'), varArray(u8('fifo_count'), u8('fifo'), { max: 16 }), END_OF_LIST],
})

const board = describe<{ revision: number; seen: number }>({
  name: 'board',
  early: true,
  fields: [u32('revision'), END_OF_LIST],
  postLoad(state) {
    state.seen++
  },
})

interface Side {
  ram: RamBlock[]
  devices: vmstate.Device[]
  parameters?: Partial<MigrationParameters>
}

async function migrate(ours: Side, theirs: Side, hooks: MigrateOptions = {}) {
  const destination = new MigrationDestination(theirs)
  const source = new MigrationSource(ours)
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const [sent, received] = await Promise.allSettled([source.migrate(uri, hooks), destination.completed])
  await Promise.all([source.close(), destination.close()])
  return { source, destination, sent, received }
}

t.setTimeout(180_000)
t.before(() => worksAgain(t, new MigrationSource({ ram: allocate([heap]) }), allocate([heap])))

for (const multifd of [true, false]) {
  t.test(`devices of every kind move with the memory${multifd ? '' : ', without multifd'}`, async (t) => {
    const before = openDescriptors()
    const parameters = { multifd }
    const [ours, theirs] = [allocate([heap]), allocate([heap])]
    fillMixed(ours[0]!)
    const port: Uart = { divider: 1, enabled: false, fifo: [] }
    const other: Uart = { divider: 0, enabled: false, fifo: [] }
    const [revision, revisionThere] = [
      { revision: 7, seen: 0 },
      { revision: 0, seen: 0 },
    ]
    const session = { user: 'ada', since: new Date(12345), clients: ['a', 'b'], queued: new Uint8Array([1, 2, 3]) }
    let loaded: unknown
    const log: string[] = []
    const source = new MigrationSource({
      ram: ours,
      parameters,
      devices: [
        device(uart, port),
        { idstr: 'session', version: 2, save: () => session, load: () => t.fail('this is the source') },
        device(board, revision),
      ],
    })
    const destination = new MigrationDestination({
      ram: theirs,
      parameters,
      devices: [
        device(uart, other),
        device(board, revisionThere),
        {
          idstr: 'session',
          version: 3,
          minimumVersion: 1,
          save: () => t.fail('this is the destination'),
          load: (value, version) => {
            loaded = { value, version }
            log.push(`loaded while the source is ${source.status}`)
            t.strictSame(checksums(theirs), checksums(ours), 'its memory is complete by then')
          },
        },
      ],
    })
    const stop = (): void => {
      // What the program does last is in what is saved.
      Object.assign(port, { divider: 12, enabled: true, fifo: [4, 5, 6] })
      log.push('stopped')
    }
    const { status } = await source.migrate(await destination.listen('tcp:127.0.0.1:0'), { stop })
    log.push(`the source has ${status}`)
    await destination.completed
    t.strictSame(other, port)
    t.strictSame(revisionThere, { revision: 7, seen: 1 })
    t.strictSame(loaded, { value: session, version: 2 })
    t.strictSame(log, ['stopped', 'loaded while the source is device', 'the source has completed'])
    t.strictSame(checksums(theirs), checksums(ours))
    await Promise.all([source.close(), destination.close()])
    await leavesNothing(t, before)
  })
}

t.test('early devices are loaded before any page comes, the others once all are there', async (t) => {
  const [ours, theirs] = [allocate([heap]), allocate([heap])]
  ours[0]!.bytes().fill(7)
  const whenLoaded: Record<string, number> = {}
  const noting = (early: boolean): vmstate.Device => ({
    idstr: early ? 'early' : 'late',
    version: 1,
    early,
    save: () => early,
    load: (value) => {
      t.equal(value, early)
      whenLoaded[early ? 'early' : 'late'] = theirs[0]!.bytes().filter((byte) => byte === 7).length
    },
  })
  const devices = [noting(false), noting(true)]
  const { sent } = await migrate({ ram: ours, devices }, { ram: theirs, devices })
  t.match(sent, { status: 'fulfilled' })
  t.strictSame(whenLoaded, { early: 0, late: 2 * MiB })
})

t.test('what a device writes into memory as it is saved goes with the last pages', async (t) => {
  const [ours, theirs] = [allocate([heap]), allocate([heap])]
  const ring = describe<{ head: number }>({
    name: 'ring',
    fields: [u32('head'), END_OF_LIST],
    preSave({ head }) {
      ours[0]!.bytes(5 * PAGE, 1)[0] = head
      ours[0]!.markDirty(5 * PAGE, 1)
    },
  })
  const there = { head: 0 }
  const { sent } = await migrate(
    { ram: ours, devices: [device(ring, { head: 99 })] },
    { ram: theirs, devices: [device(ring, there)] },
  )
  t.match(sent, { status: 'fulfilled' })
  t.equal(there.head, 99)
  t.equal(theirs[0]!.bytes(5 * PAGE, 1)[0], 99)
})

const packed = (idstr: string, more: Partial<vmstate.PackedDevice> = {}): vmstate.PackedDevice => ({
  idstr,
  version: 1,
  save: () => 1,
  load: () => {},
  ...more,
})
const loading = (load: (value: unknown) => void): vmstate.Device[] => [packed('app', { load })]

const refusals: { title: string; ours: vmstate.Device[]; theirs: vmstate.Device[]; says: RegExp }[] = [
  { title: 'a device that is not there', ours: [packed('app')], theirs: [], says: /section 'app' 0: this side has no/ },
  {
    title: 'a device that does not come',
    ours: [packed('app')],
    theirs: [packed('app'), packed('more')],
    says: /has sent no section 'more' 0/,
  },
  {
    title: 'an early device that does not come',
    ours: [],
    theirs: [packed('app', { early: true })],
    says: /has sent no section 'app' 0/,
  },
  {
    title: 'a version that is not known',
    ours: [packed('app', { version: 3 })],
    theirs: [packed('app', { version: 2 })],
    says: /section 'app' 0: .*version/,
  },
  {
    title: 'a device that is early on one side',
    ours: [packed('app', { early: true })],
    theirs: [packed('app')],
    says: /section 'app' 0: section comes before the pages/,
  },
  {
    title: 'a field that can not be',
    ours: [device(uart, { divider: 1, enabled: true, fifo: Array.from({ length: 16 }, () => 1) })],
    theirs: [
      device(
        describe<Uart>({
          name: 'uart',
          fields: [u16('divider'), bool('enabled'), varArray(u8('fifo_count'), u8('fifo'), { max: 8 }), END_OF_LIST],
        }),
        { divider: 0, enabled: false, fifo: [] },
      ),
    ],
    says: /section 'uart' 0, fifo: /,
  },
  {
    title: 'a description that differs by a field',
    ours: [device(uart, { divider: 1, enabled: true, fifo: [1, 2, 3] })],
    theirs: [
      device(
        describe<{ divider: number; enabled: boolean }>({
          name: 'uart',
          fields: [u16('divider'), bool('enabled'), END_OF_LIST],
        }),
        { divider: 0, enabled: false },
      ),
    ],
    says: /section 'uart' 0: footer of section 1 starts with byte 0x3/,
  },
  {
    title: 'a program that does not take it',
    ours: [packed('app')],
    theirs: loading(() => {
      throw new Error('no such user here')
    }),
    says: /section 'app' 0: load failed: no such user here/,
  },
]

for (const { title, ours, theirs, says } of refusals) {
  t.test(`${title} fails the migration on both sides`, async (t) => {
    const before = openDescriptors()
    const ram = allocate([heap])
    fillMixed(ram[0]!)
    const content = checksums(ram)
    const log: string[] = []
    const hooks = { stop: () => void log.push('stop'), resume: () => void log.push('resume') }
    const { source, destination, sent, received } = await migrate(
      { ram, devices: ours },
      { ram: allocate([heap]), devices: theirs },
      hooks,
    )
    tells(t, received.status === 'rejected' && received.reason, {
      code: ['ERR_MULTIFD_DEVICE', 'ERR_MULTIFD_PROTOCOL'],
      says,
    })
    tells(t, sent.status === 'rejected' && sent.reason, {
      code: ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED'],
      says: /destination failed|gone|closed/,
    })
    t.equal(source.status, 'failed')
    t.equal(destination.status, 'failed')
    t.ok(log.length === 0 || log.join() === 'stop,resume', `the program goes on: ${log.join()}`)
    t.strictSame(checksums(ram), content)
    await leavesNothing(t, before)
  })
}

t.test('a device that can not be saved fails it, and the program goes on', async (t) => {
  const before = openDescriptors()
  const log: string[] = []
  const hooks = { stop: () => void log.push('stop'), resume: () => void log.push('resume') }
  const broken = packed('app', {
    save: () => {
      throw new Error('the queue is not empty')
    },
  })
  const [ours, theirs] = [allocate([heap]), allocate([heap])]
  const { sent, received } = await migrate(
    { ram: ours, devices: [broken] },
    { ram: theirs, devices: [packed('app')] },
    hooks,
  )
  tells(t, sent.status === 'rejected' && sent.reason, {
    code: 'ERR_MULTIFD_DEVICE',
    says: /device 'app' 0: save failed: the queue is not empty/,
  })
  t.equal(received.status, 'rejected')
  t.strictSame(log, ['stop', 'resume'])
  await leavesNothing(t, before)
})

t.test('what can not be migrated at all is said before anything is connected', async (t) => {
  const ram = allocate([heap])
  const gpu = new MigrationSource({ ram, devices: [packed('gpu', { unmigratable: 'its memory is out of reach' })] })
  tells(t, await rejection(gpu.migrate('tcp:127.0.0.1:1')), {
    code: 'ERR_MULTIFD_DEVICE',
    says: /device 'gpu' 0 can not be migrated: its memory is out of reach/,
  })
  t.equal(gpu.status, 'none')
  const early = new MigrationSource({ ram, devices: [packed('app', { early: true, save: () => new Map() })] })
  tells(t, await rejection(early.migrate('tcp:127.0.0.1:1')), { code: 'ERR_MULTIFD_DEVICE', says: /device 'app' 0/ })
  t.throws(() => new MigrationSource({ ram, devices: [packed('a'), { ...packed('a'), instanceId: 0 }] }), {
    code: 'ERR_MULTIFD_ARGUMENT',
  })
  t.throws(() => new MigrationDestination({ ram, devices: [{ ...packed('a'), version: -1 }] }), {
    code: 'ERR_MULTIFD_ARGUMENT',
  })
})

t.test('a program with devices and a sparse block goes into a snapshot, and comes back', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-devices-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'program')
  const sparse = (): RamBlock =>
    RamBlock.allocate({ idstr: 'dimm', size: 8 * MiB, discardManager: { granuleSize: MiB, address: 64 * MiB } })
  const ours = [...allocate([heap]), sparse()]
  fillMixed(ours[0]!)
  ours[1]!.discardManager!.populate(0, 8 * MiB)
  ours[1]!.bytes(2 * MiB, 3 * MiB).fill(5)
  const port: Uart = { divider: 3, enabled: true, fifo: [9] }
  const app = packed('app', { save: () => ({ open: ['x', 'y'] }) })
  const source = new MigrationSource({ ram: ours, devices: [device(uart, port), app] })
  const receiver = new SnapshotReceiver(path)
  await source.migrate(await receiver.listen('tcp:127.0.0.1:0'))
  await receiver.completed
  const { devices } = await inspectSnapshot(path)
  t.match(
    devices!.map(({ idstr }) => idstr),
    ['dimm/virtio-mem-device-early', 'uart', 'app'],
    'the description has all of them, the early one too',
  )
  const theirs = [...allocate([heap]), sparse()]
  theirs[1]!.discardManager!.populate(0, 3 * MiB)
  const there: Uart = { divider: 0, enabled: false, fifo: [] }
  let opened: unknown
  const destination = new MigrationDestination({
    ram: theirs,
    devices: [device(uart, there), packed('app', { load: (value) => (opened = value) })],
  })
  await using sender = new SnapshotSender(path)
  await sender.send(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  t.strictSame(checksums(theirs), checksums(ours))
  t.strictSame(there, port)
  t.strictSame(opened, { open: ['x', 'y'] })
  t.equal(theirs[1]!.discardManager!.populatedBytes, 8 * MiB)
})

/** What a destination with one device says of a stream whose last part is `tail`, and what it tells the source. */
async function refusal(tail: Uint8Array, returnPath: boolean): Promise<{ error: unknown; word?: number }> {
  const state = { divider: 0, enabled: false, fifo: [] }
  const options = { ram: allocate([heap]), devices: [device(uart, state)], parameters: { stallTimeoutMs: 3000 } }
  const destination = new MigrationDestination(options)
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const failed = rejection(destination.completed)
  const source = await HandSource.connect(uri, { blocks: [heap], returnPath })
  await source.begin()
  source.everyPage(1)
  source.barrier('end')
  source.main.send(tail)
  if (!returnPath) source.close()
  const word = returnPath ? await source.word() : undefined
  const error = await failed
  source.destroy()
  return { error, ...(word === undefined ? {} : { word }) }
}

t.test('state that is not whole is told by name, with a return path and without', async (t) => {
  const payload = Uint8Array.of(0, 1, 1, 1, 5)
  const noFooter = /section 'uart' 0: footer of section 7 starts with byte 0x0/
  for (const returnPath of [true, false]) {
    for (const [tail, says] of [
      // Without a footer there is no end that could be found.
      [Buffer.concat([sectionOf('uart', 1, payload, false), streamEnd()]), noFooter],
      // With one, but not as described.
      [Buffer.concat([sectionOf('uart', 1, Uint8Array.of(0, 1, 1, 1)), streamEnd()]), /footer of section 7 starts/],
      [sectionOf('uart', 1, payload).subarray(0, 25), /section 'uart' 0: /],
      [Buffer.concat([sectionOf('uart', 2, payload), streamEnd()]), /section 'uart' 0: .*version/],
    ] as const) {
      const { error, word } = await refusal(tail, returnPath)
      tells(t, error, { code: ['ERR_MULTIFD_PROTOCOL', 'ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_DEVICE'], says })
      if (returnPath) t.equal(word, 1, 'and the source is told')
    }
  }
})
