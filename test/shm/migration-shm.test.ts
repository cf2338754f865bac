// What is left of a migration's shared memory when its threads have gone.

import t from 'tap'
import { COUNTER } from '../../src/shm/layout.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'

t.test('what only threads used is given back, and the figures stay', async (t) => {
  const shm = MigrationShm.create({ channels: 4, pagesPerPacket: 128, dirtyWords: 4096 })
  const { buffer } = shm.handle.memory
  const bytes = new Uint8Array(buffer)
  shm.setCounter(2, COUNTER.bytes, 17)
  shm.setCounter(shm.coordinatorPlace, COUNTER.passes, 3)
  const header = shm.packetMemory(3).headers[0]!
  header.view.setUint32(0, 1)
  bytes.fill(0xff, shm.dirtyAt)
  shm.giveBack()
  t.equal(shm.sum(COUNTER.bytes, false), 17)
  t.equal(shm.counter(shm.coordinatorPlace, COUNTER.passes), 3)
  t.equal(header.view.getUint32(0), 0, 'a packet reads as memory that was never touched')
  t.ok(
    bytes.subarray(shm.dirtyAt).every((byte) => byte === 0),
    'and so do the bitmaps',
  )
  shm.giveBack()
  t.equal(shm.sum(COUNTER.bytes, false), 17, 'twice is once')
})
