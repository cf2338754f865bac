// A guest received into memory, and sent on from there to several QEMUs at once.

import t from 'tap'
import { GuestReceiver } from '../../src/index.js'
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

t.test('a guest of another machine type is refused', async (t) => {
  if (!requireQemu(t, '10.0')) return
  const qemu = await startQemu({ version: '10.0', guest: 'patterned', machine: MACHINE })
  t.teardown(() => qemu.close())
  await using receiver = new GuestReceiver({ machineType: 'pc-q35-10.0' })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await qemu.migrate({ uri, multifdChannels: 2, returnPath: true })
  await t.rejects(receiver.completed, { code: 'ERR_MULTIFD_MACHINE' })
})
