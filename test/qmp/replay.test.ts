// The dialogues that were recorded with QEMU 7.2 and 10.0, held with our server: the same errors, and the same members.

import t, { type Test } from 'tap'
import type { QemuVersion } from '../support/qemu/index.js'
import { type Dialogue, type Exchange, hold, type QmpLine, type Recording, type Side } from './dialogue.js'
import { dialogues } from './dialogues.js'
import { QmpProgram, temporaryFolder } from './program.js'
import { readRecordings } from './recordings.js'

type Reply = { return?: unknown; error?: { class: string; desc: string }; id?: unknown }

/** Members that one version has and QMP 10.0, which is ours, has not; and those that came later. */
const ONLY_7_2 = ['skipped', 'singlestep', 'compress-level', 'compress-threads', 'decompress-threads']
const ALSO_ONLY_7_2 = ['compress-wait-thread', 'block-incremental']
const SINCE_7_2 = [
  ...['precopy-bytes', 'downtime-bytes', 'postcopy-bytes', 'dirty-sync-missed-zero-copy', 'direct-io', 'mode'],
  ...['avail-switchover-bandwidth', 'zero-page-detection', 'multifd-qatzip-level', 'vcpu-dirty-limit'],
  ...['x-vcpu-dirty-limit-period', 'calc-time-unit'],
]
const OTHERS_72 = new Set([...ONLY_7_2, ...ALSO_ONLY_7_2, ...SINCE_7_2])

/** Where we answer otherwise, on purpose. */
const DIFFERENT: Record<string, string> = {
  // QEMU takes a negative number for a very large one.
  '{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":-5}}': "Parameter 'max-bandwidth' expects uint64",
}

function commandOf({ sent }: Exchange): string {
  return (sent as { execute?: string }).execute ?? ''
}

/** What a value is made of: member by member, elements of a list together. */
function shapeOf(value: unknown, ignored: ReadonlySet<string>): unknown {
  if (Array.isArray(value)) {
    return [...new Set(value.map((element) => JSON.stringify(shapeOf(element, ignored))))].sort()
  }
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value
  const members = Object.entries(value).filter(([name]) => !ignored.has(name))
  return Object.fromEntries(members.map(([name, member]) => [name, shapeOf(member, ignored)]).sort())
}

/** What two versions say in other words. */
function sameWords(desc: string): string {
  return desc.startsWith('JSON parse error') ? 'JSON parse error' : desc
}

function compare(t: Test, ours: Exchange, theirs: Exchange, version: QemuVersion): void {
  const [mine, real] = [ours.reply as Reply, theirs.reply as Reply]
  const what = JSON.stringify(ours.sent)
  const command = commandOf(ours)
  t.strictSame(mine.id, real.id, `${what}: id`)
  if (DIFFERENT[what]) {
    t.equal(mine.error?.desc, DIFFERENT[what])
  } else if (real.error) {
    t.equal(mine.error?.class, real.error.class, `${what}: class`)
    if (version === '10.0') t.equal(sameWords(mine.error?.desc ?? ''), sameWords(real.error.desc), `${what}: text`)
  } else if (mine.error) {
    t.fail(`${what}: ${mine.error.desc}`)
  } else if (command === 'query-commands') {
    const names = (reply: Reply): string[] => (reply.return as { name: string }[]).map(({ name }) => name)
    const known = new Set([...names(real), 'query-migrationthreads'])
    t.strictSame(
      names(mine).filter((name) => !known.has(name)),
      [],
      'no command that QEMU has not',
    )
  } else if (command === 'query-yank') {
    // Its monitors are instances too.
    const migration = (real.return as { type: string }[]).filter(({ type }) => type === 'migration')
    t.strictSame(mine.return, migration, what)
  } else if (command === 'query-migrate-capabilities' && version === '10.0') {
    t.strictSame(mine.return, real.return, what)
  } else if (command === 'query-migrate-parameters' && version === '10.0') {
    t.strictSame(new Map(sorted(mine.return)), new Map(sorted(real.return)), what)
  } else if (command === 'query-migrate-capabilities') {
    const states = ({ return: list }: Reply): [string, boolean][] =>
      (list as { capability: string; state: boolean }[]).map(({ capability, state }) => [capability, state])
    const mineByName = new Map(states(mine))
    for (const [name, state] of states(real)) if (mineByName.has(name)) t.type(state, typeof mineByName.get(name))
  } else {
    const ignored = new Set(version === '7.2' ? OTHERS_72 : [])
    // 7.2 did not say that it listens; 10.0 calls the connections that a cancellation breaks an error.
    if (version === '7.2' && ours.to === 'destination') ignored.add('status')
    if (commandOf(ours) === 'query-migrate' && (mine.return as { status?: string }).status === 'cancelled') {
      ignored.add('error-desc')
    }
    t.strictSame(shapeOf(mine.return, ignored), shapeOf(real.return, ignored), what)
    const status = (reply: Reply): unknown => (reply.return as { status?: string } | undefined)?.status
    if (status(real) !== undefined && !ignored.has('status')) t.equal(status(mine), status(real), `${what}: status`)
  }
}

