// Processes that may lock only so much memory. Whoever has CAP_IPC_LOCK is not bound by the limit: it is taken away.

import { type SpawnSyncReturns, spawnSync } from 'node:child_process'

const DROP = ['--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock']
const TIMEOUT_MS = 60_000

/** Why no such process can be started here, or undefined. */
export function limitedMissing(): string | undefined {
  const tried = spawnSync('setpriv', [...DROP, 'prlimit', '--memlock=65536', 'true'])
  if (tried.status === 0) return undefined
  return 'setpriv and prlimit, with the right to drop a capability, are not to be had here'
}

/** Runs a script to its end under a limit in bytes. */
export function limited(bytes: number, script: string, ...args: string[]): SpawnSyncReturns<string> {
  const command = ['prlimit', `--memlock=${bytes}:${bytes}`, process.execPath, script, ...args]
  return spawnSync('setpriv', [...DROP, ...command], { encoding: 'utf8', timeout: TIMEOUT_MS })
}
