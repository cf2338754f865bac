// Walks fault points: every point × every method × both sides, each a migration that is broken there, and what must hold of
// it. One process has both sides, so that nothing of either can be left behind unseen.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { MultifdError } from '../../src/errors.js'
import { FAULT_POINTS, type FaultName, type FaultPoint, type FaultSide } from '../../src/faults.js'
import {
  type DirtyLogKind,
  FaultPoints,
  MigrationDestination,
  MigrationSource,
  SnapshotReceiver,
} from '../../src/index.js'
import type { Logger } from '../../src/log.js'
import { leftovers, openDescriptors } from '../support/peers/index.js'
import { type MethodName, methodParameters } from './methods.js'
import { Program } from './program.js'

/** Of the parameters, where one of them is what ends the migration. */
const SHORT_MS = 500
const LONG_MS = 20_000
// Beyond the timeout that applies: a busy machine needs some.
const PATIENCE_MS = 15_000
// How long a destination is watched that goes on waiting.
const WAITS_MS = 300

export interface Case {
  point: FaultName
  side: FaultSide
  method: MethodName
  /** The time at which it happens, from 1 on. */
  at: number
  /** Whether it is received into a snapshot, where the point needs none. */
  intoFile?: true
}

export interface Result extends Case {
  /** How each side ended: a code, `completed`, or `waits`. */
  source: string
  destination: string
  messages: string[]
  ms: number
  /** What does not hold. */
  problems: string[]
}

interface Ended {
  outcome: string
  error?: Error
}

export class Walk {
  readonly #folder = mkdtempSync(join(tmpdir(), 'multifd-faults-'))
  readonly #programs = new Map<DirtyLogKind, Program>()
  readonly #uncaught: string[] = []
  readonly #hear = (error: Error): void => void this.#uncaught.push(error.message)

  constructor() {
    process.on('uncaughtException', this.#hear)
  }

  async close(): Promise<void> {
    for (const program of this.#programs.values()) await program.halt()
    process.off('uncaughtException', this.#hear)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #program(kind: DirtyLogKind): Promise<Program> {
    let program = this.#programs.get(kind)
    if (!program) {
      program = new Program(kind)
      this.#programs.set(kind, program)
    }
    await program.run()
    return program
  }

  /** Breaks one migration, and holds it to what the table says. */
  async step(one: Case): Promise<Result> {
    const point: FaultPoint = FAULT_POINTS[one.point]
    const faults = new FaultPoints([`${one.point}@${one.at}`])
    const program = await this.#program(point.needs === 'kernel-log' ? 'kernel' : 'explicit')
    const before = openDescriptors()
    const problems: string[] = []
    const lines = { source: [] as string[], destination: [] as string[] }
    const timeouts = timeoutsOf(point)
    const [ours, theirs] = methodParameters(one.method, this.#folder).map((parameters) => ({
      ...parameters,
      ...timeouts,
    }))
    const armed = (side: FaultSide) => ({ ...(one.side === side && { faults }), logger: collecting(lines[side]) })
    const source = new MigrationSource({ ram: program.ram, parameters: ours!, ...armed('source') })
    const options = { parameters: theirs!, ...armed('destination') }
    const destination =
      point.needs === 'snapshot' || one.intoFile
        ? new SnapshotReceiver(join(this.#folder, 'snapshot'), options)
        : new MigrationDestination({ ram: program.theirs, ...options })
    const hooks = { stop: () => program.halt(), resume: () => program.run() }
    const limitMs = PATIENCE_MS + (timeouts === undefined ? 0 : timeouts.stallTimeoutMs)
    const began = performance.now()
    program.forget()
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const [sent, received] = [ended(source.migrate(uri, hooks)), ended(destination.completed)]
    const ending = await within(sent, limitMs)
    const coming = await within(
      received,
      allowed(point, 'destination', one.side).includes('waits') ? WAITS_MS : limitMs,
    )
    const ms = performance.now() - began
    const waits = coming === undefined && destination.status === 'setup'
    const results = {
      source: ending ?? { outcome: 'hangs' },
      destination: coming ?? { outcome: waits ? 'waits' : 'hangs' },
    }
    await Promise.all([source.close(), destination.close()])

    for (const side of ['source', 'destination'] as const) {
      const expected = allowed(point, side, one.side)
      const { outcome, error } = results[side]
      if (!expected.includes(outcome)) problems.push(`the ${side}: ${outcome}, expected ${expected.join(' or ')}`)
      if (error) problems.push(...unclear(side, error, lines[side]))
    }
    if (faults.happened(one.point) === 0) problems.push('it never happened')
    faults.disarm()
    if (point.outcome === 'survived' && point.needs !== 'snapshot') problems.push(...program.missing())
    if (ending?.outcome === 'completed') await program.run()
    else problems.push(...(await program.harm()))
    problems.push(...(await this.#left(before)))
    problems.push(...(await this.#again(program, source, options.parameters, hooks)))
    problems.push(...(await this.#left(before)))
    for (const message of this.#uncaught.splice(0)) problems.push(`nobody caught: ${message}`)
    const messages = [results.source, results.destination].flatMap(({ error }) => (error ? [error.message] : []))
    return {
      ...one,
      source: results.source.outcome,
      destination: results.destination.outcome,
      messages,
      ms: Math.round(ms),
      problems,
    }
  }

  // The same source, to a destination that nothing is wrong with.
  async #again(
    program: Program,
    source: MigrationSource,
    parameters: ConstructorParameters<typeof MigrationDestination>[0]['parameters'],
    hooks: { stop(): Promise<void>; resume(): Promise<void> },
  ): Promise<string[]> {
    program.forget()
    const roomy = { ...timeouts(LONG_MS) }
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

  async #left(before: Map<number, string>): Promise<string[]> {
    const { threads, descriptors } = await leftovers(before)
    const files = readdirSync(this.#folder).filter((name) => name !== 'psk')
    return [
      ...threads.map((name) => `thread left: ${name}`),
      ...descriptors.map((what) => `descriptor left: ${what}`),
      ...files.map((name) => `file left: ${name}`),
    ]
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
function allowed({ outcome, code, peer = [] }: FaultPoint, side: FaultSide, armed: FaultSide): readonly string[] {
  if (outcome === 'unguarded')
    return side === 'source'
      ? ['completed', 'ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_REMOTE']
      : ['completed', 'ERR_MULTIFD_BARRIER']
  if (outcome !== 'fails') return ['completed']
  if (side !== armed) return peer
  return code === undefined ? [] : typeof code === 'string' ? [code] : code
}

async function ended(migration: Promise<unknown>): Promise<Ended> {
  try {
    await migration
    return { outcome: 'completed' }
  } catch (thrown) {
    const error = thrown as Error
    return { outcome: error instanceof MultifdError ? error.code : error.name, error }
  }
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const abort = new AbortController()
  try {
    return await Promise.race([promise, delay(ms, undefined, { signal: abort.signal })])
  } finally {
    abort.abort()
  }
}

/** One error, of one line, told once. */
function unclear(side: FaultSide, { message }: Error, lines: readonly string[]): string[] {
  const problems: string[] = []
  if (/\n/.test(message) || message.length < 10) problems.push(`the ${side}'s error is no line: ${message}`)
  if (lines.length !== 1) problems.push(`the ${side} told ${lines.length} errors: ${lines.join(' | ')}`)
  return problems
}

function collecting(lines: string[]): Logger {
  const quiet = (): void => {}
  return {
    debug: quiet,
    info: quiet,
    warn: quiet,
    error: (_, line) => void lines.push(line),
    isLevelEnabled: () => false,
  }
}