function sorted(value: unknown): [string, unknown][] {
  return Object.entries(value as object).sort(([a], [b]) => (a < b ? -1 : 1))
}

/** Without passes, which are as many as it takes, and what 7.2 did not tell; twice the same is once. */
function sequence(events: Recording['events'][Side], version: QemuVersion): string[] {
  const words = events
    .filter(({ event, data }) => event !== 'MIGRATION_PASS' && !(version === '7.2' && statusOf(data) === 'device'))
    .map(({ event, data }) => (data === undefined ? event : `${event} ${JSON.stringify(data)}`))
  return words.filter((word, index) => word !== words[index - 1])
}

function statusOf(data: unknown): unknown {
  return (data as { status?: string } | undefined)?.status
}

async function replay(t: Test, dialogue: Dialogue): Promise<Recording> {
  const folder = temporaryFolder(t)
  const lines: Partial<Record<Side, QmpLine>> = {}
  for (const side of dialogue.destination ? (['source', 'destination'] as const) : (['source'] as const)) {
    const program = await new QmpProgram(folder, { side, running: dialogue.running ?? false }).listen()
    t.teardown(() => program.close())
    lines[side] = await program.connect()
  }
  return await hold(dialogue, lines, folder)
}

const recordings = { '7.2': readRecordings('7.2'), '10.0': readRecordings('10.0') }

for (const dialogue of dialogues) {
  t.test(dialogue.name, async (t) => {
    const ours = await replay(t, dialogue)
    for (const version of ['7.2', '10.0'] as const) {
      const real = recordings[version][dialogue.name]
      if (!real) continue
      t.strictSame(shapeOf(ours.greeting, new Set()), shapeOf(real.greeting, new Set()), 'the greeting')
      t.equal(ours.exchanges.length, real.exchanges.length)
      const differs = version === '7.2' && ['bad-arguments', 'settings', 'dirty-rate'].includes(dialogue.name)
      for (const [index, exchange] of ours.exchanges.entries()) {
        // 7.2 checked less and knew less.
        const theirs = real.exchanges[index]!
        const refused = (exchange.reply as Reply).error !== undefined
        if (differs && refused !== ((theirs.reply as Reply).error !== undefined)) continue
        if (version === '7.2' && /migrationthreads/.test(commandOf(exchange))) continue
        compare(t, exchange, theirs, version)
      }
      for (const side of ['source', 'destination'] as const) {
        t.strictSame(sequence(ours.events[side], version), sequence(real.events[side], version), `events, ${version}`)
      }
    }
    const passes = ours.events.source.filter(({ event }) => event === 'MIGRATION_PASS')
    t.strictSame(
      passes.map(({ data }) => data),
      passes.map((_, index) => ({ pass: index + 1 })),
    )
  })
}
