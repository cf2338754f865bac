// Certificates for the method `tls`, the same for every peer: made once, and found by the child processes.

import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { onProcessEnd } from '../test/support/qemu/cleanup.js'
import type { Qemu } from '../test/support/qemu/guest.js'
import { Authority, trusting } from '../test/support/tls/credentials.js'
import { removeNow } from './temporary.js'

const VARIABLE = 'MULTIFD_BENCH_TLS'

/** Makes them in a folder that goes with this process. */
export function makeCredentials(tmpfs: string): void {
  const folder = mkdtempSync(join(tmpfs, 'multifd-bench-'))
  onProcessEnd(() => removeNow(folder))
  const authority = new Authority(join(folder, 'ca'))
  const dir = trusting(join(folder, 'tls'), authority)
  authority.sign(dir, 'server')
  authority.sign(dir, 'client')
  process.env[VARIABLE] = dir
}

/** The directory, where there is one. */
export function credentials(): string | undefined {
  return process.env[VARIABLE]
}

/** What a QEMU's parameters `tls-creds` name, by what it is in a migration. */
export const QEMU_CREDENTIALS = { source: 'tls-source', destination: 'tls-destination' } as const

/** Gives a QEMU both. */
export async function addCredentials(qemu: Qemu): Promise<void> {
  const dir = credentials()
  if (dir === undefined) return
  const type = { 'qom-type': 'tls-creds-x509', dir }
  await qemu.command('object-add', { ...type, id: QEMU_CREDENTIALS.source, endpoint: 'client' })
  await qemu.command('object-add', { ...type, id: QEMU_CREDENTIALS.destination, endpoint: 'server' })
}
