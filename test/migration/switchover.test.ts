// Between the last pass and the switchover: the pause that a program asks for, and the word of the destination's devices.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import {
  type MigrateOptions,
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type vmstate,
} from '../../src/index.js'
import { encodePing } from '../../src/wire/command.js'
import { encodeSwitchoverAck } from '../../src/wire/return-path.js'
import {
  allocate,
  checksums,
  fillMixed,
  HandDestination,
  HandSource,
  leavesNothing,
  openDescriptors,
  PAGE,
  rejection,
  tells,
  worksAgain,
  written,
} from '../support/peers/index.js'

const MiB = 2 ** 20
const heap = { idstr: 'heap', size: 2 * MiB }
const [memory] = allocate([heap])
fillMixed(memory!)

t.setTimeout(180_000)
t.before(() => worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!]))

async function until(what: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 20_000; !what(); await delay(5)) {
    if (performance.now() > deadline) throw new Error(`it never came: ${what}`)
  }
}

/** A migration of the memory that is under way, and what its program was told. */
async function start(parameters: Partial<MigrationParameters>, { destination = {}, ...hooks }: StartOptions = {}) {
  const theirs = allocate([heap])
  const there = new MigrationDestination({ ram: theirs, ...destination })
  const source = new MigrationSource({ ram: [memory!], parameters, devices: destination.devices ?? [] })
  const log: string[] = []
  source.on('status', (status) => log.push(status))
  const migrated = source.migrate(await there.listen('tcp:127.0.0.1:0'), {
    stop: () => void log.push('(stop)'),
    resume: () => void log.push('(resume)'),
    ...hooks,
  })
  migrated.catch(() => {})
  return { source, destination: there, theirs, log, migrated }
}

interface StartOptions extends MigrateOptions {
  destination?: { parameters?: Partial<MigrationParameters>; devices?: vmstate.Device[] }
}

t.test('a pause before the switchover lasts until the program goes on', async (t) => {
  const before = openDescriptors()
  const parameters = { pauseBeforeSwitchover: true }
  const saved: string[] = []
  const devices = [{ idstr: 'app', version: 1, save: () => saved.push('saved'), load: () => {} }]
  // The pause is longer than the destination bears silence: the source gives signs of life.
  const run = await start(parameters, { destination: { devices, parameters: { stallTimeoutMs: 4000 } } })
  const { source, destination, theirs, log, migrated } = run
  t.throws(() => source.continue(), { code: 'ERR_MULTIFD_STATE', message: /no migration waits/ })
  await until(() => source.status === 'pre-switchover')
  t.strictSame(log, ['setup', 'active', '(stop)', 'pre-switchover'], 'stopped, and not a step further')
  await delay(7000)
  t.equal(source.status, 'pre-switchover')
  t.equal(destination.status, 'active', 'the destination is patient')
  t.strictSame(saved, [], 'devices are saved after the pause: it may be for them')
  // The last thing that happens to the memory.
  memory!.bytes()[3 * PAGE] = 77
  memory!.markDirty(3 * PAGE, 1)
  source.continue()
  t.equal((await migrated).status, 'completed')
  await destination.completed
  t.strictSame(log.slice(4), ['device', 'completed'])
  t.strictSame(saved, ['saved'])
  t.strictSame(checksums(theirs), checksums([memory!]), 'what was written in the pause has moved')
  t.throws(() => source.continue(), { code: 'ERR_MULTIFD_STATE' })
  t.ok((await migrated).downtime! > 6900, 'the pause is downtime')
  await Promise.all([source.close(), destination.close()])
  await leavesNothing(t, before)
})

t.test('a pause ends with the migration: cancelled, or failed at the other side', async (t) => {
  for (const how of ['cancelled', 'failed'] as const) {
    const { source, destination, log, migrated } = await start({ pauseBeforeSwitchover: true })
    await until(() => source.status === 'pre-switchover')
    if (how === 'cancelled') source.cancel('changed my mind')
    else destination.cancel()
    const error = await rejection(migrated)
    if (how === 'cancelled') {
      tells(t, error, { code: 'ERR_MULTIFD_ABORTED', says: /cancelled/ })
      t.equal((error as Error).cause, 'changed my mind')
    } else tells(t, error, { code: ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED'], says: /failed|gone|closed/ })
    t.equal(source.status, how)
    t.strictSame(log.at(-1), '(resume)', 'the program goes on')
    t.throws(() => source.continue(), { code: 'ERR_MULTIFD_STATE' })
    await rejection(destination.completed)
    await worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!])
  }
})

/** A device that agrees when it is told to. */
function thoughtful() {
  let agree = (): void => {}
  let refuse = (_: Error): void => {}
  const asked: string[] = []
  const answer = new Promise<void>((resolve, reject) => {
    agree = resolve
    refuse = reject
  })
  const device: vmstate.PackedDevice = {
    idstr: 'cache',
    version: 1,
    save: () => 1,
    load: () => void asked.push('loaded'),
    approveSwitchover: () => {
      asked.push('asked')
      return answer
    },
  }
  return { device, asked, agree: () => agree(), refuse: (error: Error) => refuse(error) }
}

