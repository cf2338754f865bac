// Cancelling at any point of a migration: the program goes on, the destination ends by itself, and the next one succeeds.
//
// MULTIFD_CANCELS=n cancels n times in every state, at 20 points of it in turn; without it, four times.

import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  type MigrateOptions,
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type MigrationStatus,
  type RamBlock,
} from '../../src/index.js'
import {
  allocate,
  Child,
  fillMixed,
  HandDestination,
  leavesNothing,
  openDescriptors,
  PAGE,
  rejection,
  tells,
  type Wire,
  worksAgain,
} from '../support/peers/index.js'

const MiB = 2 ** 20
const heap = { idstr: 'heap', size: 4 * MiB }
const STATES = ['none', 'setup', 'active', 'pre-switchover', 'device'] as const
const POINTS = 20
const { MULTIFD_CANCELS = 4 } = process.env
const CANCELS = Number(MULTIFD_CANCELS)
// Far from each other in a short run too.
const POINT_STEP = 7
// How long each state lasts, so that there are so many points in it. The last pass is held back by nothing.
const STATE_MS = 40
const DEVICE_MS = 4
// Time within which a destination whose source has gone has noticed.
const NOTICE_MS = 5000
// A source that is cancelled when all is sent waits so long for the destination's word.
const LAST_WORD_MS = 2000

/** A program that counts in its memory and in a device, until it is stopped. */
class Program {
  readonly ram: RamBlock[] = allocate([heap])
  readonly device = {
    idstr: 'counter',
    version: 1,
    save: () => this.#count,
    load: (value: unknown) => {
      this.#count = value as number
    },
  }
  #count = 0
  #timer: NodeJS.Timeout | undefined

  constructor() {
    fillMixed(this.ram[0]!)
    this.resume()
  }

  get count(): number {
    return this.#count
  }

