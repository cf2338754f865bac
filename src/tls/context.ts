// Credentials, read and checked: what every connection of a migration is made from.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { MultifdError } from '../errors.js'
import { PinnedBuffer } from '../os/memory.js'
import { openssl, takeOpensslError } from '../os/openssl.js'
import { type PskKeys, readCredential, readPskKeys } from './keys.js'
import type { TlsOptions } from './options.js'

/** A context as other threads get it. It is theirs to use until the migration's threads have ended. */
export interface TlsContextHandle {
  /** Address of the SSL_CTX. */
  address: number
  role: 'client' | 'server'
  /** Client: what the server's certificate must be of. */
  hostname?: string
  /** Server: the names that a client's certificate may have. */
  authz?: readonly string[]
  /** Of `psk`: the keys, and at a client its own name. */
  keys?: PskKeys
  username: string
}

const DEFAULT_USERNAME = 'qemu'

const CTRL = {
  sessionCacheMode: 44,
  buildCertificateChain: 105,
  dhAuto: 118,
  minVersion: 123,
  maxVersion: 124,
} as const
const VERSIONS = { 'TLSv1.2': 0x303, 'TLSv1.3': 0x304 } as const
// SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET, SSL_OP_NO_COMPRESSION, and
// SSL_OP_IGNORE_UNEXPECTED_EOF: QEMU ends its main channel without a word, so what ends well is what the stream says.
const OPTIONS = 2 ** 22 + 2 ** 30 + 2 ** 14 + 2 ** 17 + 2 ** 7
const VERIFY_PEER = 1
const VERIFY_REQUIRED = 3
const CHAIN_WITHOUT_ROOT = 2
const PEM = 1
const CRL_CHECK = 4

// AES-128 first: as safe for what a migration is, and a third faster than AES-256.
const CIPHERS = 'ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM'
const CIPHERSUITES = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256'
// Those whose keys of a session do not follow from the shared one come first.
const PSK_CIPHERS = 'DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256'
// OpenSSL ties a key that is asked for by callback to SHA-256.
const PSK_CIPHERSUITES = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256'

// The password of keys that have one: without it OpenSSL would ask the terminal.
let noPassword: PinnedBuffer | undefined

/** Owns an SSL_CTX. */
export class TlsContext {
  readonly handle: TlsContextHandle
  #closed = false

