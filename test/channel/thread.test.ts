// How a channel's thread ends.

import { once } from 'node:events'
import { MessageChannel } from 'node:worker_threads'
import t from 'tap'
import { runChannelThread, Stopped } from '../../src/channel/thread.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'

for (const how of ['in order', 'stopped', 'with an error'] as const) {
  t.test(`ended ${how}, it closes its link to the coordinator`, { timeout: 5000 }, async (t) => {
    const shm = MigrationShm.create({ channels: 1, pagesPerPacket: 128, dirtyWords: 0 })
    const { port1: coordinators, port2: port } = new MessageChannel()
    const closed = once(coordinators, 'close')
    // Keeps the loop running meanwhile.
    coordinators.on('message', () => {})
    const outcome = runChannelThread({ shm: shm.handle, channel: 0, port, stallTimeoutMs: 0 }, 'mig/test', () => {
      if (how === 'stopped') throw new Stopped()
      if (how === 'with an error') throw new Error('of the loop')
    })
    t.equal(outcome.error !== undefined, how === 'with an error')
    await closed
    t.pass('both ends are closed')
  })
}
