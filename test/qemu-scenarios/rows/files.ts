// Streams in files, and mapped-ram files: what QEMU writes we read, and what we write QEMU reads.

import assert from 'node:assert/strict'
import { constants, openSync, readFileSync, writeFileSync } from 'node:fs'
import {
  inspectSnapshot,
  MigrationDestination,
  RamBlock,
  SnapshotReceiver,
  SnapshotSender,
} from '../../../src/index.js'
import { closeDescriptor } from '../../../src/os/socket.js'
import { type Qemu, QmpError } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import {
  atRest,
  bothEnd,
  goesOn,
  letGo,
  receiverFor,
  sameMemory,
  someGuest,
  sourceFor,
  startGuest,
} from '../passage.js'
import { type Result, type Row, rejection, works } from '../table.js'

const OFFSET = 0x1000
/** What somebody keeps in the file before the stream. */
const HEAD = Buffer.alloc(OFFSET, 'head')
const MAPPED_RAM = { capabilities: ['mapped-ram'] }

function headStays(path: string): void {
  assert.ok(readFileSync(path).subarray(0, OFFSET).equals(HEAD), 'what lies before the offset stays')
}

interface Files {
  offset?: number
  /** Whether QEMU has the file as a set of descriptors. */
  set?: true
  directIo?: true
}

const atOffset = ({ offset }: Files): string => (offset === undefined ? '' : `,offset=${offset}`)

/** What a QEMU is started with, and its URI for a file. */
function fileFor(path: string, flags: number, { offset, set, directIo }: Files) {
  const uri = `file:${set ? '/dev/fdset/1' : path}${atOffset({ ...(offset !== undefined && { offset }) })}`
  if (!set) return { uri, hardware: {} }
  const descriptors = [flags, ...(directIo ? [flags | constants.O_DIRECT] : [])].map((mode) => openSync(path, mode))
  const extraArgs = descriptors.flatMap((_, index) => ['-add-fd', `fd=${3 + index},set=1`])
  return { uri, hardware: { descriptors, extraArgs } }
}

async function withDescriptors<T>(descriptors: readonly number[] = [], start: () => Promise<T>): Promise<T> {
  try {
    return await start()
  } finally {
    for (const descriptor of descriptors) closeDescriptor(descriptor)
  }
}

/** A plain stream: QEMU → file → us → file → QEMU. */
async function stream(ground: Ground, files: Files): Promise<Result> {
  const { offset } = files
  const path = ground.path('theirs')
  if (offset !== undefined) writeFileSync(path, HEAD)
  const theirs = fileFor(path, constants.O_WRONLY | constants.O_CREAT, files)
  const original = await withDescriptors(theirs.hardware.descriptors, () =>
    startGuest(ground, { hardware: theirs.hardware }),
  )
  await letGo(original, theirs.uri, {})
  await original.waitMigration()
  await atRest(original)
  if (offset !== undefined) headStays(path)
  const receiver = receiverFor(ground, {})
  await receiver.listen(`file:${path}${atOffset(files)}`)
  await receiver.completed
  const { guest } = receiver
  await sameMemory(guest, original)

  const ours = ground.path('ours')
  if (offset !== undefined) writeFileSync(ours, Buffer.concat([HEAD, Buffer.alloc(2 ** 20, 'old')]))
  await sourceFor(ground, guest, { ours: { returnPath: false } }).migrate(`file:${ours}${atOffset(files)}`)
  if (offset !== undefined) headStays(ours)
  const back = fileFor(ours, constants.O_RDONLY, files)
  const heir = await withDescriptors(back.hardware.descriptors, () =>
    ground.start({ incoming: 'defer', ...back.hardware }),
  )
  await heir.listen(back.uri)
  await heir.waitMigration()
  await sameMemory(guest, heir)
  await goesOn(heir)
  return works("QEMU's stream read, ours loaded by QEMU; the memory is the same, and the guest goes on")
}

async function badOffset(ground: Ground): Promise<Result> {
  const uri = `file:${ground.path('stream')},offset=0x20M`
  const qemu = await startGuest(ground)
  await assert.rejects(qemu.command('migrate', { uri }), QmpError)
  const block = RamBlock.allocate({ idstr: 'block', size: 2 ** 20 })
  const parameters = { multifd: false, returnPath: false }
  await using destination = new MigrationDestination({ ram: [block], parameters })
  const { code } = await rejection(destination.listen(uri))
  const guest = await someGuest(ground)
  assert.equal((await rejection(sourceFor(ground, guest, { ours: parameters }).migrate(uri))).code, code)
  assert.equal(await qemu.status(), 'running')
  return works(`refused by QEMU and by us, \`${code}\``)
}

interface Mapped extends Files {
  live?: true
  channels?: number
}

