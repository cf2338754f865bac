// How a command tells what it does: a progress bar or a line now and then, one result, one line for a failure.

import { Presets, SingleBar } from 'cli-progress'
import { type DestinationStream, pino } from 'pino'
import pretty from 'pino-pretty'
import { MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import type { Migration } from '../migration/migration.js'
import type { MigrationStatistics } from '../migration/statistics.js'

const BAR_MS = 200
const LINE_MS = 5000

export const EXIT = { completed: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** A logger to standard error: pretty on a terminal, JSON lines otherwise. */
export function makeLogger(verbose: boolean): Logger {
  const level = verbose ? 'debug' : 'warn'
  const stream: DestinationStream = process.stderr.isTTY
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname' })
    : pino.destination({ dest: 2, sync: true })
  return pino({ level }, stream)
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Bytes with a unit, such as 1.50 GiB. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = count
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(2)} ${units[unit]}`
}

/** Bytes a second. */
export function rate(bytesPerSecond: number): string {
  return `${bytes(bytesPerSecond)}/s`
}

/** Shows how far a migration is, until `stop`. On a terminal a bar a pass; otherwise a line every few seconds. */
export class Progress {
  readonly #migration: Migration
  readonly #timer: NodeJS.Timeout
  readonly #bar: SingleBar | undefined
  #pass = 0
  #lastBytes = 0
  #lastAt = performance.now()

  constructor(migration: Migration) {
    this.#migration = migration
    if (process.stderr.isTTY) {
      this.#bar = new SingleBar(
        {
          format: '{label} {bar} {percentage}% | {moved} of {total} | {speed}{dirty}',
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: false,
          barsize: 24,
        },
        Presets.shades_classic,
      )
    }
    this.#timer = setInterval(() => this.#show(), this.#bar ? BAR_MS : LINE_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
    if (!this.#bar) return
    if (this.#pass > 0) this.#show()
    this.#bar.stop()
  }

  #show(): void {
    const statistics = this.#migration.statistics()
    if (!statistics || statistics.ram.total === 0) return
    const { ram } = statistics
    const now = performance.now()
    const speed = ((ram.transferred - this.#lastBytes) * 1000) / Math.max(1, now - this.#lastAt)
    this.#lastBytes = ram.transferred
    this.#lastAt = now
    const pass = Math.max(1, ram.dirtySyncCount)
    const done = Math.min(ram.total, (ram.normal + ram.duplicate) * ram.pageSize)
    const dirty = ram.dirtyPagesRate > 0 ? ` | ${ram.dirtyPagesRate} pages/s dirty` : ''
    if (!this.#bar) {
      say(`pass ${pass}: ${bytes(done)} of ${bytes(ram.total)}, ${rate(speed)}${dirty}`)
      return
    }
    const label = ram.dirtySyncCount > 0 ? `pass ${pass}` : 'receiving'
    const shown = { label, moved: bytes(done), total: bytes(ram.total), speed: rate(speed), dirty }
    if (this.#pass === 0) this.#bar.start(ram.total, done, shown)
    else this.#bar.update(done, shown)
    this.#pass = pass
  }
}

/** The object that `--json` prints, by QEMU's names. Times in ms. */
export function resultObject(statistics: MigrationStatistics | undefined, error: MultifdError | undefined): object {
  const result: Record<string, unknown> = { status: statistics?.status ?? 'failed' }
  if (statistics) {
    const { totalTime, downtime, setupTime, ram } = statistics
    result['total-time'] = Math.round(totalTime)
    if (downtime !== undefined) result['downtime'] = Math.round(downtime)
    if (setupTime !== undefined) result['setup-time'] = Math.round(setupTime)
    result['ram'] = Object.fromEntries(Object.entries(ram).map(([name, value]) => [kebab(name), value]))
  }
  if (error) result['error'] = { code: error.code, message: error.message }
  return result
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/**
 * Runs a migration under a command: progress, Ctrl-C, the result, the exit status.
 *
 * @param work resolves when the migration completed
 */
export async function conduct(
  migration: Migration,
  options: { json: boolean },
  work: (signal: AbortSignal) => Promise<MigrationStatistics>,
): Promise<number> {
  const abort = new AbortController()
  let interrupted = false
  const interrupt = (): void => {
    // The second Ctrl-C is for those who do not want to wait.
    if (interrupted) process.exit(EXIT.interrupted)
    interrupted = true
    abort.abort()
  }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  const progress = new Progress(migration)
  let error: MultifdError | undefined
  try {
    await work(abort.signal)
  } catch (thrown) {
    error = MultifdError.from(thrown)
  } finally {
    progress.stop()
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
  }
  const statistics = migration.statistics()
  if (options.json) process.stdout.write(`${JSON.stringify(resultObject(statistics, error))}\n`)
  if (!error) {
    if (!options.json && statistics) say(summary(statistics))
    return EXIT.completed
  }
  say(interrupted ? 'multifd: interrupted' : `multifd: ${error.message} (${error.code})`)
  return interrupted ? EXIT.interrupted : EXIT.failed
}

function summary({ totalTime, downtime, setupTime = 0, ram }: MigrationStatistics): string {
  const active = Math.max(1, totalTime - setupTime)
  const speed = rate((ram.transferred * 1000) / active)
  const still = downtime === undefined ? '' : `, downtime ${Math.round(downtime)} ms`
  const pages = `${bytes(ram.normalBytes)} of data, ${bytes(ram.duplicate * ram.pageSize)} of zero pages`
  return `completed in ${Math.round(active)} ms: ${pages}, ${speed}${still}`
}
