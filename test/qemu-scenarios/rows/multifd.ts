// Parallel channels: how the address is named, compression, zero pages, and a second migration after a cancelled one.

import assert from 'node:assert/strict'
import { MigrationDestination, QmpServer, RamBlock } from '../../../src/index.js'
import { completeParameters, type MigrationParameters } from '../../../src/migration/parameters.js'
import { MULTIFD_FLAG } from '../../../src/wire/multifd-packet.js'
import { QmpLine } from '../../qmp/dialogue.js'
import { HandSource, PAGE, packet, pageOf } from '../../support/peers/index.js'
import type { Ground } from '../ground.js'
import {
  atRest,
  bothEnd,
  enterQemu,
  goesOn,
  letGo,
  receiverFor,
  sameMemory,
  someGuest,
  sourceFor,
  startGuest,
  startHeir,
  type Way,
} from '../passage.js'
import { type Result, type Row, type Run, refusedByName, rejection, works } from '../table.js'
import { roundTrip, SAME } from './precopy.js'

const CHANNELS = 4
const COVERED = 'test/qemu/compression.test.ts'

/** How a `migrate` names an address. */
type Naming = (uri: string) => Record<string, unknown>

const byUri: Naming = (uri) => ({ uri })
const byChannels: Naming = (uri) => {
  const [, host, port] = uri.split(':')
  return { channels: [{ 'channel-type': 'main', addr: { transport: 'socket', type: 'inet', host, port } }] }
}

/** A QEMU that is told by QMP to migrate to us; and a source of ours that is told by QMP to migrate to a QEMU. */
function named(naming: Naming): Run {
  return {
    roles: ['S', 'D', 'Q'],
    async run(ground) {
      const receiver = receiverFor(ground, { channels: CHANNELS })
      const uri = await receiver.listen('tcp:127.0.0.1:0')
      const original = await startGuest(ground)
      await original.setMigration({ multifdChannels: CHANNELS, capabilities: ['return-path'] })
      await original.command('migrate', naming(uri))
      await bothEnd(receiver.completed, original.waitMigration())
      await atRest(original)
      const { guest } = receiver
      await sameMemory(guest, original)

      const { heir, uri: there } = await startHeir(ground, { channels: CHANNELS })
      const server = ground.own(new QmpServer({ source: sourceFor(ground, guest, { channels: CHANNELS }) }))
      const socket = ground.path('qmp')
      await server.listen(`unix:${socket}`)
      const line = ground.own(await QmpLine.connect(socket))
      await line.next()
      await line.command('qmp_capabilities')
      await line.command('migrate', naming(there))
      await heir.waitMigration()
      await sameMemory(guest, heir)
      await goesOn(heir)
      return works('both sides driven by QMP; the memory is the same, and the guest goes on')
    },
  }
}

function compressed(method: 'zlib' | 'zstd'): Run {
  const way: Way = {
    channels: CHANNELS,
    qemu: { parameters: { 'multifd-compression': method } },
    ours: { multifdCompression: method },
  }
  return { ...roundTrip(SAME, way), old: true, covered: COVERED }
}

/** A method that wants hardware: refused as a parameter here, and in a packet that says it is of that method. */
function hardware(method: 'qatzip' | 'qpl' | 'uadk'): Row {
  const parameters = { multifdCompression: method } as unknown as Partial<MigrationParameters>
  const roles = (role: 'S' | 'D', attempt: () => unknown): Run => ({
    roles: [role],
    alone: true,
    run: () => refusedByName(attempt),
  })
  return {
    name: `multifd/tcp/plain/${method}`,
    runs: [roles('S', () => completeParameters(parameters)), roles('D', () => takePacket(MULTIFD_FLAG[method]))],
  }
}

// No QEMU at hand has the hardware: the packet is made by hand.
async function takePacket(flags: number): Promise<void> {
  const blocks = [{ idstr: 'block', size: 2 ** 20 }]
  const ram = blocks.map((block) => RamBlock.allocate(block))
  await using destination = new MigrationDestination({ ram, parameters: { multifdChannels: 1 } })
  const source = await HandSource.connect(await destination.listen('tcp:127.0.0.1:0'), { channels: 1, blocks })
  await source.begin()
  source.channels[0]!.send(packet({ idstr: 'block', pages: [[0, pageOf(1)]], flags, spoil: smaller }))
  try {
    await destination.completed
  } finally {
    source.destroy()
  }
}

// A compressed payload's size is not that of its pages.
function smaller(header: DataView): void {
  header.setUint32(28, PAGE / 2)
}

function zeroPages(where: 'legacy' | 'none'): Row {
  const way: Way = {
    channels: CHANNELS,
    qemu: { parameters: { 'zero-page-detection': where } },
    ours: { zeroPageDetection: where },
  }
  return { name: `multifd/tcp/plain/zero-page/${where}`, runs: [roundTrip(SAME, way)] }
}

/** A QEMU that cancels in the middle: it goes on, we say that it is gone, and the next one gets the guest. */
async function theyCancel(ground: Ground): Promise<Result> {
  const way: Way = { channels: CHANNELS }
  const first = receiverFor(ground, way)
  const uri = await first.listen('tcp:127.0.0.1:0')
  const original = await startGuest(ground)
  await original.migrate({ uri, multifdChannels: CHANNELS, parameters: { 'max-bandwidth': 10e6, 'downtime-limit': 1 } })
  await original.waitMigration('active')
  await original.command('migrate_cancel')
  const [{ code }] = await Promise.all([rejection(first.completed), original.waitMigration('cancelled')])
  // Where in the stream it ends is a matter of the moment.
  assert.match(code, /^ERR_MULTIFD_(CLOSED|TRUNCATED)$/)
  await original.waitStatus('running')
  const second = receiverFor(ground, way)
  await letGo(original, await second.listen('tcp:127.0.0.1:0'), way)
  await bothEnd(second.completed, original.waitMigration())
  await atRest(original)
  await sameMemory(second.guest, original)
  return works('the first destination of ours says that the stream is cut off, the second has the memory')
}

/** We cancel in the middle: the first QEMU gives up, and the second gets the guest. */
async function weCancel(ground: Ground): Promise<Result> {
  const way: Way = { channels: CHANNELS }
  const guest = await someGuest(ground)
  const { heir, uri } = await startHeir(ground, way)
  const source = sourceFor(ground, guest, { ...way, ours: { maxBandwidth: 10e6 } })
  source.on('status', (status) => {
    if (status === 'active') source.cancel()
  })
  const { code } = await rejection(source.migrate(uri))
  assert.equal(source.status, 'cancelled')
  const exit = await heir.exited
  assert.notEqual(exit.code, 0, 'QEMU ends with the migration that it waited for')
  await enterQemu(ground, guest, way)
  return works(`\`${code}\`; the second destination has the memory, and the guest goes on`)
}

export const MULTIFD: readonly Row[] = [
  { name: 'multifd/tcp/uri/plain/none', runs: [named(byUri)] },
  { name: 'multifd/tcp/channels/plain/none', runs: [named(byChannels)] },
  { name: 'multifd/tcp/plain/zlib', runs: [compressed('zlib')] },
  { name: 'multifd/tcp/plain/zstd', runs: [compressed('zstd')] },
  ...(['qatzip', 'qpl', 'uadk'] as const).map(hardware),
  zeroPages('legacy'),
  zeroPages('none'),
  {
    name: 'multifd/tcp/plain/cancel',
    runs: [
      { roles: ['D'], old: true, run: theyCancel },
      { roles: ['S'], old: true, run: weCancel },
    ],
  },
]
