// query-migrationthreads, true at every instant: beside the operating system's own list, through migrations of every kind and
// end.

import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  endIdleThreads,
  type MigrationDestination,
  type MigrationParameters,
  type MigrationSource,
} from '../../src/index.js'
import { fillNoise, threadsNamed } from '../support/peers/index.js'
import type { QmpLine } from './dialogue.js'
import { QmpProgram, temporaryFolder } from './program.js'

const MIB = 2 ** 20
const SIDES = { source: 'src', destination: 'dst' } as const
type Side = keyof typeof SIDES

const folder = temporaryFolder(t)

interface Told {
  name: string
  'thread-id': number
}

/** Compares what one side tells with what there is, again and again. */
class Watch {
  looks = 0
  most = 0
  readonly wrong: string[] = []
  readonly #side: Side
  readonly #line: QmpLine
  #missing = new Set<number>()

  constructor(side: Side, line: QmpLine) {
    this.#side = side
    this.#line = line
  }

  async look(): Promise<void> {
    const alive = (): Map<number, string> => threadsNamed((name) => name.startsWith(`mig/${SIDES[this.#side]}/`))
    const before = alive()
    const told = await this.#line.command<Told[]>('query-migrationthreads')
    const after = alive()
    this.looks++
    this.most = Math.max(this.most, told.length)
    const names = new Map(told.map((thread) => [thread['thread-id'], thread.name]))
    if (names.size < told.length) this.wrong.push(`one thread told twice: ${JSON.stringify(told)}`)
    for (const [id, name] of names) {
      if (before.get(id) !== name && after.get(id) !== name) this.wrong.push(`${name} (${id}) is not alive`)
    }
    // It has its name an instant before it is told, and a little longer than it.
    const missing = [...before.keys()].filter((id) => after.get(id) === before.get(id) && !names.has(id))
    for (const id of missing) if (this.#missing.has(id)) this.wrong.push(`${before.get(id)} (${id}) is not told`)
    this.#missing = new Set(missing)
  }
}

interface Case {
  name: string
  parameters?: Partial<MigrationParameters>
  /** What ends it early, after some time. */
  end?: (source: MigrationSource, destination: MigrationDestination) => void
  /** Threads of the source at most, and at least as seen. */
  threads: number
}

const cases: Case[] = [
  { name: 'one connection', parameters: { multifd: false }, threads: 1 },
  { name: 'two channels', parameters: { multifdChannels: 2 }, threads: 3 },
  { name: 'four channels, compressed', parameters: { multifdChannels: 4, multifdCompression: 'zlib' }, threads: 5 },
  { name: 'cancelled', parameters: { multifdChannels: 4 }, end: (source) => source.cancel(), threads: 5 },
  { name: 'broken off', parameters: { multifdChannels: 4 }, end: (source) => source.yank(), threads: 5 },
  { name: 'its destination dies', parameters: { multifdChannels: 4 }, end: (_, other) => other.yank(), threads: 5 },
  { name: 'again, after all that', parameters: { multifdChannels: 4 }, threads: 5 },
]

for (const { name, parameters, end, threads } of cases) {
  t.test(name, async (t: Test) => {
    const programs = await Promise.all(
      (['source', 'destination'] as const).map((side) => new QmpProgram(folder, { side, size: 8 * MIB }).listen()),
    )
    t.teardown(() => Promise.all(programs.map((program) => program.close())))
    const [source, destination] = programs.map(({ migration }) => migration) as [MigrationSource, MigrationDestination]
    fillNoise(programs[0]!.block)
    const watches: Watch[] = []
    for (const [at, side] of (['source', 'destination'] as const).entries()) {
      const line = await programs[at]!.connect()
      await line.next()
      await line.command('qmp_capabilities')
      watches.push(new Watch(side, line))
    }
    source.setParameters({ multifd: true, returnPath: true, maxBandwidth: 30 * MIB, ...parameters })
    const { multifd = true, multifdChannels = 2 } = parameters ?? {}
    destination.setParameters({ multifd, multifdChannels, multifdCompression: 'auto' })
    let over = false
    const watching = Promise.all(
      watches.map(async (watch) => {
        while (!over) await watch.look()
      }),
    )
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const migrated = source.migrate(uri)
    const both = Promise.allSettled([migrated, destination.completed])
    if (end) {
      await new Promise((resolve) => source.once('passBegin', resolve))
      await sleep(60)
      end(source, destination)
    }
    const outcomes = await both
    // Their end comes after the migration's.
    await sleep(50)
    over = true
    await watching
    for (const { status } of outcomes) t.equal(status, end ? 'rejected' : 'fulfilled')
    for (const watch of watches) {
      t.strictSame(watch.wrong, [])
      t.ok(watch.looks > 5, `${watch.looks} looks`)
    }
    t.ok(watches[0]!.most > 1 || threads === 1, 'there was something to see')
    t.ok(watches[0]!.most <= threads, `${watches[0]!.most} threads of ${threads}`)
    t.equal(watches[1]!.most, multifd ? multifdChannels + 1 : 1, 'the destination has one a channel')
    await Promise.all([source.close(), destination.close()])
    t.strictSame(source.threads(), [])
    t.strictSame(destination.threads(), [])
  })
}

t.test('top -H shows them', async (t) => {
  await endIdleThreads()
  const [one, other] = await Promise.all(
    (['source', 'destination'] as const).map((side) => new QmpProgram(folder, { side, size: 8 * MIB }).listen()),
  )
  t.teardown(() => Promise.all([one!.close(), other!.close()]))
  fillNoise(one!.block)
  const [source, destination] = [one!.migration as MigrationSource, other!.migration as MigrationDestination]
  source.setParameters({ multifd: true, returnPath: true, maxBandwidth: 20 * MIB })
  destination.setParameters({ multifd: true })
  const migrated = source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await new Promise((resolve) => source.once('passBegin', resolve))
  const { stdout, error } = spawnSync('top', ['-H', '-b', '-n', '1', '-w', '200', '-p', String(process.pid)], {
    encoding: 'utf8',
  })
  if (error) t.comment(error.message)
  else for (const { name } of [...source.threads(), ...destination.threads()]) t.match(stdout, ` ${name}`)
  await Promise.all([migrated, destination.completed])
})
