// What is done with the pages, as the benchmark names it: `none`, `zlib:1`, `zstd:3`, `tls` (none, and all of it encrypted).

import { InvalidArgumentError } from 'commander'
import type { MigrationParameters } from '../src/index.js'
import { credentials, QEMU_CREDENTIALS } from './credentials.js'

const LEVELS = { none: 0, tls: 0, zlib: 9, zstd: 20 } as const
type Name = keyof typeof LEVELS

/** A name, and a level where there is one. */
export type Method = Name | `${Name}:${number}`

/** A list of methods, with commas between. */
export function methods(text: string): Method[] {
  const words = text.split(',')
  for (const word of words) {
    const [, name = '', level = '0'] = /^(\w+)(?::(\d+))?$/.exec(word) ?? []
    if (!Object.hasOwn(LEVELS, name) || Number(level) > LEVELS[name as Name]) {
      throw new InvalidArgumentError('It must be of none, tls, zlib:0 to zlib:9, zstd:0 to zstd:20.')
    }
  }
  return words as Method[]
}

/** Our parameters for a method. */
export function parametersOf(method: Method): Partial<MigrationParameters> {
  const [name, level] = method.split(':')
  if (name === 'none') return {}
  if (name === 'tls') return { tls: { dir: credentials()! } }
  const parameters = {
    multifdCompression: name,
    ...(level !== undefined && { [name === 'zlib' ? 'multifdZlibLevel' : 'multifdZstdLevel']: Number(level) }),
  }
  return parameters as Partial<MigrationParameters>
}

/** QEMU's parameters for a method, `none` too: a QEMU keeps what it was told for the migration before. */
export function qemuParametersOf(method: Method, side: keyof typeof QEMU_CREDENTIALS): Record<string, string | number> {
  const [name = 'none', level] = method.split(':')
  if (name === 'tls') return { 'multifd-compression': 'none', 'tls-creds': QEMU_CREDENTIALS[side] }
  return {
    'multifd-compression': name,
    'tls-creds': '',
    ...(level !== undefined && { [`multifd-${name}-level`]: Number(level) }),
  }
}
