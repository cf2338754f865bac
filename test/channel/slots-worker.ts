// The channel's side of the test of the slots: takes every batch, and looks whether anyone else has hands on it.

import { workerData } from 'node:worker_threads'
import { JOB } from '../../src/shm/layout.js'
import { MigrationShm, type ShmHandle } from '../../src/shm/migration-shm.js'
import { type Slot, SlotWorker } from '../../src/shm/slots.js'

/** What a channel of the test is started with. */
export interface SlotsTask {
  handle: ShmHandle
  channel: number
  /** Of each slot, who has it: 0 nobody, 1 the coordinator, 2 and up the channels. */
  owners: Int32Array
  /** Of each batch, how often it came. */
  came: Int32Array
  /** Things that must not happen. */
  violations: Int32Array
}

function run({ handle, channel, owners, came, violations }: SlotsTask): void {
  const shm = new MigrationShm(handle)
  const jobs = new SlotWorker(shm, channel)
  let last = -1
  for (;;) {
    const job = jobs.next()
    if (job === undefined || job === JOB.quit) return
    if (job === JOB.sync) shm.reachSync(channel)
    else last = take(jobs.slot(job), job, last)
    jobs.finish()
  }

  function take(slot: Slot, number: number, before: number): number {
    if (Atomics.compareExchange(owners, number, 0, channel + 2) !== 0) Atomics.add(violations, 0, 1)
    const { block: batch, runs } = slot
    const count = runs.pages
    Atomics.add(came, batch, 1)
    // In the order in which they were handed over, as far as they come here.
    if (batch <= before) Atomics.add(violations, 1, 1)
    for (let look = 0; look < 20; look++) {
      if (slot.block !== batch || runs.pages !== count || runs.count !== count) Atomics.add(violations, 2, 1)
      for (let at = 0; at < count; at++) if (runs.first(at) !== batch + 2 * at) Atomics.add(violations, 3, 1)
    }
    if (Atomics.compareExchange(owners, number, channel + 2, 0) !== channel + 2) Atomics.add(violations, 0, 1)
    return batch
  }
}

run(workerData as SlotsTask)
