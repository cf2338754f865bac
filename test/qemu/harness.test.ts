// The harness itself: QEMU migrates to QEMU, and what the tests of our own peer rely on holds there.
import t from 'tap'
import {
  checkStep,
  guestProgress,
  memoryDifference,
  pageSize,
  programEnd,
  type QemuVersion,
  requireQemu,
  requireRunningSource,
  startQemu,
} from '../support/qemu/index.js'

interface Case {
  from: QemuVersion
  to: QemuVersion
  machine: string
  guest: 'patterned' | 'running'
  channels?: number
  transport: 'tcp' | 'unix'
  vga?: 'std'
}

const cases: readonly Case[] = [
  { from: '7.2', to: '7.2', machine: 'pc-i440fx-7.2', guest: 'patterned', channels: 2, transport: 'tcp' },
  { from: '7.2', to: '7.2', machine: 'pc-i440fx-7.2', guest: 'running', transport: 'unix' },
  { from: '10.0', to: '10.0', machine: 'pc-i440fx-10.0', guest: 'patterned', transport: 'tcp' },
  { from: '10.0', to: '10.0', machine: 'pc-q35-10.0', guest: 'running', channels: 4, transport: 'unix', vga: 'std' },
  { from: '7.2', to: '10.0', machine: 'pc-i440fx-7.2', guest: 'running', channels: 2, transport: 'tcp' },
  { from: '10.0', to: '7.2', machine: 'pc-i440fx-7.2', guest: 'running', channels: 4, transport: 'tcp' },
]

for (const { from, to, machine, guest, channels, transport, vga } of cases) {
  const how = `${machine}, ${guest}, ${channels ? `${channels} channels` : 'no multifd'}, ${transport}`
  t.test(`QEMU ${from} to QEMU ${to}: ${how}`, async (t) => {
    if (!requireQemu(t, from, to) || (guest === 'running' && !requireRunningSource(t, from))) return
    const source = await startQemu({ version: from, machine, guest, ...(vga && { vga }) })
    t.teardown(() => source.close())
    const destination = await startQemu({ version: to, machine, incoming: 'defer', ...(vga && { vga }) })
    t.teardown(() => destination.close())
    t.equal(source.accel, destination.accel, 'both ends run their guest alike')

    const address = transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${destination.dir}/migration.sock`
    const uri = await destination.listen(address, { multifdChannels: channels })
    await source.migrate({
      uri,
      multifdChannels: channels,
      parameters: { 'downtime-limit': guest === 'running' ? 0 : 300 },
    })
    if (guest === 'running') {
      await source.waitPasses(4)
      await source.command('migrate-set-parameters', { 'downtime-limit': 10_000 })
    }
    await source.waitMigration()
    await destination.waitMigration()

    t.equal(await source.status(), 'postmigrate', 'the source is stopped')
    t.not(await destination.status(), 'running', 'the destination waits')
    const before = await source.memory()
    t.equal(memoryDifference(before, await destination.memory()), undefined, 'memory is equal')
    const arrived = checkStep(before)
    const untouched = arrived.value === 0 && arrived.step === source.program.pageCount
    t.equal(untouched, guest !== 'running', `at page ${arrived.step} of round ${arrived.value}`)
    await destination.cont()
    t.equal(await destination.status(), 'running', 'the guest goes on')
    t.equal((await guestProgress(destination)).length, 3, 'its program goes on')
  })
}

t.test('a step is recognised, and what is none is refused', async (t) => {
  const program = { start: 2 * pageSize, pageCount: 4, delay: 0 }
  const memory = (...bytes: number[]) => {
    const all = new Uint8Array(programEnd(program))
    for (const [page, byte] of bytes.entries()) all[program.start + page * pageSize] = byte
    return all
  }
  const step = (...bytes: number[]) => checkStep(memory(...bytes), program)
  t.same(step(0, 0, 0, 0, 0, 0, 0, 0), { step: 4, value: 0 }, 'before the first step')
  t.same(step(1, 0, 0, 0, 1, 0, 0, 0), { step: 1, value: 1 }, 'the first step')
  t.same(step(1, 0, 0, 0, 0, 0, 0, 0), { step: 1, value: 1 }, 'the first step, its partner not yet')
  t.same(step(8, 8, 8, 7, 0, 0, 0, 1), { step: 3, value: 8 }, 'in the middle')
  t.same(step(0, 0, 255, 255, 0, 1, 1, 1), { step: 2, value: 0 }, 'past 255')
  t.throws(() => step(8, 8, 7, 8, 0, 0, 1, 0), /page 3 of 4 must hold 7, and it holds 8/)
  t.throws(() => step(8, 8, 7, 6, 0, 0, 1, 0), /page 3 of 4 must hold 7, and it holds 6/)
  t.throws(() => step(7, 8, 8, 8, 1, 0, 0, 0), /page 1 of 4 must hold 6, and it holds 8/)
  t.throws(() => step(8, 8, 7, 7, 1, 0, 1, 1), /page 0 of 4 holds 8, so its partner must hold 0, and it holds 1/)
  t.throws(() => step(8, 8, 7, 7, 0, 0, 1, 0), /page 3 of 4 holds 7, so its partner must hold 1, and it holds 0/)
  t.throws(() => checkStep(new Uint8Array(100), program), /the memory ends at 100/)
})

t.test('a difference of memory is told in a line', async (t) => {
  const memory = Buffer.alloc(8 * pageSize)
  t.equal(memoryDifference(memory, Buffer.from(memory)), undefined)
  const other = Buffer.from(memory)
  other[2 * pageSize + 5] = 7
  t.equal(memoryDifference(memory, other), '1 pages differ, at 0x2000; the byte at 0x2005 is 0x7, not 0x0')
  t.equal(memoryDifference(memory, memory.subarray(1)), '32768 bytes expected, 32767 bytes there')
})
