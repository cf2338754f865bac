// Credential directories of QEMU's layout, made by the command `openssl`.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'

/** The name that a server's certificate has beside its addresses. */
export const SERVER_HOST = 'destination.example'
/** A client's certificate's subject, as QEMU and we write it. */
export const CLIENT_NAME = 'C=GB,O=Example Org,CN=source.example'

const SUBJECTS = { server: '/C=GB/O=Example Org/CN=server', client: '/C=GB/O=Example Org/CN=source.example' } as const
const USAGE = { server: 'serverAuth', client: 'clientAuth' } as const

/** Whether `openssl` is there; otherwise skips the test, or fails it under MULTIFD_REQUIRE_CLIENTS=1. */
export function requireOpenssl(t: Test): boolean {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    const missing = 'the command openssl is not installed'
    const { MULTIFD_REQUIRE_CLIENTS } = process.env
    if (MULTIFD_REQUIRE_CLIENTS === '1') t.fail(missing)
    else t.pass(missing, { skip: missing })
    return false
  }
}

export interface CertificateOptions {
  /** Of a server. Default: {@link SERVER_HOST} and this machine's addresses. */
  altName?: string
  /** Days that it is valid from now on; negative for one that is not any more. */
  days?: number
}

/** A certificate authority in a folder of its own, and what it signs. */
export class Authority {
  readonly #folder: string
  #made = 0

  constructor(folder: string, name = 'CA') {
    this.#folder = folder
    mkdirSync(folder, { recursive: true })
    writeFileSync(
      this.#path('ca.cnf'),
      `[req]\ndistinguished_name=name\n[name]\n[ca]\nbasicConstraints=critical,CA:TRUE\n` +
        'keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n' +
        `[revocation]\ndatabase=${this.#path('index')}\ndefault_md=sha256\ndefault_crl_days=1\n`,
    )
    this.#key(this.#path('ca-key.pem'))
    const subject = ['-subj', `/CN=${name}`, '-days', '2', '-config', this.#path('ca.cnf'), '-extensions', 'ca']
    openssl('req', '-x509', '-new', '-key', this.#path('ca-key.pem'), ...subject, '-out', this.certificate)
  }

  get certificate(): string {
    return this.#path('ca-cert.pem')
  }

  /** Writes `server-cert.pem` and `server-key.pem`, or a client's, into a directory. */
  sign(dir: string, role: 'server' | 'client', options: CertificateOptions = {}): string {
    const { days = 1, altName = `DNS:${SERVER_HOST},IP:127.0.0.1,IP:::1` } = options
    const key = join(dir, `${role}-key.pem`)
    const request = this.#path('request.pem')
    const extensions = this.#path('extensions.cnf')
    writeFileSync(
      extensions,
      `basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=${USAGE[role]}\n` +
        (role === 'server' && altName !== '' ? `subjectAltName=${altName}\n` : ''),
    )
    this.#key(key)
    openssl('req', '-new', '-key', key, '-subj', SUBJECTS[role], '-config', this.#path('ca.cnf'), '-out', request)
    const signer = ['-CA', this.certificate, '-CAkey', this.#path('ca-key.pem'), '-set_serial', String(++this.#made)]
    const certificate = join(dir, `${role}-cert.pem`)
    openssl(
      ...['x509', '-req', '-in', request, ...signer, '-days', String(days), '-extfile', extensions],
      ...['-out', certificate],
    )
    return certificate
  }

  /** Writes `ca-crl.pem` into a directory: a list with those certificates. */
  revoke(dir: string, ...certificates: string[]): void {
    writeFileSync(this.#path('index'), '')
    const ca = ['-config', this.#path('ca.cnf'), '-name', 'revocation', '-cert', this.certificate]
    const common = ['ca', ...ca, '-keyfile', this.#path('ca-key.pem')]
    for (const certificate of certificates) openssl(...common, '-revoke', certificate)
    openssl(...common, '-gencrl', '-out', join(dir, 'ca-crl.pem'))
  }

  #key(path: string): void {
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path)
  }

  #path(name: string): string {
    return join(this.#folder, name)
  }
}

/** A credential directory that trusts authorities, with nothing else in it yet. */
export function trusting(dir: string, ...authorities: Authority[]): string {
  mkdirSync(dir, { recursive: true })
  writeFileSync(
    join(dir, 'ca-cert.pem'),
    authorities.map(({ certificate }) => readFileSync(certificate, 'utf8')).join(''),
  )
  return dir
}

/** A directory with `keys.psk`, with a new key for each name. */
export function pskDirectory(dir: string, ...usernames: string[]): string {
  mkdirSync(dir, { recursive: true })
  const lines = usernames.map((username) => `${username}:${randomBytes(32).toString('hex')}\n`)
  writeFileSync(join(dir, 'keys.psk'), lines.join(''))
  return dir
}

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}