/** QEMU → its file → us → QEMU; and us → our file → QEMU, with the same flavour at QEMU's side. */
async function mapped(ground: Ground, how: Mapped): Promise<Result> {
  const { live, channels: multifdChannels, directIo, offset = 0 } = how
  const parameters = directIo ? { 'direct-io': true } : {}
  const path = ground.path('theirs')
  if (offset > 0) writeFileSync(path, HEAD)
  const theirs = fileFor(path, constants.O_WRONLY | constants.O_CREAT, how)
  const original = await withDescriptors(theirs.hardware.descriptors, () =>
    startGuest(ground, { hardware: theirs.hardware }),
  )
  if (live)
    await letGo(original, theirs.uri, {
      ...(multifdChannels && { channels: multifdChannels }),
      qemu: { ...MAPPED_RAM, parameters },
    })
  else {
    await original.stop()
    await original.migrate({ uri: theirs.uri, multifdChannels, ...MAPPED_RAM, parameters })
  }
  await original.waitMigration()
  await atRest(original)
  const { machineType, runState, ram } = inspectSnapshot(path, { offset })
  assert.equal(machineType, original.machine)
  assert.equal(runState, live ? 'running' : 'paused')
  assert.equal(ram.blocks.find(({ idstr }) => idstr === 'pc.ram')?.size, original.memoryBytes)

  // Over sockets: into another QEMU, and into a file of ours.
  const heir = await ground.start({ incoming: 'defer' })
  const sender = ground.own(new SnapshotSender(path, { offset, parameters: { multifdChannels: 2 } }))
  await bothEnd(sender.send(await heir.listen('tcp:127.0.0.1:0', { multifdChannels: 2 })), heir.waitMigration())
  await same(original, heir)
  const ours = ground.path('ours')
  if (offset > 0) writeFileSync(ours, HEAD)
  const receiver = ground.own(new SnapshotReceiver(ours, { offset, parameters: { multifdChannels: 2 } }))
  await sender.send(await receiver.listen('tcp:127.0.0.1:0'))
  await receiver.completed
  if (offset > 0) for (const file of [path, ours]) headStays(file)

  const back = fileFor(ours, constants.O_RDONLY, how)
  const reader = await withDescriptors(back.hardware.descriptors, () =>
    ground.start({ incoming: 'defer', ...back.hardware }),
  )
  await reader.listen(back.uri, { multifdChannels, ...MAPPED_RAM, parameters })
  await reader.waitMigration()
  await same(original, reader)
  await goesOn(reader)
  return works("QEMU's file inspected and sent, ours loaded by QEMU; the memory is the same, and the guest goes on")
}

async function same(one: Qemu, other: Qemu): Promise<void> {
  assert.ok((await one.memory()).equals(await other.memory()), 'the memory is the same')
}

const DIRECT: Mapped = { channels: 4, directIo: true }

export const FILES: readonly Row[] = [
  { name: 'precopy/file', runs: [{ roles: ['F'], run: (ground) => stream(ground, {}) }] },
  { name: 'precopy/file/offset', runs: [{ roles: ['F'], run: (ground) => stream(ground, { offset: OFFSET }) }] },
  {
    name: 'precopy/file/offset/fdset',
    runs: [{ roles: ['F'], run: (ground) => stream(ground, { offset: OFFSET, set: true }) }],
  },
  { name: 'precopy/file/offset/bad', runs: [{ roles: ['F'], run: badOffset }] },
  ...mappedRows('precopy/file/mapped-ram', {}, 'test/qemu/interop.test.ts'),
  ...mappedRows('multifd/file/mapped-ram', { channels: 4 }),
  { name: 'multifd/file/mapped-ram/dio', runs: [{ roles: ['F'], run: (ground) => mapped(ground, DIRECT) }] },
  {
    name: 'multifd/file/mapped-ram/fdset',
    runs: [{ roles: ['F'], run: (ground) => mapped(ground, { channels: 4, set: true, offset: OFFSET }) }],
  },
  {
    name: 'multifd/file/mapped-ram/fdset/dio',
    runs: [{ roles: ['F'], run: (ground) => mapped(ground, { ...DIRECT, set: true, offset: OFFSET }) }],
  },
]

function mappedRows(name: string, how: Mapped, covered?: string): Row[] {
  const row = (suffix: string, more: Mapped): Row => {
    const run = (ground: Ground): Promise<Result> => mapped(ground, { ...how, ...more })
    return { name: name + suffix, runs: [{ roles: ['F'], run, ...(covered === undefined ? {} : { covered }) }] }
  }
  return [row('', {}), row('/live', { live: true })]
}

/** What analyze-script does: everything of a stream but its pages, read without a QEMU. */
async function analyze(ground: Ground): Promise<Result> {
  const original = await startGuest(ground)
  await letGo(original, `file:${ground.path('stream')}`, {})
  await original.waitMigration()
  const receiver = ground.own(new SnapshotReceiver(ground.path('snapshot'), { parameters: { multifd: false } }))
  await receiver.listen(`file:${ground.path('stream')}`)
  await receiver.completed
  const { devices = [], ram, runState } = inspectSnapshot(ground.path('snapshot'))
  assert.equal(runState, 'running')
  assert.ok(ram.blocks.some(({ idstr, size }) => idstr === 'pc.ram' && size === original.memoryBytes))
  const known = new Set(devices.map(({ idstr }) => idstr))
  for (const name of ['timer', 'cpu', 'globalstate', 'fw_cfg', 'i8259'])
    assert.ok(known.has(name), `a section '${name}'`)
  return works('its RAM blocks, its run state and every device section, with their sizes')
}

export const ANALYZE: Row = { name: 'analyze-script', runs: [{ roles: ['F'], run: analyze }] }