  get running(): boolean {
    return this.#timer !== undefined
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  resume(): void {
    this.#timer = setInterval(() => this.#work(), 1)
  }

  #work(): void {
    const page = ++this.#count % this.ram[0]!.pages
    new DataView(this.ram[0]!.bytes(page * PAGE, 4).buffer).setUint32(page * PAGE, this.#count)
    this.ram[0]!.markDirty(page * PAGE, 4)
  }
}

/** What a migration was when it was cancelled, and what became of it. */
interface Outcome {
  cancelledIn: MigrationStatus
  status: MigrationStatus
}

/** Migrates, and cancels `afterMs` after a state was come to. */
async function cancelIn(
  program: Program,
  state: (typeof STATES)[number],
  afterMs: number,
  parameters: Partial<MigrationParameters>,
): Promise<Outcome> {
  const before = program.count
  const there = { idstr: 'counter', version: 1, save: () => 0, load: () => {} }
  const destination = new MigrationDestination({ ram: allocate([heap]), devices: [there], parameters })
  const source = new MigrationSource({
    ram: program.ram,
    devices: [program.device],
    parameters: {
      ...parameters,
      // About STATE_MS for all of the memory.
      maxBandwidth: state === 'active' ? heap.size * (1000 / STATE_MS) : 0,
      pauseBeforeSwitchover: state === 'pre-switchover',
    },
  })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  let cancelledIn: MigrationStatus = 'none'
  let cancelled: Promise<void> | undefined
  const cancel = async (): Promise<void> => {
    // To less than the timers' whole milliseconds.
    for (const until = performance.now() + afterMs; performance.now() < until; )
      await delay(until - performance.now() > 2 ? 1 : 0)
    cancelledIn = source.status
    source.cancel()
  }
  source.on('status', (status) => {
    if (status === state) cancelled = cancel()
  })
  const hooks: MigrateOptions = {
    stop: () => {
      program.stop()
      if (state === 'device') program.ram[0]!.markDirty(0, heap.size)
    },
    resume: () => program.resume(),
  }
  const migrated = source.migrate(uri, hooks)
  if (state === 'none') cancelled = cancel()
  const result = await migrated.then(
    () => 'completed',
    (error) => error.code,
  )
  await cancelled
  if (result === 'completed') {
    // It came too late: both sides know that the program is over there.
    if (source.status !== 'completed' || program.running) throw new Error(`completed, and it is ${source.status}`)
    await destination.completed
    program.resume()
  } else {
    if (result !== 'ERR_MULTIFD_ABORTED' || source.status !== 'cancelled')
      throw new Error(`${result}: ${source.status}`)
    await endsByItself(destination, uri, parameters)
  }
  for (const count = program.count; program.count === count && program.running; ) await delay(1)
  if (!program.running || program.count <= before) throw new Error('the program does not go on')
  const { status } = source
  await Promise.all([source.close(), destination.close()])
  return { cancelledIn, status }
}

/** A destination that its source has reached ends; another one still listens, and takes the next. */
async function endsByItself(
  destination: MigrationDestination,
  uri: string,
  parameters: Partial<MigrationParameters>,
): Promise<void> {
  const waiting = (): boolean => destination.status === 'setup'
  const ended = rejection(destination.completed).then(() => true)
  if (await Promise.race([ended, delay(100, false)])) return
  if (!waiting()) {
    if (await Promise.race([ended, delay(NOTICE_MS, false)])) return
    throw new Error(`the destination is still '${destination.status}'`)
  }
  const device = { idstr: 'counter', version: 1, save: () => 0, load: () => {} }
  const next = new MigrationSource({ ram: allocate([heap]), devices: [device], parameters: parameters })
  try {
    await next.migrate(uri)
    await destination.completed
  } catch (error) {
    // The one that was cancelled had just knocked.
    await ended
    if (destination.status !== 'failed') throw error
  }
  await next.close()
}

t.setTimeout(Math.max(180_000, CANCELS * STATES.length * 5000))
t.before(() => worksAgain(t, new MigrationSource({ ram: allocate([heap]) }), allocate([heap])))

for (const [at, state] of STATES.entries()) {
  t.test(`cancelled while the state is '${state}'`, async (t) => {
    const before = openDescriptors()
    const program = new Program()
    t.teardown(() => program.stop())
    const outcomes: Outcome[] = []
    for (let turn = 0; turn < CANCELS; turn++) {
      const multifdChannels = 1 + ((at + turn) % 4)
      const parameters = turn % 5 === 4 ? { multifd: false } : { multifdChannels }
      // Somewhere in this twentieth of the state.
      const point = (turn * POINT_STEP) % POINTS
      const afterMs = ((point + Math.random()) / POINTS) * (state === 'device' ? DEVICE_MS : STATE_MS)
      outcomes.push(await cancelIn(program, state, afterMs, parameters))
    }
    const count = (key: keyof Outcome): Record<string, number> => {
      const counts: Record<string, number> = {}
      for (const { [key]: status } of outcomes) counts[status] = (counts[status] ?? 0) + 1
      return counts
    }
    t.comment(`cancelled in ${JSON.stringify(count('cancelledIn'))}, became ${JSON.stringify(count('status'))}`)
    t.ok(outcomes.some(({ status }) => status === 'cancelled'))
    program.stop()
    await worksAgain(t, new MigrationSource({ ram: program.ram }), program.ram)
    await leavesNothing(t, before)
  })
}

for (const state of ['active', 'pre-switchover', 'device'] as const) {
  t.test(`a destination's process ends by itself where its source is cancelled in '${state}'`, async (t) => {
    const there = new Child({ role: 'destination', uri: 'tcp:127.0.0.1:0', blocks: [heap] })
    t.teardown(() => there.destroy())
    const { uri } = await there.says('listening')
    const ram = allocate([heap])
    fillMixed(ram[0]!)
    const maxBandwidth = state === 'active' ? heap.size : 0
    const source = new MigrationSource({ ram, parameters: { maxBandwidth, pauseBeforeSwitchover: true } })
    source.on('status', (status) => {
      if (status === state) source.cancel()
      else if (status === 'pre-switchover') source.continue()
    })
    await t.rejects(source.migrate(uri, { stop() {} }), { code: 'ERR_MULTIFD_ABORTED' })
    const began = performance.now()
    t.strictSame(await there.ended(), { code: 0, signal: null })
    t.ok(performance.now() - began < NOTICE_MS)
    await worksAgain(t, new MigrationSource({ ram }), ram)
  })
}

/** A source of which everything was sent when it was cancelled, and the hand-made destination that gives the word. */
async function cancelledAtTheEnd(t: Test) {
  const destination = await HandDestination.listen()
  t.teardown(() => destination.destroy())
  const said: string[] = []
  const source = new MigrationSource({ ram: allocate([heap]), parameters: { multifdChannels: 2 } })
  const migrated = source.migrate(destination.uri, {
    stop: () => void said.push('stop'),
    resume: () => void said.push('resume'),
  })
  migrated.catch(() => {})
  const main = await destination.wholeStream()
  const began = performance.now()
  source.cancel()
  return { source, migrated, main, said, tookMs: () => performance.now() - began }
}

t.test('cancelled when everything is sent: the program goes on at one side alone', async (t) => {
  await t.test('the destination gives its word a moment later: the program is there', async (t) => {
    const { source, migrated, main, said } = await cancelledAtTheEnd(t)
    await delay(300)
    t.equal(source.status, 'cancelling')
    HandDestination.say(main, 0)
    await migrated
    t.equal(source.status, 'completed')
    t.strictSame(said, ['stop'], 'it was not told to go on here')
  })
  await t.test('the destination says that it failed, or goes: the program goes on here, at once', async (t) => {
    for (const end of [(main: Wire) => HandDestination.say(main, 1), (main: Wire) => void main.socket.destroy()]) {
      const { source, migrated, main, said, tookMs } = await cancelledAtTheEnd(t)
      end(main)
      tells(t, await rejection(migrated), { code: 'ERR_MULTIFD_ABORTED', says: /cancelled/ })
      t.equal(source.status, 'cancelled')
      t.strictSame(said, ['stop', 'resume'])
      t.ok(tookMs() < LAST_WORD_MS, `${tookMs()} ms`)
    }
  })
  await t.test('a destination that hangs is not waited for any longer', async (t) => {
    const { source, migrated, said, tookMs } = await cancelledAtTheEnd(t)
    tells(t, await rejection(migrated), { code: 'ERR_MULTIFD_ABORTED', says: /cancelled/ })
    t.equal(source.status, 'cancelled')
    t.strictSame(said, ['stop', 'resume'])
    t.ok(tookMs() >= LAST_WORD_MS && tookMs() < LAST_WORD_MS + NOTICE_MS, `${tookMs()} ms`)
  })
})
