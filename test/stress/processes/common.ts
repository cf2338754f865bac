// What both processes of a stressed migration do.

import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import { endIdleThreads, type MigrationDestination, type MigrationSource } from '../../../src/index.js'
import type { Disturbance } from '../draw.js'

/** Logs of every thread, on standard error: the file of this process. */
export const logger = pino({ level: process.env['STRESS_LOG'] ?? 'debug' }, pino.destination({ dest: 2, sync: true }))

/** Does to this side what was drawn for it, once its time has come. */
export function disturb(migration: MigrationSource | MigrationDestination, disturbance: Disturbance): void {
  if (!('side' in disturbance)) return
  const { kind, at, afterMs } = disturbance
  let came = false
  migration.on('status', async (status) => {
    if (status !== at || came) return
    came = true
    if (afterMs > 0) await delay(afterMs)
    logger.info({ kind, at, afterMs, status: migration.status }, 'disturbed')
    if (kind === 'kill') process.kill(process.pid, 'SIGKILL')
    migration.cancel()
  })
}

/** Ends what waits for another migration, and gives memory back, as far as that can be asked for. */
export async function rest(): Promise<void> {
  await endIdleThreads()
  globalThis.gc?.()
  await delay(50)
  globalThis.gc?.()
}
