// What a caller says of TLS: QEMU's credential directory, and what is asked of the peer.

import { MultifdError } from '../errors.js'

export const TLS_KINDS = ['x509', 'psk'] as const
export const TLS_VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const

/** TLS on every connection of a migration. The directory has QEMU's layout, so one serves a QEMU and us. */
export interface TlsOptions {
  /**
   * For `x509`: `ca-cert.pem`, with `server-cert.pem` and `server-key.pem` at a destination, `client-cert.pem` and
   * `client-key.pem` at a source that shows a certificate; `ca-crl.pem` and `dh-params.pem` where they are there. For
   * `psk`: `keys.psk`, lines of `username:hexkey`.
   */
  dir: string
  /** Certificates, or keys that both sides have. Default `x509`. */
  kind?: (typeof TLS_KINDS)[number]
  /** Destination: a source must show a certificate of this CA. Default true. A source always checks the destination's. */
  verifyPeer?: boolean
  /** Source: the name that the destination's certificate must have. Default: the host of the tcp: URI. */
  hostname?: string
  /**
   * Destination: the names that a source's certificate may have, in the form and the order of QEMU's authorization objects:
   * `C=GB,O=Example Org,CN=host`. Default: any certificate of the CA.
   */
  authz?: readonly string[]
  /** Source: whose key of `keys.psk` it is. Default `qemu`. */
  username?: string
  /** Default `TLSv1.2`. */
  minVersion?: (typeof TLS_VERSIONS)[number]
  /** Default `TLSv1.3`. */
  maxVersion?: (typeof TLS_VERSIONS)[number]
}

type Check = (value: unknown) => boolean

const isText: Check = (value) => typeof value === 'string' && value !== '' && !value.includes('\0')
const isOneOf = (list: readonly unknown[]): Check => {
  return (value) => list.includes(value)
}

const RULES: Record<keyof TlsOptions, [check: Check, wanted: string]> = {
  dir: [isText, "the credentials' directory"],
  kind: [isOneOf(TLS_KINDS), `one of ${TLS_KINDS.join(', ')}`],
  verifyPeer: [(value) => typeof value === 'boolean', 'true or false'],
  hostname: [isText, 'a host name or an address'],
  authz: [(value) => Array.isArray(value) && value.every(isText), "a list of certificates' names"],
  username: [isText, 'a name'],
  minVersion: [isOneOf(TLS_VERSIONS), `one of ${TLS_VERSIONS.join(', ')}`],
  maxVersion: [isOneOf(TLS_VERSIONS), `one of ${TLS_VERSIONS.join(', ')}`],
}

/** @throws MultifdError ERR_MULTIFD_ARGUMENT for what is no {@link TlsOptions}, or does not go together */
export function checkTlsOptions(given: unknown): asserts given is TlsOptions {
  if (typeof given !== 'object' || given === null) throw bad('tls', given, 'an object')
  for (const [name, value] of Object.entries(given)) {
    const rule = Object.hasOwn(RULES, name) ? RULES[name as keyof TlsOptions] : undefined
    if (!rule) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `there is no parameter 'tls.${name}'`)
    if (value !== undefined && !rule[0](value)) throw bad(`tls.${name}`, value, rule[1])
  }
  const { dir, kind, verifyPeer, authz, minVersion, maxVersion } = given as Partial<TlsOptions>
  if (dir === undefined) throw bad('tls.dir', dir, RULES.dir[1])
  if (kind === 'psk' && (authz !== undefined || verifyPeer === false)) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'tls.authz and tls.verifyPeer are about certificates: psk has none')
  }
  if (verifyPeer === false && authz !== undefined) {
    const text = 'tls.authz needs the names of certificates that were checked: leave tls.verifyPeer on'
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', text)
  }
  if (minVersion === 'TLSv1.3' && maxVersion === 'TLSv1.2') {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'tls.minVersion is above tls.maxVersion')
  }
}

function bad(name: string, value: unknown, wanted: string): MultifdError {
  const text = `parameter '${name}' is ${JSON.stringify(value)}: it must be ${wanted}`
  return new MultifdError('ERR_MULTIFD_ARGUMENT', text)
}
