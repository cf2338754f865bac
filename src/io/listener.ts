// A listening socket, and its path in the file system where it has one.

import { lstatSync, unlinkSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { ERRNO } from '../os/libc.js'
import {
  closeDescriptor,
  localPort,
  openListener,
  type SocketAddress,
  startConnect,
  unixAddress,
} from '../os/socket.js'
import { isLoopback, type MigrationUri } from './uri.js'

export class Listener {
  readonly fd: number
  /** Where it listens, with the real port. */
  readonly uri: MigrationUri
  /** Whether only this machine reaches it. */
  readonly loopback: boolean
  #closed = false

  private constructor(fd: number, uri: MigrationUri, loopback: boolean) {
    this.fd = fd
    this.uri = uri
    this.loopback = loopback
  }

  /**
   * Listens on the first address of a tcp or unix URI.
   *
   * @throws MultifdError ERR_MULTIFD_LISTEN: the port or path is in use, or may not be used
   */
  static open(uri: MigrationUri, addresses: readonly SocketAddress[], backlog: number): Listener {
    const [address] = addresses
    if (!address) throw new MultifdError('ERR_MULTIFD_LISTEN', 'no address to listen on')
    let fd: number
    try {
      fd = openListener(address, backlog)
    } catch (error) {
      if (address.family !== 'unix' || (error as MultifdError).errno !== ERRNO.addressInUse) throw error
      if (!removeStale(address.path)) throw error
      fd = openListener(address, backlog)
    }
    const actual = uri.transport === 'tcp' ? { ...uri, port: localPort(fd) } : uri
    return new Listener(fd, actual, isLoopback(address))
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    closeDescriptor(this.fd)
    if (this.uri.transport === 'unix') {
      try {
        unlinkSync(this.uri.path)
      } catch {
        // Somebody removed it already.
      }
    }
  }
}

/**
 * Removes a socket file that nobody listens on, as a process that died leaves it.
 *
 * @returns whether there was one
 * @throws MultifdError ERR_MULTIFD_LISTEN where the path can not be looked at, or what is there not be removed
 */
export function removeStale(path: string): boolean {
  try {
    if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return false
    const { fd, errno } = startConnect(unixAddress(path))
    closeDescriptor(fd)
    if (errno !== ERRNO.connectionRefused) return false
    unlinkSync(path)
    return true
  } catch (cause) {
    if (cause instanceof MultifdError) throw cause
    const { code: errnoName = 'unknown error', syscall } = cause as NodeJS.ErrnoException
    const details = { errnoName, syscall, cause }
    throw new MultifdError('ERR_MULTIFD_LISTEN', `can not listen on ${path}: ${errnoName}`, details)
  }
}
