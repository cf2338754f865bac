// QMP's parameters of TLS: they name objects, which the program that has the server made before.

import type { TlsOptions } from '../tls/options.js'
import { QmpError } from './error.js'

/** What QEMU has as objects: by their ids, for `tls-creds` and `tls-authz` to name. */
export interface TlsObjects {
  /** tls-creds-x509 and tls-creds-psk. */
  credentials?: Readonly<Record<string, TlsOptions>>
  /** authz-simple and authz-list: the names that are let in. */
  authz?: Readonly<Record<string, readonly string[]>>
}

export const TLS_PARAMETERS = ['tls-authz', 'tls-creds', 'tls-hostname'] as const
/** Empty: none. */
export type TlsSettings = Record<(typeof TLS_PARAMETERS)[number], string>
export const NO_TLS_SETTINGS: TlsSettings = { 'tls-authz': '', 'tls-creds': '', 'tls-hostname': '' }

/**
 * What they are for a source or a destination.
 *
 * @param own the program's own, which holds where no credentials are named
 * @throws QmpError for an object that is not there
 */
export function namedTls(
  settings: TlsSettings,
  objects: TlsObjects,
  own: TlsOptions | undefined,
): TlsOptions | undefined {
  const { 'tls-authz': authz, 'tls-creds': id, 'tls-hostname': hostname } = settings
  if (id === '') return own
  return {
    ...object(objects.credentials, id, 'TLS credentials'),
    ...(hostname === '' ? {} : { hostname }),
    ...(authz === '' ? {} : { authz: object(objects.authz, authz, 'authorization object') }),
  }
}

function object<T>(objects: Readonly<Record<string, T>> | undefined, id: string, what: string): T {
  if (objects && Object.hasOwn(objects, id)) return objects[id]!
  throw new QmpError(`No ${what} with id '${id}'`)
}