  /**
   * Reads and checks credentials.
   *
   * @param host of the tcp: URI, at a client: what the certificate must be of where `hostname` says nothing
   * @throws MultifdError ERR_MULTIFD_FILE for one that can not be read; ERR_MULTIFD_TLS for one that is not valid;
   * ERR_MULTIFD_ARGUMENT for a client without a name to check; ERR_MULTIFD_UNSUPPORTED
   */
  constructor(options: TlsOptions, role: 'client' | 'server', host?: string) {
    const { dir, kind = 'x509', username = DEFAULT_USERNAME, authz } = options
    const psk = kind === 'psk'
    const hostname = role === 'client' && !psk ? (options.hostname ?? host) : undefined
    if (role === 'client' && !psk && hostname === undefined) {
      const text = "the destination's certificate can not be checked: the URI names no host, so tls.hostname must"
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', text)
    }
    const keys = psk ? readPskKeys(dir) : undefined
    if (role === 'client' && keys && !keys.has(username)) {
      throw new MultifdError('ERR_MULTIFD_TLS', `${join(dir, 'keys.psk')} has no key of '${username}'`)
    }
    const lib = openssl()
    const address = lib.SSL_CTX_new(role === 'client' ? lib.TLS_client_method() : lib.TLS_server_method())
    if (address === 0) throw failed('OpenSSL has no memory')
    this.handle = {
      address,
      role,
      username,
      ...(hostname === undefined ? {} : { hostname }),
      ...(role === 'client' || authz === undefined ? {} : { authz }),
      ...(keys ? { keys } : {}),
    }
    try {
      setUp(address, options, psk)
      if (!psk) loadCertificates(address, options, role)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Connections that were made from it live on. Idempotent. */
  close(): void {
    if (!this.#closed) openssl().SSL_CTX_free(this.handle.address)
    this.#closed = true
  }
}

function setUp(context: number, options: TlsOptions, psk: boolean): void {
  const { minVersion = 'TLSv1.2', maxVersion = 'TLSv1.3' } = options
  const lib = openssl()
  lib.SSL_CTX_set_options(context, OPTIONS)
  lib.SSL_CTX_ctrl(context, CTRL.minVersion, VERSIONS[minVersion], 0)
  lib.SSL_CTX_ctrl(context, CTRL.maxVersion, VERSIONS[maxVersion], 0)
  lib.SSL_CTX_ctrl(context, CTRL.sessionCacheMode, 0, 0)
  lib.SSL_CTX_ctrl(context, CTRL.dhAuto, 1, 0)
  // A source that never reads would close with tickets unread: a reset, which takes what it sent last with it.
  lib.SSL_CTX_set_num_tickets(context, 0)
  noPassword ??= new PinnedBuffer(1)
  lib.SSL_CTX_set_default_passwd_cb_userdata(context, noPassword.address)
  const lists =
    lib.SSL_CTX_set_ciphersuites(context, psk ? PSK_CIPHERSUITES : CIPHERSUITES) === 1 &&
    lib.SSL_CTX_set_cipher_list(context, psk ? PSK_CIPHERS : CIPHERS) === 1
  if (!lists) throw failed('this OpenSSL has none of the ciphers')
}

function loadCertificates(context: number, { dir, verifyPeer = true }: TlsOptions, role: 'client' | 'server'): void {
  const lib = openssl()
  const ca = join(dir, 'ca-cert.pem')
  check(ca, (path) => lib.SSL_CTX_load_verify_locations(context, path, 0) === 1)
  const certificate = join(dir, `${role}-cert.pem`)
  const key = join(dir, `${role}-key.pem`)
  // A client may be one without.
  if (role === 'server' || existsSync(certificate) || existsSync(key)) {
    check(certificate, (path) => lib.SSL_CTX_use_certificate_chain_file(context, path) === 1)
    check(key, (path) => lib.SSL_CTX_use_PrivateKey_file(context, path, PEM) === 1)
    if (lib.SSL_CTX_check_private_key(context) !== 1) throw failed(`${key} is not the key of ${certificate}`)
    if (lib.SSL_CTX_ctrl(context, CTRL.buildCertificateChain, CHAIN_WITHOUT_ROOT, 0) < 1) {
      throw failed(`${certificate} is not valid by ${ca}`)
    }
  }
  const crl = join(dir, 'ca-crl.pem')
  if (existsSync(crl)) {
    const store = lib.SSL_CTX_get_cert_store(context)
    const lookup = lib.X509_STORE_add_lookup(store, lib.X509_LOOKUP_file())
    check(crl, (path) => lib.X509_load_crl_file(lookup, path, PEM) > 0)
    lib.X509_STORE_set_flags(store, CRL_CHECK)
  }
  const dhParameters = join(dir, 'dh-params.pem')
  if (role === 'server' && existsSync(dhParameters)) check(dhParameters, (path) => loadDhParameters(context, path))
  const mode = role === 'client' ? VERIFY_PEER : verifyPeer ? VERIFY_REQUIRED : 0
  lib.SSL_CTX_set_verify(context, mode, 0)
}

function loadDhParameters(context: number, path: string): boolean {
  const lib = openssl()
  const bio = lib.BIO_new_file(path, 'r')
  const parameters = lib.PEM_read_bio_Parameters(bio, 0)
  lib.BIO_free(bio)
  if (parameters === 0) return false
  lib.SSL_CTX_ctrl(context, CTRL.dhAuto, 0, 0)
  // They are the context's from here on.
  return lib.SSL_CTX_set0_tmp_dh_pkey(context, parameters) === 1
}

function check(path: string, load: (path: string) => boolean): void {
  readCredential(path)
  if (!load(path)) throw failed(`${path} can not be used`)
}

function failed(what: string): MultifdError {
  const error = takeOpensslError()
  return new MultifdError('ERR_MULTIFD_TLS', `TLS credentials: ${what}${error ? `: ${error.text}` : ''}`)
}
