// When a source stops the program: the limit is the whole standstill's, and not only the pages'.

import t from 'tap'
import { MigrationDestination, MigrationSource, type PassInfo, RamBlock } from '../../src/index.js'
import { expectedDowntimeOf, fits } from '../../src/migration/downtime.js'

const MIB = 2 ** 20

t.test('what the switchover takes besides pages is taken off the limit', async (t) => {
  t.ok(fits({ pagesMs: 290, synchroniseMs: 2 }, 300))
  t.notOk(fits({ pagesMs: 297, synchroniseMs: 2 }, 300))
  t.notOk(fits({ pagesMs: 290, synchroniseMs: 9 }, 300), 'a look at much memory takes long')
  t.ok(fits({ pagesMs: 4, synchroniseMs: 9 }, 10), 'a part of a limit is for pages whatever the rest takes')
  t.notOk(fits({ pagesMs: 4.1, synchroniseMs: 9 }, 10))
  t.notOk(fits({ pagesMs: 0.1, synchroniseMs: 0 }, 0))
  t.ok(expectedDowntimeOf({ pagesMs: 10, synchroniseMs: 2 }) > 12)
})

t.test('the last pass is not held to the bandwidth, and downtime begins when the program is stopped', async (t) => {
  const ram = [0, 1].map(() => RamBlock.allocate({ idstr: 'heap', size: 16 * MIB }))
  const [ours, theirs] = ram as [RamBlock, RamBlock]
  ours.bytes().fill(1)
  const destination = new MigrationDestination({ ram: [theirs] })
  const source = new MigrationSource({ ram: [ours], parameters: { maxBandwidth: 8 * MIB, downtimeLimit: 100 } })
  const passes: PassInfo[] = []
  source.on('pass', (info) => passes.push(info))
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const held = new Int32Array(new SharedArrayBuffer(4))
  source.on('status', (status) => {
    // The program's thread is busy as it is to be stopped, and works on meanwhile.
    if (status === 'device') Atomics.wait(held, 0, 0, 500)
  })
  const { downtime } = await source.migrate(uri, {
    stop() {
      ours.bytes().fill(2)
      ours.markDirty(0, ours.size)
    },
  })
  await destination.completed
  t.ok(passes[0]!.durationMs > 1800, `${passes[0]!.durationMs} ms for 16 MiB at 8 MiB/s`)
  t.ok(downtime! < 1000, `${downtime} ms for the same again`)
  t.ok(downtime! < 450 || downtime! > 500, 'the wait before is none of it')
  t.equal(Buffer.compare(ours.bytes(), theirs.bytes()), 0)
})
