// QEMU's migration URIs, and the socket addresses they stand for.

import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { MultifdError } from '../errors.js'
import { inet6Address, inetAddress, type SocketAddress, unixAddress } from '../os/socket.js'

/** A URI taken apart. */
export type MigrationUri =
  | { transport: 'tcp'; host: string; port: number }
  | { transport: 'unix'; path: string }
  | { transport: 'fd'; fd: number }
  /** The stream begins at `offset`, bytes. */
  | { transport: 'file'; path: string; offset: number }

/** One that stands for a socket's address. */
export type SocketUri = Extract<MigrationUri, { transport: 'tcp' | 'unix' }>

const NOT_BUILT = new Set(['exec', 'vsock', 'rdma'])
const OFFSET = ',offset='
const UNITS: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }

/**
 * Parses `tcp:HOST:PORT`, `unix:PATH`, `fd:N` or `file:PATH[,offset=N]`. An empty host is every address (to listen on) or this machine.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED for QEMU's other transports, ERR_MULTIFD_ARGUMENT for what is none
 */
export function parseUri(text: string): MigrationUri {
  const colon = text.indexOf(':')
  const scheme = colon < 0 ? '' : text.slice(0, colon)
  const rest = text.slice(colon + 1)
  if (NOT_BUILT.has(scheme)) {
    throw new MultifdError(
      'ERR_MULTIFD_UNSUPPORTED',
      `'${scheme}:' URIs are not supported yet; use tcp:, unix:, fd: or file:`,
    )
  }
  if (scheme === 'tcp') {
    const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(rest)
    const port = Number(match?.[3])
    if (!match || port > 65535) throw bad(text, 'tcp:HOST:PORT, with a port from 0 to 65535')
    return { transport: 'tcp', host: match[1] ?? match[2] ?? '', port }
  }
  if (scheme === 'unix') {
    if (rest === '') throw bad(text, 'unix:PATH')
    unixAddress(rest)
    return { transport: 'unix', path: rest }
  }
  if (scheme === 'fd') {
    if (!/^\d{1,9}$/.test(rest)) throw bad(text, "fd:N, with an open descriptor's number")
    return { transport: 'fd', fd: Number(rest) }
  }
  if (scheme === 'file') return parseFile(text, rest)
  throw bad(text, 'tcp:HOST:PORT, unix:PATH, fd:N or file:PATH')
}

function parseFile(text: string, rest: string): MigrationUri {
  const at = rest.indexOf(OFFSET)
  const path = at < 0 ? rest : rest.slice(0, at)
  const offset = at < 0 ? 0 : parseOffset(rest.slice(at + OFFSET.length))
  if (path === '' || offset === undefined)
    throw bad(text, 'file:PATH[,offset=N], with N in bytes, such as 4096, 0x1000 or 1M')
  return { transport: 'file', path, offset }
}

function parseOffset(text: string): number | undefined {
  const [, decimal, unit = ''] = /^(\d+)([kmgt]?)$/i.exec(text) ?? []
  const hexadecimal = /^0x[0-9a-f]+$/i.test(text)
  const offset = hexadecimal ? Number(text) : Number(decimal) * UNITS[unit.toLowerCase()]!
  return Number.isSafeInteger(offset) ? offset : undefined
}

function bad(text: string, wanted: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_ARGUMENT', `'${text}' is not a migration URI: it must be ${wanted}`)
}

/** The URI as text; IPv6 addresses in brackets. */
export function formatUri(uri: MigrationUri): string {
  if (uri.transport === 'unix') return `unix:${uri.path}`
  if (uri.transport === 'fd') return `fd:${uri.fd}`
  if (uri.transport === 'file') return `file:${uri.path}${uri.offset === 0 ? '' : OFFSET + uri.offset}`
  return `tcp:${uri.host.includes(':') ? `[${uri.host}]` : uri.host}:${uri.port}`
}

/**
 * The socket addresses of a URI, in the order to try them; none of one that is no socket's.
 *
 * @param forListening decides what an empty host means
 * @throws MultifdError ERR_MULTIFD_CONNECT or ERR_MULTIFD_LISTEN when the host's name is not known
 */
export async function resolveUri(uri: MigrationUri, forListening: boolean): Promise<SocketAddress[]> {
  if (uri.transport === 'unix') return [unixAddress(uri.path)]
  if (uri.transport !== 'tcp') return []
  const host = uri.host !== '' ? uri.host : forListening ? '0.0.0.0' : '127.0.0.1'
  const toAddress = (address: string, family: number): SocketAddress =>
    family === 6 ? inet6Address(address, uri.port) : inetAddress(address, uri.port)
  if (isIP(host)) return [toAddress(host, isIP(host))]
  try {
    return (await lookup(host, { all: true })).map(({ address, family }) => toAddress(address, family))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new MultifdError(forListening ? 'ERR_MULTIFD_LISTEN' : 'ERR_MULTIFD_CONNECT', `host '${host}': ${code}`, {
      cause,
    })
  }
}

/** Whether a tcp URI's host is this machine only. */
export function isLoopback(address: SocketAddress): boolean {
  if (address.family === 'unix') return true
  return address.family === 'inet' ? address.host.startsWith('127.') : address.host === '::1'
}