t.test('the program runs until the devices over there agree', async (t) => {
  const before = openDescriptors()
  const { device, asked, agree } = thoughtful()
  const parameters = { switchoverAck: true }
  const run = await start(parameters, { destination: { parameters, devices: [device] } })
  const { source, destination, theirs, log, migrated } = run
  await until(() => asked.length > 0)
  let passes = 0
  source.on('pass', () => passes++)
  await delay(500)
  // What changes meanwhile is sent meanwhile.
  for (let i = 0; i < 5; i++) {
    memory!.bytes()[i * PAGE] = 100 + i
    memory!.markDirty(i * PAGE, 1)
    await delay(150)
  }
  t.ok(passes >= 3, `${passes} passes while it waits`)
  t.strictSame(log, ['setup', 'active'], 'and the program runs')
  agree()
  t.equal((await migrated).status, 'completed')
  await destination.completed
  t.strictSame(asked, ['asked', 'loaded'])
  t.strictSame(checksums(theirs), checksums([memory!]))
  await Promise.all([source.close(), destination.close()])
  await leavesNothing(t, before)
})

t.test('nobody is asked where the parameter is off on both sides', async (t) => {
  const { device, asked } = thoughtful()
  const { migrated, destination } = await start({}, { destination: { devices: [device] } })
  await migrated
  await destination.completed
  t.strictSame(asked, ['loaded'])
})

t.test(
  'a device that does not agree fails the migration by name; one that never does, its source may give up',
  async (t) => {
    const parameters = { switchoverAck: true }
    const angry = thoughtful()
    const run = await start(parameters, { destination: { parameters, devices: [angry.device] } })
    await until(() => angry.asked.length > 0)
    angry.refuse(new Error('no room for it'))
    const says = /device 'cache' 0: approveSwitchover failed: no room for it/
    tells(t, await rejection(run.destination.completed), { code: 'ERR_MULTIFD_DEVICE', says })
    tells(t, await rejection(run.migrated), { code: ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED'], says: /./ })
    t.notMatch(run.log, ['(stop)'], 'the program never stood still')

    const slow = thoughtful()
    const patience = { ...parameters, timeoutMs: 500 }
    const other = await start(patience, { destination: { parameters, devices: [slow.device] } })
    tells(t, await rejection(other.migrated), { code: 'ERR_MULTIFD_TIMEOUT', says: /did not agree to the switchover/ })
    t.notOk(other.log.includes('(stop)'))
    await rejection(other.destination.completed)
    slow.agree()
  },
)

t.test('the word, in both versions of it: a source made by hand', async (t) => {
  for (const { machineType, wants, expected } of [
    // QEMU up to 11.0: always, and before anything else.
    { machineType: 'pc-i440fx-10.0', wants: false, expected: [7, 2] },
    { machineType: 'pc-i440fx-10.0', wants: true, expected: [2, 7] },
    // Since 11.1: where a device wants it.
    { machineType: 'pc-i440fx-11.1', wants: false, expected: [2] },
    { machineType: 'pc-i440fx-11.1', wants: true, expected: [2, 7] },
    { machineType: 'multifd', wants: false, expected: [2] },
  ]) {
    const { device, agree } = thoughtful()
    agree()
    const options = { ram: allocate([heap]), machineType, parameters: { switchoverAck: true } }
    const destination = new MigrationDestination({ ...options, devices: wants ? [device] : [] })
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const source = await HandSource.connect(uri, { blocks: [heap], machineType })
    await source.openChannels()
    source.head()
    source.main.send(written((view, at) => encodePing(view, at, 1)))
    source.setUp()
    const types = (): number[] => {
      const { bytes } = source.main
      const found: number[] = []
      for (let at = 0; at + 4 <= bytes.length; at += 4 + bytes.readUInt16BE(at + 2)) found.push(bytes.readUInt16BE(at))
      return found
    }
    await until(() => types().length >= expected.length)
    await delay(250)
    t.strictSame(types(), expected, `${machineType}, ${wants ? 'with' : 'without'} a device that wants it`)
    source.destroy()
    await rejection(destination.completed)
  }
})

t.test('the word, in both versions of it: a destination made by hand', async (t) => {
  const { device } = thoughtful()
  for (const { machineType, wants, waits } of [
    { machineType: 'pc-i440fx-11.0', wants: false, waits: true },
    { machineType: 'pc-i440fx-11.1', wants: false, waits: false },
    { machineType: 'pc-i440fx-11.1', wants: true, waits: true },
    { machineType: 'multifd', wants: true, waits: true },
  ]) {
    const hand = await HandDestination.listen()
    const devices = wants ? [device] : []
    const source = new MigrationSource({ ram: [memory!], machineType, devices, parameters: { switchoverAck: true } })
    let stopped = false
    const migrated = source.migrate(hand.uri, {
      stop: () => {
        stopped = true
      },
    })
    const main = await hand.main()
    if (waits) {
      await until(() => source.status === 'active')
      await delay(400)
      t.notOk(stopped, `${machineType}: it waits`)
      main.send(written((view, at) => encodeSwitchoverAck(view, at)))
    }
    await until(() => stopped)
    await main.until(() => main.tail.toString('latin1').endsWith(']}'), 'the end')
    await delay(50)
    HandDestination.say(main, 0)
    t.equal((await migrated).status, 'completed')
    await hand.destroy()
  }
})

t.test('it needs the return path', (t) => {
  const parameters = { switchoverAck: true, returnPath: false }
  const refused = { code: 'ERR_MULTIFD_ARGUMENT', message: /needs the return path/ }
  t.throws(() => new MigrationSource({ ram: [memory!], parameters }), refused)
  t.end()
})
