// SWITCHOVER_ACK with a real QEMU, in both directions.

import t from 'tap'
import { GuestReceiver } from '../../src/index.js'
import { guestProgress, requireQemu, requireRunningSource, startQemu } from '../support/qemu/index.js'

const MACHINE = 'pc-i440fx-10.0'

t.test('a QEMU waits for our word, and we for that of another one', async (t) => {
  if (!requireQemu(t, '10.0') || !requireRunningSource(t, '10.0')) return
  const capabilities = ['switchover-ack']
  const original = await startQemu({ version: '10.0', guest: 'running', machine: MACHINE })
  t.teardown(() => original.close())
  await using receiver = new GuestReceiver({ parameters: { switchoverAck: true } })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await original.migrate({ uri, multifdChannels: 2, returnPath: true, capabilities })
  await original.waitMigration()
  await receiver.completed

  const heir = await startQemu({ version: '10.0', machine: MACHINE, incoming: 'defer' })
  t.teardown(() => heir.close())
  const there = await heir.listen('tcp:127.0.0.1:0', {
    multifdChannels: 2,
    capabilities: [...capabilities, 'return-path'],
  })
  await using source = receiver.guest.source({ parameters: { switchoverAck: true, timeoutMs: 20_000 } })
  // With a program that runs, the source waits for the word before it stops it.
  t.equal((await source.migrate(there, { stop: () => {} })).status, 'completed')
  await heir.waitMigration()
  t.equal((await guestProgress(heir)).length, 3, 'the guest goes on')
})
