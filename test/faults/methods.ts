// The ways of a migration that fault points are walked over.

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FAULT_POINTS, type FaultName, type FaultPoint } from '../../src/faults.js'
import type { MigrationParameters } from '../../src/index.js'
import { pskDirectory } from '../support/tls/credentials.js'

export const METHODS = ['none', 'zlib', 'zstd', 'auto', 'zero-copy', 'xbzrle', 'tls'] as const
export type MethodName = (typeof METHODS)[number]

/** What either side is told. */
export function methodParameters(method: MethodName, folder = tmpdir()): Partial<MigrationParameters>[] {
  switch (method) {
    case 'zero-copy':
      return [{ zeroCopySend: true }, {}]
    case 'xbzrle': {
      const parameters = { multifd: false, xbzrle: true }
      return [parameters, parameters]
    }
    case 'tls': {
      const parameters = { tls: { dir: pskDirectory(join(folder, 'psk'), 'qemu'), kind: 'psk' } } as const
      return [parameters, parameters]
    }
    default:
      return [{ multifdCompression: method }, { multifdCompression: method }]
  }
}

/** Whether a migration of that kind comes to the point at all. */
export function reaches(method: MethodName, name: FaultName): boolean {
  const { thread, needs, overTls }: FaultPoint = FAULT_POINTS[name]
  if (method === 'xbzrle' && (thread === 'channel' || needs === 'channels')) return false
  if (method === 'tls') return overTls === true
  return needs !== 'tls' && (needs !== 'zero-copy' || method === 'zero-copy')
}
