// One migration that is broken at a fault point, held to what the table says of its two sides.

import { join } from 'node:path'
import { FAULT_POINTS, type FaultPoint, type FaultSide } from '../../src/faults.js'
import { type FaultPoints, MigrationDestination, MigrationSource, SnapshotReceiver } from '../../src/index.js'
import { methodParameters } from './methods.js'
import { type Broken, collecting, type Ended, ended, unclear, within } from './outcome.js'
import type { Program } from './program.js'
import type { Case } from './walk.js'

/** Of the parameters, where one of them is what ends the migration. */
const SHORT_MS = 500
const LONG_MS = 20_000
// More than the second for which a destination takes a main channel that has spoken for alive.
const LATER_MS = 2000
// Beyond the timeout that applies: a busy machine needs some.
const PATIENCE_MS = 15_000
// How long a destination is watched that goes on waiting.
const WAITS_MS = 300
const SIDES = ['source', 'destination'] as const
type Side = (typeof SIDES)[number]

export async function breakMigration(
  one: Case,
  faults: FaultPoints,
  program: Program,
  folder: string,
): Promise<Broken> {
  const point: FaultPoint = FAULT_POINTS[one.point]
  const lines: Record<Side, string[]> = { source: [], destination: [] }
  const times = timeoutsOf(point)
  // The side that is broken is the one to notice: of two clocks of one length either could be the first.
  const patient = timeouts(times.stallTimeoutMs + LATER_MS)
  const [ours, theirs] = methodParameters(one.method, folder).map((parameters, at) => {
    return { ...parameters, ...(SIDES[at] === one.side ? times : patient) }
  })
  const armed = (side: Side) => ({ ...(one.side === side && { faults }), logger: collecting(lines[side]) })
  const source = new MigrationSource({ ram: program.ram, parameters: ours!, ...armed('source') })
  const options = { parameters: theirs!, ...armed('destination') }
  const destination =
    point.needs === 'snapshot' || one.intoFile
      ? new SnapshotReceiver(join(folder, 'snapshot'), options)
      : new MigrationDestination({ ram: program.theirs, prealloc: point.needs === 'prealloc', ...options })
  const hooks = { stop: () => program.halt(), resume: () => program.run() }
  const limitMs = PATIENCE_MS + times.stallTimeoutMs
  const began = performance.now()
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const [sent, received] = [ended(source.migrate(uri, hooks)), ended(destination.completed)]
  const ending = await within(sent, limitMs)
  const mayWait = allowed(point, 'destination', one.side).includes('waits')
  const coming = await within(received, mayWait ? WAITS_MS : limitMs)
  const ms = performance.now() - began
  const waits = coming === undefined && destination.status === 'setup'
  const results: Record<Side, Ended> = {
    source: ending ?? { outcome: 'hangs' },
    destination: coming ?? { outcome: waits ? 'waits' : 'hangs' },
  }
  await Promise.all([source.close(), destination.close()])

  const problems: string[] = []
  for (const side of SIDES) {
    const expected = allowed(point, side, one.side)
    const { outcome, error } = results[side]
    if (!expected.includes(outcome)) problems.push(`the ${side}: ${outcome}, expected ${expected.join(' or ')}`)
    if (!error) continue
    problems.push(...unclear(side, error))
    const told = lines[side]
    if (told.length !== 1) problems.push(`the ${side} told ${told.length} errors: ${told.join(' | ')}`)
  }
  if (point.outcome === 'survived') problems.push(...program.missing())
  return { ended: results, ms, problems, again: () => migrateAgain(program, source, options.parameters, hooks) }
}

// The same source, to a destination that nothing is wrong with.
async function migrateAgain(
  program: Program,
  source: MigrationSource,
  parameters: ConstructorParameters<typeof MigrationDestination>[0]['parameters'],
  hooks: { stop(): Promise<void>; resume(): Promise<void> },
): Promise<string[]> {
  const roomy = timeouts(LONG_MS)
  source.setParameters(roomy)
  const destination = new MigrationDestination({ ram: program.theirs, parameters: { ...parameters, ...roomy } })
  try {
    const sent = source.migrate(await destination.listen('tcp:127.0.0.1:0'), hooks)
    await Promise.all([sent, destination.completed])
    return program.missing()
  } catch (error) {
    return [`the next migration: ${(error as Error).message}`]
  } finally {
    await Promise.all([source.close(), destination.close()])
    await program.run()
  }
}

function timeouts(ms: number) {
  return {
    maxPasses: 10,
    atLimit: 'switchover' as const,
    connectTimeoutMs: ms,
    helloTimeoutMs: ms,
    stallTimeoutMs: ms,
    completionTimeoutMs: ms,
  }
}

function timeoutsOf({ lasts, outcome }: FaultPoint) {
  return timeouts(lasts && outcome === 'fails' ? SHORT_MS : LONG_MS)
}

/** How a side may end when the point is armed at `armed`. */
function allowed({ outcome, code, peer = [] }: FaultPoint, side: Side, armed: FaultSide): readonly string[] {
  if (outcome === 'unguarded')
    return side === 'source'
      ? ['completed', 'ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_REMOTE']
      : ['completed', 'ERR_MULTIFD_BARRIER']
  if (outcome !== 'fails') return ['completed']
  if (side !== armed) return peer
  return code === undefined ? [] : typeof code === 'string' ? [code] : code
}
