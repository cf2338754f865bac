// What a command says: its log, its one result, one line for a failure, and its exit status.

import { getSystemErrorMap } from 'node:util'
import { type DestinationStream, pino } from 'pino'
import pretty from 'pino-pretty'
import { type ErrorCode, MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import type { ObservedMigrations } from '../metrics/metrics.js'
import type { MetricsServer } from '../metrics/server.js'
import type { Migration } from '../migration/migration.js'
import type { MigrationStatistics } from '../migration/statistics.js'
import { bytes, duration, kebabKeys, printable, rate } from './format.js'
import type { HostPort, LogOptions } from './options.js'
import { Progress } from './progress.js'
import { outputLost, outputStatus } from './streams.js'

export const EXIT = { completed: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** A logger to standard error: pretty on a terminal, JSON lines otherwise. */
export function makeLogger({ verbose, logLevel }: LogOptions): Logger {
  const destination = pino.destination({ dest: 2, sync: true })
  const stream: DestinationStream = process.stderr.isTTY
    ? pretty({ destination, sync: true, ignore: 'pid,hostname' })
    : destination
  const level = logLevel ?? (verbose ? 'debug' : 'warn')
  const logger = pino({ level }, stream)
  // It would keep what it can not write.
  destination.on('error', () => {
    logger.level = 'silent'
  })
  // The command itself ends with the reason of a failure: it need not stand there twice.
  return logger.isLevelEnabled('info') ? logger : Object.assign(logger, { error: () => {} })
}

/** A line on standard error. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** The one object of `--json`, on standard output. */
export function printJson(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** The object that `--json` prints for a migration, by QEMU's names. Times in ms. */
export function resultObject(statistics: MigrationStatistics | undefined, error: MultifdError | undefined): object {
  const { status = 'failed', totalTime, downtime, setupTime, ram, xbzrleCache } = statistics ?? {}
  const times = Object.entries({ totalTime, downtime, setupTime })
    .filter(([, time]) => time !== undefined)
    .map(([name, time]) => [name, Math.round(time!)])
  const figures = { ...(ram && { ram }), ...(xbzrleCache && { xbzrleCache }) }
  const result = kebabKeys({ status, ...Object.fromEntries(times), ...figures }) as object
  return error ? { ...result, error: errorObject(error) } : result
}

export function errorObject({ code, message }: { code: ErrorCode; message: string }): object {
  return { code, message: `${message}${inWords(message)}` }
}

/** Says why a command failed, in one line, and gives its exit status. */
export function failure(error: MultifdError, interrupted = false): number {
  if (interrupted) return interruption()
  say(`multifd: ${printable(error.message)}${inWords(error.message)} (${error.code})`)
  return error.code === 'ERR_MULTIFD_ARGUMENT' ? EXIT.usage : EXIT.failed
}

/** Says that a command was interrupted, and gives its exit status. Why output was lost has been said. */
export function interruption(): number {
  const lost = outputStatus()
  if (lost !== undefined) return lost
  say('multifd: interrupted')
  return EXIT.interrupted
}

/** A message that ends with the system's symbol of an error is followed by its meaning. */
function inWords(message: string): string {
  const symbol = message.slice(message.lastIndexOf(' ') + 1)
  const meaning = [...getSystemErrorMap().values()].find(([name]) => name === symbol)
  return meaning ? `, ${meaning[1]}` : ''
}

/**
 * Turns Ctrl-C into an abort, and the loss of standard output too. A second Ctrl-C is for those who do not want to wait: the
 * process exits at once.
 *
 * @param atOnce runs before such an exit, synchronously
 */
export function onInterrupt(atOnce?: () => void): { signal: AbortSignal; [Symbol.dispose](): void } {
  const abort = new AbortController()
  const interrupt = (): void => {
    if (abort.signal.aborted) {
      atOnce?.()
      process.exit(EXIT.interrupted)
    }
    abort.abort()
  }
  const end = (): void => abort.abort()
  outputLost.addEventListener('abort', end)
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, interrupt)
  return {
    signal: abort.signal,
    [Symbol.dispose]() {
      outputLost.removeEventListener('abort', end)
      for (const name of signals) process.off(name, interrupt)
    },
  }
}

/** A migration that a command conducts. */
export interface Conducted {
  migration: Migration
  /** What is going on, for the progress: `receiving`. */
  verb: string
  /** Resolves when the migration completed. */
  work(signal: AbortSignal): Promise<MigrationStatistics>
  /** What there is to say of a completed one. */
  outcome(): string
  /** Gives back everything that `prepare` took. */
  close(): Promise<void>
  /** Runs when the user does not even wait for the orderly end. */
  atOnce?(): void
}

/** What `--metrics` asks for, if it does. @throws MultifdError ERR_MULTIFD_LISTEN */
export async function serveMetrics(
  at: HostPort | undefined,
  migrations: () => ObservedMigrations,
): Promise<MetricsServer | undefined> {
  if (!at) return undefined
  const { MetricsServer: Server } = await import('../metrics/server.js')
  const server = await Server.listen(at, migrations)
  say(`metrics on ${server.url}`)
  return server
}

/** Runs a migration under a command: progress, Ctrl-C, the result, the exit status. */
export async function conduct(options: { json?: true; metrics?: HostPort }, prepare: () => Conducted): Promise<void> {
  let conducted: Conducted | undefined
  let error: MultifdError | undefined
  let interrupted = false
  try {
    conducted = prepare()
    using interrupt = onInterrupt(conducted.atOnce)
    const { migration, verb, work } = conducted
    const side = verb === 'sending' ? 'source' : 'destination'
    let progress: Progress | undefined
    let metrics: MetricsServer | undefined
    try {
      metrics = await serveMetrics(options.metrics, () => ({ [side]: migration }))
      progress = new Progress(migration, verb)
      await work(interrupt.signal)
    } finally {
      progress?.stop()
      await metrics?.close()
      interrupted = interrupt.signal.aborted
      await conducted.close()
    }
  } catch (thrown) {
    error = MultifdError.from(thrown)
  }
  const statistics = conducted?.migration.statistics()
  if (options.json) printJson(resultObject(statistics, error))
  if (error) process.exitCode = failure(error, interrupted)
  else if (!options.json) say(`${conducted!.outcome()}: ${summary(statistics!)}`)
}

function summary({ totalTime, setupTime = 0, ram }: MigrationStatistics): string {
  const active = Math.max(1, totalTime - setupTime)
  // Of zero pages the number alone: what all passes had of them together is more than the guest's memory.
  const pages = `${bytes(ram.normalBytes)} of data, ${ram.duplicate} zero pages (all passes)`
  return `${pages}, in ${duration(active)} at ${rate((ram.transferred * 1000) / active)}`
}
