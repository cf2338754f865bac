// What a QEMU and we have for TLS: credentials on disk, and how a QEMU is given them.

import { join } from 'node:path'
import type { Qemu } from '../support/qemu/index.js'
import { Authority, pskDirectory, SERVER_HOST, trusting } from '../support/tls/credentials.js'

/** What a QEMU has as `tls-creds`, and the parameters beside it. */
export interface QemuTls {
  type: 'x509' | 'psk'
  dir: string
  verifyPeer?: boolean
  priority?: string
  username?: string
  hostname?: string
  /** The one name that is let in. */
  authz?: string
  /** Whether QEMU looks at its own certificate before it uses it. */
  sanityCheck?: boolean
}

/** Credential directories, by who has them. */
export interface Credentials {
  /** A server, and a client that shows a certificate. */
  friendly: string
  /** A server that does not have the address as a name. */
  named: string
  anonymous: string
  /** A client whose certificate somebody else signed. */
  hostile: string
  /** The same, whose own checks find nothing wrong with it. */
  outsider: string
  /** The keys `qemu` and `other`. */
  psk: string
  /** Another key `qemu`. */
  wrongPsk: string
}

export function makeCredentials(folder: string): Credentials {
  const authority = new Authority(join(folder, 'ca'))
  const stranger = new Authority(join(folder, 'stranger'), 'Stranger')
  const trusts = (name: string, ...others: Authority[]): string => trusting(join(folder, name), authority, ...others)
  const friendly = trusts('friendly')
  authority.sign(friendly, 'server')
  authority.sign(friendly, 'client')
  const named = trusts('named')
  authority.sign(named, 'server', { altName: `DNS:${SERVER_HOST}` })
  authority.sign(named, 'client')
  const hostile = trusts('hostile')
  stranger.sign(hostile, 'client')
  const outsider = trusts('outsider', stranger)
  stranger.sign(outsider, 'client')
  return {
    ...{ friendly, named, hostile, outsider, anonymous: trusts('anonymous') },
    ...{
      psk: pskDirectory(join(folder, 'psk'), 'qemu', 'other'),
      wrongPsk: pskDirectory(join(folder, 'wrong'), 'qemu'),
    },
  }
}

/** Gives a QEMU its credentials. */
export async function addCredentials(qemu: Qemu, tls: QemuTls, role: 'client' | 'server'): Promise<void> {
  const { type, dir, verifyPeer = true, priority, username, authz, sanityCheck } = tls
  await qemu.command('object-add', {
    ...{ 'qom-type': `tls-creds-${type}`, id: 'tls0', dir, endpoint: role },
    ...(type === 'x509' && { 'verify-peer': verifyPeer }),
    ...(sanityCheck === undefined ? {} : { 'sanity-check': sanityCheck }),
    ...(priority === undefined ? {} : { priority }),
    ...(username === undefined ? {} : { username }),
  })
  if (authz !== undefined)
    await qemu.command('object-add', { 'qom-type': 'authz-simple', id: 'authz0', identity: authz })
}

/** What its migration is told of them. */
export function tlsParameters({ hostname, authz }: QemuTls): Record<string, string> {
  return {
    'tls-creds': 'tls0',
    ...(hostname !== undefined && { 'tls-hostname': hostname }),
    ...(authz !== undefined && { 'tls-authz': 'authz0' }),
  }
}
