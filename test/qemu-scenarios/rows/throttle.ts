// Guests that change too much, and are slowed down for it.

import assert from 'node:assert/strict'
import { changePattern } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import {
  atRest,
  bothEnd,
  goesOn,
  mainRam,
  receiverFor,
  sameMemory,
  someGuest,
  sourceFor,
  startGuest,
  startHeir,
} from '../passage.js'
import { type Result, type Row, works } from '../table.js'

const CHANGE_MS = 10
const BANDWIDTH = 100e6
/** Most of it at once: what is in between takes its time, and is the convergence tests' business. */
const THROTTLE = 95

async function weThrottle(ground: Ground): Promise<Result> {
  const guest = await someGuest(ground)
  const { heir, uri } = await startHeir(ground)
  const ours = {
    ...{ maxBandwidth: BANDWIDTH, downtimeLimit: 20, autoConverge: true },
    ...{ cpuThrottleInitial: THROTTLE, cpuThrottleIncrement: 4, timeoutMs: 60_000 },
  }
  const source = sourceFor(ground, guest, { ours })
  const ram = mainRam(guest)
  let percent = 0
  let slowest = 0
  let turn = 0
  let round = 0
  const timer = setInterval(() => {
    if (turn++ % 100 >= percent) changePattern(ram, ++round)
  }, CHANGE_MS)
  const stop = (): void => clearInterval(timer)
  const throttle = (percentage: number): void => {
    percent = percentage
    slowest = Math.max(slowest, percentage)
  }
  try {
    await bothEnd(source.migrate(uri, { stop, throttle }), heir.waitMigration('completed', 60_000))
  } finally {
    stop()
  }
  assert.ok(slowest >= THROTTLE, `slowed down by ${slowest} %`)
  await sameMemory(guest, heir)
  await goesOn(heir)
  return works(
    'our throttle hook is called, and the migration converges; the memory is the same, and the guest goes on',
  )
}

async function theyThrottle(ground: Ground): Promise<Result> {
  const receiver = receiverFor(ground, {})
  const original = await startGuest(ground)
  const parameters = {
    'max-bandwidth': 20e6,
    'downtime-limit': 1,
    'cpu-throttle-initial': THROTTLE,
    'throttle-trigger-threshold': 1,
  }
  await original.migrate({ uri: await receiver.listen('tcp:127.0.0.1:0'), capabilities: ['auto-converge'], parameters })
  const deadline = Date.now() + 60_000
  while (((await original.queryMigrate())['cpu-throttle-percentage'] ?? 0) === 0) {
    assert.ok(Date.now() < deadline, 'QEMU slows its guest down')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  await original.command('migrate-set-parameters', { 'downtime-limit': 10_000, 'max-bandwidth': 100 * BANDWIDTH })
  await bothEnd(receiver.completed, original.waitMigration())
  await atRest(original)
  await sameMemory(receiver.guest, original)
  return works('QEMU slows its guest down on the way to us; the memory is the same')
}

const COVERED = 'test/migration/convergence.test.ts'
const OWN_VCPUS =
  "QEMU slows its own vCPUs, by KVM's dirty ring: nothing of it reaches a peer, and a program has no vCPUs"

export const THROTTLED: readonly Row[] = [
  {
    name: 'auto_converge',
    runs: [
      { roles: ['S'], covered: COVERED, run: weThrottle },
      { roles: ['D'], covered: COVERED, run: theyThrottle },
    ],
  },
  { name: 'dirty_limit', runs: [], without: OWN_VCPUS },
  { name: 'vcpu_dirty_limit', runs: [], without: `${OWN_VCPUS}; no migration is part of it` },
  {
    name: 'dirty_ring',
    runs: [],
    without:
      'how KVM tells QEMU what its guest wrote: nothing of it reaches a peer; ours learn it by userfaultfd, or are told',
  },
]

const CPR = 'QEMU hands its guest to a QEMU of the same host, whose memory stays where it is; no peer comes between'

export const CPR_MODES: readonly Row[] = ['reboot', 'transfer', 'transfer/defer'].map((mode) => {
  return { name: `mode/${mode}`, runs: [], without: CPR }
})
