// What both processes of a stressed migration do.

import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import {
  endIdleThreads,
  type MigrationDestination,
  type MigrationSource,
  type MigrationStatus,
} from '../../../src/index.js'
import { giveBackFreed } from '../../../src/os/memory.js'
import type { Disturbance } from '../draw.js'

/** Logs of every thread, on standard error: the file of this process. */
export const logger = pino({ level: process.env['STRESS_LOG'] ?? 'debug' }, pino.destination({ dest: 2, sync: true }))

/**
 * Does to this side what was drawn for it, once its time has come.
 *
 * @returns what calls that off, where the migration is over before
 */
export function disturb(migration: MigrationSource | MigrationDestination, disturbance: Disturbance): () => void {
  const calledOff = new AbortController()
  if (!('side' in disturbance)) return () => {}
  const { kind, at, afterMs } = disturbance
  const act = (): void => {
    logger.info({ kind, at, afterMs, status: migration.status }, 'disturbed')
    if (kind === 'kill') process.kill(process.pid, 'SIGKILL')
    migration.cancel()
  }
  let came = false
  const hear = (status: MigrationStatus): void => {
    if (status !== at || came) return
    came = true
    if (afterMs === 0) act()
    else delay(afterMs, undefined, { signal: calledOff.signal }).then(act, () => {})
  }
  migration.on('status', hear)
  hear(migration.status)
  return () => calledOff.abort()
}

/** After so long without a migration every thread of one has collected its garbage. */
const REST_MS = 500
// What was collected is given back by a thread of the engine's.
const SWEPT_MS = 50

/**
 * Gives memory back, as far as that can be asked for.
 *
 * @param endThreads ends what waits for another migration, too
 * @returns MiB that JavaScript uses then, in the program's own thread
 */
export async function rest(endThreads: boolean): Promise<number> {
  if (endThreads) await endIdleThreads()
  globalThis.gc?.()
  await delay(REST_MS)
  globalThis.gc?.()
  await delay(SWEPT_MS)
  giveBackFreed()
  return process.memoryUsage().heapUsed / 2 ** 20
}
