// Options of TLS: of one migration, and as objects that QMP's parameters name.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { MultifdError } from '../errors.js'
import type { TlsObjects } from '../qmp/tls.js'
import { TlsContext } from '../tls/context.js'
import { checkTlsOptions, type TlsOptions } from '../tls/options.js'
import { collect } from './options.js'

interface TlsFlags {
  tlsCreds?: string
  tlsPsk?: true
  tlsMinVersion?: keyof typeof VERSIONS
  tlsMaxVersion?: keyof typeof VERSIONS
}

export interface SourceTlsFlags extends TlsFlags {
  tlsHostname?: string
  tlsUsername?: string
}

export interface DestinationTlsFlags extends TlsFlags {
  tlsAuthz?: string[]
  tlsAnonymous?: true
}

const VERSIONS = { '1.2': 'TLSv1.2', '1.3': 'TLSv1.3' } as const

/** Adds those that both sides have. */
function withTls(command: Command, dir: string): Command {
  return command
    .option('--tls-creds <dir>', dir)
    .option('--tls-psk', 'the directory has keys.psk, which both sides know, instead of certificates')
    .addOption(new Option('--tls-min-version <version>', 'default: 1.2').choices(Object.keys(VERSIONS)))
    .addOption(new Option('--tls-max-version <version>', 'default: 1.3').choices(Object.keys(VERSIONS)))
}

export function withSourceTls(command: Command): Command {
  return withTls(
    command,
    'TLS on every connection, with the credentials of this directory: ca-cert.pem, client-cert.pem …',
  )
    .option('--tls-hostname <name>', "the name of the destination's certificate; default: the host of the URI")
    .option('--tls-username <name>', 'with --tls-psk: whose key it is (default: "qemu")')
}

export function withDestinationTls(command: Command): Command {
  return withTls(
    command,
    'TLS on every connection, with the credentials of this directory: ca-cert.pem, server-cert.pem …',
  )
    .option(
      '--tls-authz <name>',
      "let in only a certificate of this name, such as 'C=GB,CN=host'; may be repeated",
      collect,
    )
    .option('--tls-anonymous', 'let in sources that show no certificate')
}

/** The parameter `tls` of a command's options. @throws MultifdError ERR_MULTIFD_ARGUMENT */
export function tlsParameter(flags: SourceTlsFlags & DestinationTlsFlags): { tls?: TlsOptions } {
  const { tlsCreds: dir, tlsPsk, tlsHostname, tlsUsername, tlsAuthz, tlsAnonymous } = flags
  const { tlsMinVersion, tlsMaxVersion } = flags
  const options = {
    ...(tlsPsk && { kind: 'psk' as const }),
    ...(tlsHostname !== undefined && { hostname: tlsHostname }),
    ...(tlsUsername !== undefined && { username: tlsUsername }),
    ...(tlsAuthz && { authz: tlsAuthz }),
    ...(tlsAnonymous && { verifyPeer: false }),
    ...(tlsMinVersion && { minVersion: VERSIONS[tlsMinVersion] }),
    ...(tlsMaxVersion && { maxVersion: VERSIONS[tlsMaxVersion] }),
  }
  if (dir !== undefined) return { tls: { dir, ...options } }
  if (Object.keys(options).length === 0) return {}
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'options of TLS are of no use without --tls-creds')
}

type Values = Record<string, string>

const OBJECTS: Record<string, (values: Values, objects: Required<TlsObjects>) => void> = {
  'tls-creds-x509': credentials('x509', ['id', 'dir', 'endpoint', 'verify-peer']),
  'tls-creds-psk': credentials('psk', ['id', 'dir', 'endpoint', 'username']),
  'authz-simple': (values, { authz }) => {
    const { id, identity } = known(values, ['id', 'identity'])
    if (!identity) throw bad('authz-simple needs an identity, its commas doubled')
    Object.assign(authz, { [id!]: [identity] })
  },
}

function credentials(kind: 'x509' | 'psk', names: string[]) {
  return (values: Values, objects: Required<TlsObjects>): void => {
    const { id, dir, username, 'verify-peer': verifyPeer = 'on' } = known(values, names)
    if (verifyPeer !== 'on' && verifyPeer !== 'off') throw bad('verify-peer is on or off')
    const options = { dir, kind, ...(username && { username }), ...(verifyPeer === 'off' && { verifyPeer: false }) }
    try {
      checkTlsOptions(options)
    } catch (error) {
      throw bad((error as Error).message)
    }
    Object.assign(objects.credentials, { [id!]: options })
  }
}

/**
 * Reads what `--object` names, so that a command says at its start what is wrong with it, as QEMU does.
 *
 * @throws MultifdError as {@link TlsContext} does
 */
export function tryObjects({ credentials }: Required<TlsObjects>, role: 'client' | 'server'): void {
  // Which host it will be is said later, by tls-hostname or the URI.
  for (const options of Object.values(credentials)) new TlsContext(options, role, 'later').close()
}

/** An `--object` in QEMU's form, `TYPE,id=ID,NAME=VALUE…`, with the commas of a value doubled; for commander. */
export function collectObject(text: string, objects?: Required<TlsObjects>): Required<TlsObjects> {
  const parts = text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','))
  const [type = '', ...rest] = parts
  const make = Object.hasOwn(OBJECTS, type) ? OBJECTS[type] : undefined
  if (!make) throw bad(`It must be one of ${Object.keys(OBJECTS).join(', ')}, and not '${type}'`)
  const into = objects ?? { credentials: {}, authz: {} }
  const pairs = rest.map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)])
  make(Object.fromEntries(pairs) as Values, into)
  return into
}

function known(values: Values, names: string[]): Values {
  const other = Object.keys(values).find((name) => !names.includes(name))
  if (other !== undefined) throw bad(`there is no property '${other}'`)
  if (!values['id']) throw bad('an object needs an id')
  return values
}

function bad(why: string): InvalidArgumentError {
  return new InvalidArgumentError(`${why}.`)
}
