// Slots pass between the coordinator and the channels: each has one owner at any time, and none is lost.

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { JOB, RING_DEPTH, SLOT, shmOffsets } from '../../src/shm/layout.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'
import { SlotDispatcher, SlotWorker } from '../../src/shm/slots.js'
import type { SlotsTask } from './slots-worker.js'

const PAGES = 8
const COORDINATOR = 1
// Where a slot's list of runs starts, bytes: after its block and two counts.
const RUNS_AT = 4 * (SLOT.runs + 2)

function shared(words: number): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(4 * words))
}

for (const channels of [1, 2, 3]) {
  t.test(`${channels} channels: one owner at any time, every batch once, in order`, async (t) => {
    const batches = 40_000
    const shm = MigrationShm.create({ channels, pagesPerPacket: PAGES, dirtyWords: 0 })
    const { slots, slotWords, slotCount } = shmOffsets(shm.handle)
    const owners = shared(slotCount)
    const came = shared(batches)
    const violations = shared(5)
    const workers = Array.from({ length: channels }, (_, channel) => {
      const workerData: SlotsTask = { handle: shm.handle, channel, owners, came, violations }
      return new Worker(new URL('./slots-worker.js', import.meta.url), { workerData, execArgv: [] })
    })
    const ended = workers.map((worker) => once(worker, 'exit'))
    await Promise.all(workers.map((worker) => once(worker, 'online')))

    const dispatcher = new SlotDispatcher(shm)
    const waitFor = (done: () => boolean): void => {
      while (!done()) shm.coordinator.wait(100)
    }
    let syncs = 0
    for (let batch = 0; batch < batches; batch++) {
      const slot = dispatcher.spare
      const number = (slot.runs.at - slots - RUNS_AT) / (4 * slotWords)
      if (Atomics.compareExchange(owners, number, 0, COORDINATOR) !== 0) Atomics.add(violations, 4, 1)
      const count = 1 + (batch % PAGES)
      slot.block = batch
      slot.runs.reset()
      for (let at = 0; at < count; at++) slot.runs.push(batch + 2 * at, 1)
      Atomics.store(owners, number, 0)
      waitFor(() => dispatcher.dispatch())
      if (batch % 1000 === 999) {
        syncs++
        shm.expectSyncs(syncs)
        for (let channel = 0; channel < channels; channel++) waitFor(() => dispatcher.command(channel, JOB.sync))
        waitFor(() => Array.from({ length: channels }, (_, channel) => shm.syncs(channel)).every((n) => n === syncs))
        const lost = came.subarray(0, batch + 1).some((times) => times !== 1)
        if (lost) t.fail(`at SYNC ${syncs} not every batch before it had come`)
      }
    }
    for (let channel = 0; channel < channels; channel++) waitFor(() => dispatcher.command(channel, JOB.quit))
    await Promise.all(ended)
    t.ok(
      came.every((times) => times === 1),
      'every batch came once',
    )
    t.strictSame([...violations], [0, 0, 0, 0, 0], 'nobody touched what was another one’s')
  })
}

t.test('a ring that is full takes no more, until a place is given back', (t) => {
  const shm = MigrationShm.create({ channels: 1, pagesPerPacket: PAGES, dirtyWords: 0 })
  const dispatcher = new SlotDispatcher(shm)
  const worker = new SlotWorker(shm, 0)
  let dispatched = 0
  while (dispatcher.dispatch()) dispatched++
  t.equal(dispatched, RING_DEPTH)
  t.notOk(dispatcher.command(0, JOB.sync), 'a command takes a place too')
  const first = worker.next()
  t.notOk(dispatcher.dispatch(), 'a batch that is worked on has its place still')
  worker.finish()
  t.ok(dispatcher.dispatch())
  t.notOk(dispatcher.dispatch())
  const others = [worker.next(), worker.finish(), worker.next(), worker.finish(), worker.next(), worker.finish()]
  t.notOk(others.includes(first), 'the slot that came back is handed out last')
  t.end()
})

t.test('stopping wakes a channel that waits for work', async (t) => {
  const shm = MigrationShm.create({ channels: 1, pagesPerPacket: PAGES, dirtyWords: 0 })
  const workerData: SlotsTask = {
    handle: shm.handle,
    channel: 0,
    owners: shared(RING_DEPTH + 1),
    came: shared(1),
    violations: shared(5),
  }
  const worker = new Worker(new URL('./slots-worker.js', import.meta.url), { workerData, execArgv: [] })
  const ended = once(worker, 'exit')
  await once(worker, 'online')
  const began = performance.now()
  shm.stop()
  await ended
  t.ok(performance.now() - began < 2000)
})
