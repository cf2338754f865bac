// keys.psk: lines of `username:hexkey`, as GnuTLS's psktool writes them and QEMU reads them.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { MultifdError } from '../errors.js'

const FILE = 'keys.psk'

/** Keys by the names of those who have them. */
export type PskKeys = ReadonlyMap<string, Uint8Array>

/** @throws MultifdError ERR_MULTIFD_FILE; ERR_MULTIFD_TLS for a line that is none. No key is in any message. */
export function readPskKeys(dir: string): PskKeys {
  const path = join(dir, FILE)
  const keys = new Map<string, Uint8Array>()
  for (const [at, line] of readCredential(path).toString('utf8').split(/\r?\n/).entries()) {
    if (line === '') continue
    const [, username, hex] = /^(.+):((?:[0-9a-fA-F]{2})+)$/.exec(line) ?? []
    if (username === undefined) {
      throw new MultifdError('ERR_MULTIFD_TLS', `${path}, line ${at + 1}: it must be username:hexkey`)
    }
    keys.set(username, new Uint8Array(Buffer.from(hex!, 'hex')))
  }
  if (keys.size === 0) throw new MultifdError('ERR_MULTIFD_TLS', `${path} has no key`)
  return keys
}

/** @throws MultifdError ERR_MULTIFD_FILE */
export function readCredential(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new MultifdError('ERR_MULTIFD_FILE', `TLS credentials: can not read ${path}: ${code}`, { cause })
  }
}
