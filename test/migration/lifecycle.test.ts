// Cancelling, closing, and doing two things at once: who wins, and that both ends agree.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { MigrationDestination, MigrationSource } from '../../src/index.js'
import {
  allocate,
  checksums,
  fillMixed,
  fillNoise,
  HandDestination,
  HandSource,
  leavesNothing,
  Opener,
  openDescriptors,
  PAGE,
  rejection,
  tells,
  worksAgain,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
const [memory] = allocate([{ idstr: 'heap', size: 4 * MiB }])
fillNoise(memory!)
const content = checksums([memory!])
const aborted = { code: 'ERR_MULTIFD_ABORTED', says: /cancelled|closed/ } as const

t.before(() => worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!]))

t.test('a signal cancels in every stage, and the program goes on', async (t) => {
  const before = openDescriptors()
  for (const when of ['setup', 'active', 'device'] as const) {
    const destination = new MigrationDestination({ ram: allocate([memory!]) })
    const source = new MigrationSource({ ram: [memory!], parameters: { maxBandwidth: when === 'active' ? 4e6 : 0 } })
    const abort = new AbortController()
    const statuses: string[] = []
    source.on('status', (status) => {
      statuses.push(status)
      if (status === when) abort.abort()
    })
    const log: string[] = []
    const hooks = {
      stop: async () => {
        await delay(150)
        log.push('stopped')
      },
      resume: () => void log.push('resumed'),
    }
    const uri = await destination.listen('tcp:127.0.0.1:0')
    tells(t, await rejection(source.migrate(uri, { ...hooks, signal: abort.signal })), aborted)
    t.strictSame(statuses.slice(-2), ['cancelling', 'cancelled'], `${when}: cancelling, then cancelled`)
    t.equal(source.status, 'cancelled')
    t.strictSame(log, when === 'device' ? ['stopped', 'resumed'] : [], 'the program runs, whatever was under way')
    t.strictSame(source.threads(), [])
    t.strictSame(checksums([memory!]), content, 'its memory is as it was')
    // Where the source had not connected yet, the destination waits for another one.
    await delay(50)
    await destination.close()
    t.match(destination.status, /^(failed|cancelled)$/)
    await worksAgain(t, source, [memory!])
  }
  await leavesNothing(t, before)
})

t.test('a signal that is aborted already cancels at once', async (t) => {
  const source = new MigrationSource({ ram: [memory!] })
  const failed = source.migrate('tcp:127.0.0.1:1', { signal: AbortSignal.abort() })
  tells(t, await rejection(failed), aborted)
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  await destination.listen('tcp:127.0.0.1:0', { signal: AbortSignal.abort() })
  tells(t, await rejection(destination.completed), aborted)
  t.equal(destination.status, 'cancelled')
})

