// The ways of a migration that fault points are walked over.

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FAULT_POINTS, type FaultName, type FaultPoint, type FaultSide } from '../../src/faults.js'
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
      // Pages are sent again, as changes, for as long as it may take.
      return [{ ...parameters, downtimeLimit: 0 }, parameters]
    }
    case 'tls': {
      const parameters = { tls: { dir: pskDirectory(join(folder, 'psk'), 'qemu'), kind: 'psk' } } as const
      return [parameters, parameters]
    }
    default:
      return [{ multifdCompression: method }, { multifdCompression: method }]
  }
}

/** Whether a migration of that kind comes to the point at all. A background snapshot has no method: it counts as `none`. */
export function reaches(method: MethodName, name: FaultName, side: FaultSide): boolean {
  const { thread, needs, overTls }: FaultPoint = FAULT_POINTS[name]
  if (side === 'snapshot') return method === 'none'
  if (method === 'xbzrle' && (thread === 'channel' || needs === 'channels')) return false
  if (method === 'tls') return overTls === true
  return !isMethod(needs) || needs === method
}

/** Whether what a point needs is a method. */
export function isMethod(needs: string | undefined): needs is MethodName {
  return METHODS.includes(needs as MethodName)
}
