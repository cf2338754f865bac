// A guest received into memory, and sent on from there to several QEMUs at once.

import { join } from 'node:path'
import t from 'tap'
import { GuestReceiver, RamBlock } from '../../src/index.js'
import {
  guestProgress,
  memoryDifference,
  type QemuVersion,
  requireQemu,
  requireRunningSource,
  startQemu,
} from '../support/qemu/index.js'

const CHANNELS = 3
const MIB = 1024 ** 2
const BIOS_BYTES = 2 ** 16
const MACHINE = 'pc-i440fx-7.2'

for (const version of ['7.2', '10.0'] as const satisfies QemuVersion[]) {
  t.test(`a running guest of QEMU ${version} goes on in two others, from memory`, async (t) => {
    const other = version === '7.2' ? '10.0' : '7.2'
    if (!requireQemu(t, version, other) || !requireRunningSource(t, version)) return
    const original = await startQemu({ version, guest: 'running', machine: MACHINE })
    t.teardown(() => original.close())
    const receiver = new GuestReceiver({ parameters: { multifdChannels: CHANNELS }, machineType: MACHINE })
    t.teardown(() => receiver.close())
    t.throws(() => receiver.guest, { code: 'ERR_MULTIFD_STATE' })
    const uri = await receiver.listen('tcp:127.0.0.1:0')
    await original.migrate({ uri, multifdChannels: CHANNELS, returnPath: true })
    await original.waitMigration()
    await receiver.completed
    const { guest } = receiver
    t.equal(guest.machineType, MACHINE)
    const memory = await original.memory()
    const ram = guest.ram.find(({ idstr }) => idstr === 'pc.ram')!
    // Below, the guest sees its BIOS and not its RAM.
    const [theirs, ours] = [memory.subarray(MIB), Buffer.from(ram.bytes(MIB, memory.length - MIB))]
    t.equal(memoryDifference(theirs, ours), undefined, 'what is in memory is what the guest had')

    const heirs = await Promise.all(
      ([version, other] as const).map((version) => startQemu({ version, machine: MACHINE, incoming: 'defer' })),
    )
    for (const heir of heirs) t.teardown(() => heir.close())
    await Promise.all(
      heirs.map(async (heir, i) => {
        const multifdChannels = 1 + i
        await using source = guest.source({ parameters: { multifdChannels } })
        const result = await source.migrate(await heir.listen('tcp:127.0.0.1:0', { multifdChannels }))
        t.equal(result.status, 'completed')
        await heir.waitMigration()
      }),
    )
    for (const heir of heirs) t.equal((await guestProgress(heir)).length, 3, `its program goes on in ${heir.version}`)
  })
}

t.test('a guest is received into memory that another one had, and into a file', async (t) => {
  if (!requireQemu(t, '10.0')) return
  const path = join(t.testdir(), 'bios')
  const qemu = await startQemu({ version: '10.0', guest: 'patterned', machine: MACHINE })
  t.teardown(() => qemu.close())
  const memory = await qemu.memory()
  const ram = RamBlock.allocate({ idstr: 'pc.ram', size: memory.length })
  const bios = RamBlock.mapFile({ idstr: 'pc.bios', path, size: BIOS_BYTES })
  t.teardown(() => bios.close())
  ram.bytes().fill(0xa5)
  bios.bytes().fill(0xa5)
  await using receiver = new GuestReceiver({ ram: [ram, bios] })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await qemu.migrate({ uri, multifdChannels: 2, returnPath: true })
  await receiver.completed
  const { guest } = receiver
  t.equal(
    guest.ram.find(({ idstr }) => idstr === 'pc.ram'),
    ram,
  )
  t.equal(
    guest.ram.find(({ idstr }) => idstr === 'pc.bios'),
    bios,
  )
  t.equal(memoryDifference(memory.subarray(MIB), Buffer.from(ram.bytes(MIB, memory.length - MIB))), undefined)

  const heir = await startQemu({ version: '10.0', machine: MACHINE, incoming: 'defer' })
  t.teardown(() => heir.close())
  await using source = guest.source({ parameters: { multifdChannels: 2 } })
  await source.migrate(await heir.listen('tcp:127.0.0.1:0', { multifdChannels: 2 }))
  await heir.waitMigration()
  t.equal(memoryDifference(memory, await heir.memory()), undefined, 'nothing of what was there before is left')
})

t.test('memory that does not fit its block is refused', async (t) => {
  if (!requireQemu(t, '10.0')) return
  const qemu = await startQemu({ version: '10.0', guest: 'patterned', machine: MACHINE })
  t.teardown(() => qemu.close())
  await using receiver = new GuestReceiver({ ram: [RamBlock.allocate({ idstr: 'pc.ram', size: 4096 })] })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await qemu.migrate({ uri, multifdChannels: 2, returnPath: true })
  const message = /^block 'pc.ram' has \d+ bytes in pages of 4096, the memory given for it 4096 bytes in pages of 4096$/
  await t.rejects(receiver.completed, { code: 'ERR_MULTIFD_BLOCK', message })
})

t.test('a guest of another machine type is refused', async (t) => {
  if (!requireQemu(t, '10.0')) return
  const qemu = await startQemu({ version: '10.0', guest: 'patterned', machine: MACHINE })
  t.teardown(() => qemu.close())
  await using receiver = new GuestReceiver({ machineType: 'pc-q35-10.0' })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await qemu.migrate({ uri, multifdChannels: 2, returnPath: true })
  await t.rejects(receiver.completed, { code: 'ERR_MULTIFD_MACHINE' })
})