t.test('a destination that is cancelled says so to its source', async (t) => {
  const before = openDescriptors()
  const abort = new AbortController()
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  const source = new MigrationSource({ ram: [memory!], parameters: { maxBandwidth: 4e6 } })
  const uri = await destination.listen('tcp:127.0.0.1:0', { signal: abort.signal })
  source.on('status', (status) => {
    if (status === 'active') setTimeout(() => abort.abort(), 100)
  })
  const failed = source.migrate(uri)
  tells(t, await rejection(failed), { code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_REMOTE'], says: /gone|closed|failed/ })
  tells(t, await rejection(destination.completed), aborted)
  t.equal(destination.status, 'cancelled')
  await leavesNothing(t, before)
})

t.test('once the destination said that it has everything, cancelling the source comes too late', async (t) => {
  for (let round = 0; round < 3; round++) {
    const hand = await HandDestination.listen()
    const abort = new AbortController()
    const source = new MigrationSource({ ram: [memory!] })
    let resumed = 0
    const hooks = { stop: () => {}, resume: () => void resumed++, signal: abort.signal }
    const migrated = source.migrate(hand.uri, hooks)
    HandDestination.say(await hand.wholeStream(), 0)
    await delay(round)
    abort.abort()
    t.equal((await migrated).status, 'completed', 'the program lives on over there')
    t.equal(resumed, 0, 'and not here')
    await hand.destroy()
  }
})

t.test('once it said that it has everything, cancelling the destination comes too late', async (t) => {
  const shape = { idstr: 'heap', size: 8 * PAGE }
  const abort = new AbortController()
  const destination = new MigrationDestination({ ram: allocate([shape]) })
  const uri = await destination.listen('tcp:127.0.0.1:0', { signal: abort.signal })
  const source = await HandSource.connect(uri, { blocks: [shape] })
  await source.begin()
  source.everyPage(1)
  source.finish()
  t.equal(await source.word(), 0)
  abort.abort()
  t.equal((await destination.completed).status, 'completed')
  source.destroy()
})

t.test('one migration at a time', async (t) => {
  const before = openDescriptors()
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  const busy = { code: 'ERR_MULTIFD_STATE', says: /a migration is in progress/ } as const
  const listens = await Promise.allSettled([
    destination.listen('tcp:127.0.0.1:0'),
    destination.listen('tcp:127.0.0.1:0'),
  ])
  t.strictSame(listens.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const uri = listens.find((result) => result.status === 'fulfilled')!.value
  tells(t, listens.find((result) => result.status === 'rejected')!.reason, busy)
  tells(t, await rejection(destination.listen('tcp:127.0.0.1:0')), busy)
  const source = new MigrationSource({ ram: [memory!] })
  const results = await Promise.allSettled([source.migrate(uri), source.migrate(uri)])
  t.strictSame(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  tells(t, results.find((result) => result.status === 'rejected')!.reason, busy)
  t.equal((await destination.completed).status, 'completed')
  await leavesNothing(t, before)
})

t.test('close cancels, waits until nothing is left, and may be called again', async (t) => {
  const before = openDescriptors()
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  const source = new MigrationSource({ ram: [memory!], parameters: { maxBandwidth: 4e6 } })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const failed = rejection(source.migrate(uri))
  await new Promise((resolve) => source.once('status', resolve))
  await delay(300)
  await Promise.all([source.close(), source.close(), destination.close()])
  tells(t, await failed, aborted)
  t.equal(source.status, 'cancelled')
  await source.close()
  await destination.close()
  await leavesNothing(t, before)
  await worksAgain(t, source, [memory!])
  await source.close()
})

t.test('what is disposed of is closed', async (t) => {
  const before = openDescriptors()
  let uri: string
  {
    await using destination = new MigrationDestination({ ram: allocate([memory!]) })
    uri = await destination.listen('tcp:127.0.0.1:0')
  }
  const source = new MigrationSource({ ram: [memory!] })
  tells(t, await rejection(source.migrate(uri)), { code: 'ERR_MULTIFD_CONNECT', says: /ECONNREFUSED/ })
  await leavesNothing(t, before)
})

t.test('nothing was listened on yet', async (t) => {
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  tells(t, await rejection(destination.completed), { code: 'ERR_MULTIFD_STATE', says: /nothing was listened on/ })
  await destination.close()
})

t.test('one destination receives again and again, and one source sends', async (t) => {
  const before = openDescriptors()
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  const theirs = allocate(ram)
  const destination = new MigrationDestination({ ram: theirs })
  const source = new MigrationSource({ ram })
  for (let round = 0; round < 3; round++) {
    fillMixed(ram[0]!)
    const { status } = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
    t.equal(status, 'completed')
    await destination.completed
    t.strictSame(checksums(theirs), checksums(ram), 'the same memory')
  }
  await leavesNothing(t, before)
})

t.test("no descriptor but the migration's own is ever closed", async (t) => {
  const ram = allocate([{ idstr: 'heap', size: MiB }])
  const opener = new Opener()
  for (let round = 0; round < 5; round++) {
    const parameters = { multifdChannels: 4 }
    const destination = new MigrationDestination({ ram: allocate(ram), parameters })
    await new MigrationSource({ ram, parameters }).migrate(await destination.listen('tcp:127.0.0.1:0'))
    await destination.completed
  }
  const { opened, lost } = await opener.stop()
  t.ok(opened > 0, `${opened} files opened`)
  t.equal(lost, 0, 'and every one closed by who opened it')
})
