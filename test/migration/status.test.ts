// The table of states, walked: every change that it has, none that it has not.

import t from 'tap'
import { MIGRATION_STATUSES, MigrationState, type MigrationStatus } from '../../src/migration/status.js'

// Written out once more, as QEMU has them: a row that is lost from the table is found here.
const followers: Record<MigrationStatus, MigrationStatus[]> = {
  none: ['setup'],
  setup: ['active', 'cancelling', 'failed'],
  active: ['cancelling', 'completed', 'device', 'failed', 'pre-switchover'],
  'pre-switchover': ['cancelling', 'device', 'failed'],
  device: ['cancelling', 'completed', 'failed'],
  cancelling: ['cancelled', 'completed', 'failed'],
  completed: ['setup'],
  failed: ['setup'],
  cancelled: ['setup'],
}

/** A state that went along `path`, and what it told. */
function walk(path: MigrationStatus[]): { state: MigrationState; told: MigrationStatus[] } {
  const told: MigrationStatus[] = []
  const state = new MigrationState((status) => told.push(status))
  for (const status of path) state.become(status)
  return { state, told }
}

/** The shortest way to each state. */
function ways(): Map<MigrationStatus, MigrationStatus[]> {
  const found = new Map<MigrationStatus, MigrationStatus[]>([['none', []]])
  for (const [status, way] of found) {
    for (const next of MIGRATION_STATUSES) {
      if (!found.has(next) && walk(way).state.allows(next)) found.set(next, [...way, next])
    }
    t.equal(walk(way).state.status, status)
  }
  return found
}

t.test('every state can be come to, and leads where it should and nowhere else', (t) => {
  const found = ways()
  t.strictSame([...found.keys()].sort(), Object.keys(followers).sort())
  for (const [status, way] of found) {
    for (const next of MIGRATION_STATUSES) {
      const { state, told } = walk(way)
      if (followers[status].includes(next)) {
        state.become(next)
        t.equal(state.status, next)
        t.strictSame(told, [...way, next], 'each change is told once')
      } else {
        const message = `status '${next}' does not follow '${status}'`
        t.throws(() => state.become(next), { code: 'ERR_MULTIFD_INTERNAL', message })
        t.equal(state.status, status, 'and it stays as it was')
        t.strictSame(told, way)
      }
    }
  }
  t.end()
})

t.test('every walk ends, and what has ended can begin again', (t) => {
  for (const [status, way] of ways()) {
    const { state } = walk(way)
    const ended = ['none', 'completed', 'failed', 'cancelled'].includes(status)
    t.equal(state.running, !ended, status)
    t.equal(state.allows('setup'), ended)
    if (state.running) t.ok(state.allows('failed'), `${status}: can fail`)
    if (state.running && status !== 'cancelling') t.ok(state.allows('cancelling'), `${status}: can be cancelled`)
  }
  t.end()
})

t.test('a whole migration, with a pause and without', (t) => {
  walk(['setup', 'active', 'device', 'completed', 'setup', 'active', 'pre-switchover', 'device', 'completed'])
  walk(['setup', 'active', 'completed', 'setup', 'failed', 'setup', 'cancelling', 'cancelled'])
  t.end()
})
