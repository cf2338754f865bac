// XBZRLE with real QEMUs: as the destination of our changes over several passes, and as a source whose changes we take.

import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  MigrationSource,
  RamBlock,
  readSnapshot,
  type Snapshot,
  SnapshotReceiver,
  SnapshotSender,
} from '../../src/index.js'
import {
  changePattern,
  guestProgress,
  memoryDifference,
  qemuVersions,
  requireQemu,
  requireRunningSource,
  startQemu,
} from '../support/qemu/index.js'

const PAGE = 4096
const PASSES = 8
const MiB = 1024 * 1024
const parameters = { multifd: false, xbzrle: true }

t.setTimeout(300_000)

/** What a snapshot holds, as memory of this process. */
function loadBlocks({ path, blocks }: Snapshot): RamBlock[] {
  const fd = openSync(path, 'r')
  try {
    return blocks.map(({ idstr, size, pagesOffset, populated }) => {
      const block = RamBlock.allocate({ idstr, size })
      for (let page = populated.next(0, true); page < block.pages; page = populated.next(page + 1, true)) {
        readSync(fd, block.bytes(page * PAGE, PAGE), 0, PAGE, pagesOffset + page * PAGE)
      }
      return block
    })
  } finally {
    closeSync(fd)
  }
}

for (const version of qemuVersions) {
  const machine = `pc-i440fx-${version}`

  t.test(`QEMU ${version} takes our changes over several passes`, async (t) => {
    if (!requireQemu(t, version)) return
    const source = await startQemu({ version, machine })
    t.teardown(() => source.close())
    const path = join(source.dir, 'guest.snapshot')
    const receiver = new SnapshotReceiver(path, { parameters: { multifd: false } })
    await source.migrate({ uri: await receiver.listen('tcp:127.0.0.1:0') })
    await receiver.completed
    await source.waitMigration()

    const snapshot = readSnapshot(path)
    const { beforeRam, afterRam, switchoverStart, deviceState, ramSectionId, configuration } = snapshot
    const ram = loadBlocks(snapshot)
    const guest = ram.find(({ idstr }) => idstr === 'pc.ram')!
    const destination = await startQemu({ version, machine, incoming: 'defer' })
    t.teardown(() => destination.close())
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const peer = new MigrationSource(
      {
        ram,
        machineType: configuration.machineType,
        // A cache for a quarter of what changes: pages go whole for want of a place, too.
        parameters: { ...parameters, xbzrleCacheSize: 4 * MiB, maxBandwidth: 50e6, downtimeLimit: 0 },
      },
      { beforeRam, afterRam, switchoverStart, deviceState, ramSectionId, validateUuid: false },
    )
    let round = 0
    const timer = setInterval(() => changePattern(guest, ++round), 20)
    t.teardown(() => clearInterval(timer))
    let passes = 0
    peer.on('pass', () => {
      if (++passes === PASSES) clearInterval(timer)
    })
    const sent = await peer.migrate(uri, { stop: () => clearInterval(timer) })
    await destination.waitMigration()

    const { pages, cacheMiss, overflow, bytes } = sent.xbzrleCache!
    t.ok(passes >= 3 && round >= 3, `${passes} passes, ${round} rounds of changes`)
    t.ok(pages > 1000, `${pages} pages as changes, in ${bytes} bytes`)
    t.ok(cacheMiss > 1000, `${cacheMiss} pages without a place`)
    t.ok(overflow > 100, `${overflow} pages that changed too much`)
    // Below 1 MiB other things than RAM are seen.
    const memory = await destination.memory()
    const expected = Buffer.from(guest.bytes().slice())
    t.equal(
      memoryDifference(expected.subarray(MiB), memory.subarray(MiB)),
      undefined,
      'it has the memory of the last pass',
    )
    await destination.cont()
    t.equal((await guestProgress(destination)).length, 3, 'and the guest goes on')
  })

  t.test(`QEMU ${version} → us → QEMU ${version}, with XBZRLE at both sources`, async (t) => {
    if (!requireQemu(t, version) || !requireRunningSource(t, version)) return
    const source = await startQemu({ version, machine, guest: 'running' })
    t.teardown(() => source.close())
    const path = join(source.dir, 'guest.snapshot')
    const receiver = new SnapshotReceiver(path, { parameters: { multifd: false } })
    await source.migrate({
      uri: await receiver.listen('tcp:127.0.0.1:0'),
      capabilities: ['xbzrle'],
      parameters: { 'downtime-limit': 1, 'max-bandwidth': 30e6 },
    })
    await source.waitPasses(PASSES)
    await source.command('migrate-set-parameters', { 'downtime-limit': 10_000, 'max-bandwidth': 100e9 })
    const info = await source.waitMigration()
    const received = await receiver.completed
    const theirs = info['xbzrle-cache'] as { pages: number }
    const ours = received.xbzrleCache
    t.ok(ours && ours.pages > 0 && ours.bytes > 0, `${JSON.stringify(ours)} came; QEMU says ${JSON.stringify(theirs)}`)
    t.ok(ours!.pages <= theirs.pages, 'QEMU counts those too that had no change or too much of it')

    const original = await source.memory()
    const destination = await startQemu({ version, machine, incoming: 'defer' })
    t.teardown(() => destination.close())
    await using sender = new SnapshotSender(path, { parameters })
    const sent = await sender.send(await destination.listen('tcp:127.0.0.1:0'))
    await destination.waitMigration()
    t.match(sent.xbzrleCache, { pages: 0, cacheMiss: 0 }, 'a snapshot goes in one pass')
    t.equal(memoryDifference(original, await destination.memory()), undefined, 'its memory is what it was')
    await destination.cont()
    t.equal((await guestProgress(destination)).length, 3, 'the guest goes on')
  })
}
