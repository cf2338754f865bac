// A source of ours that is cancelled in each of its states: the guest is whole, and goes to another QEMU afterwards.

import assert from 'node:assert/strict'
import type { MigrationSource, MigrationStatus } from '../../../src/index.js'
import type { Qemu } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import { bothEnd, enterQemu, goesOn, sameMemory, someGuest, sourceFor, startHeir, type Way } from '../passage.js'
import { type Result, type Row, rejection, works } from '../table.js'

const WAY: Way = { channels: 2 }
/** Nobody listens there. */
const NOWHERE = 'tcp:127.0.0.1:1'
const WHERE_CANCELLED = 'cancelled; another QEMU has the memory afterwards, and the guest goes on'

/** Cancels as soon as the source is in a state; afterwards the guest goes to another QEMU. */
async function cancelAt(ground: Ground, state: MigrationStatus, times = 1): Promise<Result> {
  const guest = await someGuest(ground)
  const { uri } = await startHeir(ground, WAY)
  let resumed = 0
  const ours = { maxBandwidth: state === 'active' ? 10e6 : 0, pauseBeforeSwitchover: state === 'pre-switchover' }
  const source = sourceFor(ground, guest, { ...WAY, ours })
  source.on('status', (status) => {
    if (status === state) for (let time = 0; time < times; time++) source.cancel()
  })
  const { code } = await rejection(source.migrate(uri, { stop: () => {}, resume: () => void resumed++ }))
  assert.equal(code, 'ERR_MULTIFD_ABORTED')
  assert.equal(source.status, 'cancelled')
  assert.equal(resumed, state === 'pre-switchover' ? 1 : 0, 'a program that was stopped goes on')
  source.cancel()
  assert.equal(source.status, 'cancelled')
  await enterQemu(ground, guest, WAY)
  return works(WHERE_CANCELLED)
}

// Too late it may be, and then both sides say so.
async function cancelInDevice(ground: Ground): Promise<Result> {
  const guest = await someGuest(ground)
  const { heir, uri } = await startHeir(ground, WAY)
  const source = sourceFor(ground, guest, WAY)
  source.on('status', (status) => {
    if (status === 'device') source.cancel()
  })
  const ended = await source.migrate(uri).then(
    () => 'completed',
    ({ code }) => code,
  )
  if (ended === 'completed') {
    await heir.waitMigration()
    await sameMemory(guest, heir)
    await goesOn(heir)
  } else {
    assert.equal(ended, 'ERR_MULTIFD_ABORTED')
    assert.equal(source.status, 'cancelled')
    await enterQemu(ground, guest, WAY)
  }
  return works('cancelled, or completed where QEMU has everything already; one QEMU has the guest, and it goes on')
}

/** Cancels a source that is in a state where nothing is to be cancelled. */
async function cancelIn(
  ground: Ground,
  state: MigrationStatus,
  reach: (source: MigrationSource, heir: { heir: Qemu; uri: string }) => Promise<unknown>,
): Promise<Result> {
  const guest = await someGuest(ground)
  const heir = await startHeir(ground, WAY)
  const source = sourceFor(ground, guest, WAY)
  await reach(source, heir)
  assert.equal(source.status, state)
  source.cancel()
  assert.equal(source.status, state)
  if (state !== 'completed') await bothEnd(source.migrate(heir.uri), heir.heir.waitMigration())
  await sameMemory(guest, heir.heir)
  await goesOn(heir.heir)
  return works(
    `nothing is cancelled, the state stays; QEMU has the memory${state === 'completed' ? '' : ' afterwards'}, and the guest goes on`,
  )
}

const STATES: Record<string, (ground: Ground) => Promise<Result>> = {
  none: (ground) => cancelIn(ground, 'none', async () => {}),
  setup: (ground) => cancelAt(ground, 'setup'),
  cancelling: (ground) => cancelAt(ground, 'active', 2),
  cancelled: (ground) => cancelAt(ground, 'active'),
  active: (ground) => cancelAt(ground, 'active'),
  'pre-switchover': (ground) => cancelAt(ground, 'pre-switchover'),
  device: cancelInDevice,
  completed: (ground) => {
    return cancelIn(ground, 'completed', (source, { heir, uri }) => bothEnd(source.migrate(uri), heir.waitMigration()))
  },
  failed: (ground) => cancelIn(ground, 'failed', (source) => rejection(source.migrate(NOWHERE))),
}

export const CANCEL: readonly Row[] = Object.entries(STATES).map(([state, run]) => ({
  name: `cancel/src/after/${state}`,
  runs: [{ roles: ['S'], run }],
}))

/** Nobody listens: said at once, the program was never stopped, and the guest goes elsewhere. */
async function badDestination(ground: Ground): Promise<Result> {
  const guest = await someGuest(ground)
  const source = sourceFor(ground, guest, WAY)
  let stopped = false
  const { code } = await rejection(
    source.migrate(NOWHERE, {
      stop: () => {
        stopped = true
      },
    }),
  )
  assert.equal(source.status, 'failed')
  assert.equal(stopped, false)
  await enterQemu(ground, guest, WAY)
  return works(`\`${code}\`; the program was not stopped, and the guest goes to a QEMU afterwards`)
}

export const BAD_DESTINATION: Row = { name: 'bad_dest', runs: [{ roles: ['S'], old: true, run: badDestination }] }
