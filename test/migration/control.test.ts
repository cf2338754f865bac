// What a program can do to a migration that runs, and what it is told: limits, yank, events, figures by phase.

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { MigrationDestination, MigrationSource, RamBlock } from '../../src/index.js'
import { migrationThreads } from '../support/peers/index.js'

const SIZE = 8 * 2 ** 20

function filled(): RamBlock {
  const block = RamBlock.allocate({ idstr: 'ram', size: SIZE })
  block.bytes().fill(7)
  return block
}

async function pair(parameters: object) {
  const source = new MigrationSource({ ram: [filled()], parameters })
  const destination = new MigrationDestination({ ram: [RamBlock.allocate({ idstr: 'ram', size: SIZE })] })
  return { source, destination, uri: await destination.listen('tcp:127.0.0.1:0') }
}

t.test('the bandwidth and the downtime limit can be changed in mid-migration, and nothing else', async (t) => {
  const { source, destination, uri } = await pair({ maxBandwidth: 200_000 })
  const told: string[] = []
  source.on('passBegin', (pass) => told.push(`pass ${pass}`))
  source.on('status', (status) => told.push(status))
  source.on('stop', () => told.push('stop'))
  const migrated = source.migrate(uri, { stop: () => {} })
  await once(source, 'passBegin')
  await sleep(100)
  t.equal(source.status, 'active', 'it would take 40 seconds')
  t.throws(() => source.setParameters({ multifdChannels: 3 }), {
    code: 'ERR_MULTIFD_STATE',
    message: /multifdChannels/,
  })
  t.throws(() => source.setParameters({ downtimeLimit: -1 }), { code: 'ERR_MULTIFD_ARGUMENT' })
  const threads = [...source.threads(), ...destination.threads()].map(({ name, threadId }) => [
    threadId,
    name.slice(0, 15),
  ])
  t.strictSame(new Map(threads as [number, string][]), migrationThreads(), "they are the operating system's")
  source.setParameters({ maxBandwidth: 0, downtimeLimit: 500 })
  t.equal(source.parameters.downtimeLimit, 500)
  const { totalTime, ram } = await migrated
  t.ok(totalTime < 10_000, `${totalTime} ms`)
  t.equal(ram.precopyBytes + ram.downtimeBytes, ram.transferred)
  t.ok(ram.precopyBytes > SIZE && ram.downtimeBytes < 100_000, 'all of it went while the program ran')
  t.strictSame(told, ['setup', 'active', 'pass 1', 'stop', 'device', 'pass 2', 'completed'])
  await destination.completed
  source.setParameters({ multifdChannels: 3 })
  await Promise.all([source.close(), destination.close()])
})

t.test('a limit can come in mid-migration where there was none', async (t) => {
  const { source, destination, uri } = await pair({ maxBandwidth: 400_000 })
  const migrated = source.migrate(uri)
  await once(source, 'passBegin')
  source.setParameters({ maxBandwidth: 2_000_000 })
  await sleep(200)
  const before = source.statistics()!.ram.transferred
  await sleep(500)
  const sent = source.statistics()!.ram.transferred - before
  t.ok(sent > 700_000 && sent < 1_300_000, `${sent} bytes in half a second`)
  source.setParameters({ maxBandwidth: 0 })
  await Promise.all([migrated, destination.completed])
  await Promise.all([source.close(), destination.close()])
})

t.test('yank: it fails at once, the program goes on, and another migration works', async (t) => {
  const { source, destination, uri } = await pair({ maxBandwidth: 200_000 })
  source.yank()
  t.equal(source.status, 'none', 'without a migration nothing happens')
  const migrated = source.migrate(uri)
  await once(source, 'passBegin')
  source.yank()
  await t.rejects(migrated, { code: 'ERR_MULTIFD_CLOSED' })
  t.equal(source.status, 'failed')
  t.match(source.statistics()?.errorDesc, /yank/)
  await t.rejects(destination.completed)
  await destination.close()
  source.setParameters({ maxBandwidth: 0 })
  const again = await destination.listen('tcp:127.0.0.1:0')
  t.equal((await source.migrate(again)).errorDesc, undefined)
  await destination.completed
  await Promise.all([source.close(), destination.close()])
})
