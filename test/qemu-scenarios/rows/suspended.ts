// A guest that has suspended itself (ACPI S3) arrives suspended, and wakes where it arrived.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Qemu } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import { atRest, bothEnd, receiverFor, sameMemory, sourceFor, startGuest, startHeir, type Way } from '../passage.js'
import { type Result, type Row, works } from '../table.js'

const hardware = { program: { suspend: true } }

async function becomes(qemu: Qemu, status: string): Promise<void> {
  for (let look = 0; look < 500 && (await qemu.status()) !== status; look++) await sleep(10)
  assert.equal(await qemu.status(), status)
}

async function pass(ground: Ground, live: boolean): Promise<Result> {
  const way = (name: string): Way => ({ hardware, address: `unix:${ground.path(name)}` })
  const original = await startGuest(ground, { hardware })
  await becomes(original, 'suspended')
  if (!live) await original.stop()
  const receiver = receiverFor(ground, way('in'))
  await original.migrate({ uri: await receiver.listen(way('in').address!) })
  await bothEnd(receiver.completed, original.waitMigration())
  await atRest(original)
  const { guest } = receiver
  await sameMemory(guest, original)
  const before = await original.step()

  const { heir, uri } = await startHeir(ground, way('out'))
  await bothEnd(sourceFor(ground, guest, way('out')).migrate(uri), heir.waitMigration())
  await sameMemory(guest, heir)
  await heir.cont()
  await becomes(heir, 'suspended')
  assert.deepEqual(await heir.step(), before)
  // It does another round, and suspends itself again.
  const again = heir.qmp.waitEvent('SUSPEND')
  await heir.command('system_wakeup')
  await again
  assert.equal((await heir.step()).value, before.value + 1)
  return works(
    `a guest that ${live ? 'sleeps' : 'sleeps, in a QEMU that is stopped,'} arrives suspended, and wakes up there`,
  )
}

export const SUSPENDED: readonly Row[] = [
  { name: 'precopy/unix/suspend/live', runs: [{ roles: ['S', 'D'], run: (ground) => pass(ground, true) }] },
  { name: 'precopy/unix/suspend/notlive', runs: [{ roles: ['S', 'D'], run: (ground) => pass(ground, false) }] },
]
