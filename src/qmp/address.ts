// Where a migration goes, in QMP's two forms: a URI, or a list of channels.

import { MultifdError } from '../errors.js'
import { formatUri, type MigrationUri, parseUri } from '../io/uri.js'
import { QmpError } from './error.js'
import type { MigrationAddress, MigrationChannels } from './schema.js'

/**
 * The URI of `migrate` or `migrate-incoming`.
 *
 * @throws QmpError GenericError for both forms, none, or something that is not supported
 */
export function targetUri(uri: string | undefined, channels: MigrationChannels | undefined): string {
  // QEMU takes an empty list for none.
  const some = channels && channels.length > 0
  if ((uri === undefined) === !some) throw new QmpError("need either 'uri' or 'channels' argument")
  if (uri !== undefined) return known(uri)
  if (channels!.length > 1) throw new QmpError('Channel list has more than one entry')
  const [{ 'channel-type': type, addr }] = channels as [MigrationChannels[number]]
  if (type !== 'main') throw new QmpError(`channel-type '${type}' is not supported`)
  return known(uriOf(addr))
}

function known(uri: string): string {
  try {
    parseUri(uri)
  } catch (error) {
    if (error instanceof MultifdError && /^(tcp|unix|fd|exec|file|vsock|rdma):/.test(uri)) throw error
    throw new QmpError(`unknown migration protocol: ${uri}`)
  }
  return uri
}

function uriOf(address: MigrationAddress): string {
  if (address.transport === 'file')
    return formatUri({ transport: 'file', path: address.filename, offset: address.offset })
  if (address.transport !== 'socket') throw new QmpError(`transport '${address.transport}' is not supported`)
  const { transport, type, ...rest } = address
  for (const [name, value] of Object.entries(rest)) {
    if (['host', 'port', 'path', 'str', 'cid'].includes(name) || value === false || value === undefined) continue
    if ((name === 'ipv4' || name === 'ipv6' || name === 'tight') && value === true) continue
    throw new QmpError(`Parameter '${name}' of a '${type}' address is not supported`)
  }
  if (address.type === 'unix') return `unix:${address.path}`
  if (address.type === 'fd') return `fd:${address.str}`
  if (address.type === 'vsock') throw new QmpError(`address type 'vsock' is not supported`)
  if (!/^\d{1,5}$/.test(address.port)) throw new QmpError(`port '${address.port}' is not a number`)
  return formatUri({ transport: 'tcp', host: address.host, port: Number(address.port) })
}

/** As query-migrate has the address that is listened on. */
export function socketAddress(uri: MigrationUri): object[] {
  if (uri.transport === 'unix') return [{ type: 'unix', path: uri.path }]
  if (uri.transport === 'fd') return [{ type: 'fd', str: String(uri.fd) }]
  if (uri.transport === 'file') return []
  const { host, port } = uri
  const family = host.includes(':') ? { ipv6: true } : { ipv4: true }
  return [{ type: 'inet', host: host === '' ? '0.0.0.0' : host, port: String(port), ...family }]
}
