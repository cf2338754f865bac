// Threads outlive a migration for the next one, and only for a while.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { endIdleThreads, MigrationDestination, MigrationSource, type RamBlock } from '../../src/index.js'
import {
  allDescriptors,
  allocate,
  fillNoise,
  idleThreads,
  rejection,
  tells,
  threadsNamed,
  worksAgain,
} from '../support/peers/index.js'

const KEPT_MS = 5000
const [memory] = allocate([{ idstr: 'heap', size: 4 << 20 }]) as [RamBlock]
fillNoise(memory)

const threads = (): number => threadsNamed(() => true).size

async function until(what: () => boolean, patienceMs: number): Promise<void> {
  const deadline = performance.now() + patienceMs
  while (!what() && performance.now() < deadline) await delay(20)
}

async function migrate(channels: number): Promise<void> {
  const parameters = { multifdChannels: channels }
  const destination = new MigrationDestination({ ram: allocate([memory]), parameters })
  const source = new MigrationSource({ ram: [memory], parameters })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  await source.migrate(uri)
  await destination.completed
  await Promise.all([source.close(), destination.close()])
}

t.test('the next migration has the threads of the one before', async (t) => {
  await migrate(2)
  const first = idleThreads()
  t.equal(first.length, 6, 'two coordinators, and two channels on each side')
  for (let round = 0; round < 5; round++) await migrate(2)
  t.strictSame(idleThreads(), first, 'the same threads, and no other')
  await migrate(1)
  t.strictSame(idleThreads(), first, 'one that needs fewer takes of them')
})

t.test('a migration that fails leaves them as well', async (t) => {
  const before = idleThreads()
  const source = new MigrationSource({ ram: [memory], parameters: { multifdChannels: 2 } })
  tells(t, await rejection(source.migrate('tcp:127.0.0.1:1')), { code: 'ERR_MULTIFD_CONNECT', says: /REFUSED/ })
  await source.close()
  t.strictSame(idleThreads(), before)
  await worksAgain(t, source, [memory])
})

t.test('two migrations at once have threads of their own', async (t) => {
  await endIdleThreads()
  await Promise.all([migrate(2), migrate(2)])
  const threads = idleThreads()
  t.ok(threads.length >= 12, `${threads.length} threads`)
  await Promise.all([migrate(2), migrate(2)])
  t.strictSame(idleThreads(), threads, 'and find them again')
})

t.test('they end by themselves, or when they are asked to', async (t) => {
  await endIdleThreads()
  await until(() => idleThreads().length === 0, 1000)
  t.strictSame(idleThreads(), [], 'asked to')
  const before = { threads: threads(), descriptors: allDescriptors().size }
  await migrate(4)
  t.not(idleThreads().length, 0)
  await delay(KEPT_MS)
  await until(() => idleThreads().length === 0, 3000)
  t.strictSame(idleThreads(), [], 'by themselves')
  await until(() => allDescriptors().size <= before.descriptors, 1000)
  t.ok(threads() <= before.threads, `${threads()} threads, ${before.threads} before`)
  t.ok(
    allDescriptors().size <= before.descriptors,
    `${allDescriptors().size} descriptors, ${before.descriptors} before`,
  )
})
