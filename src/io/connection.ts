// A connection as threads hand it to each other, and the channel that is made of it.

import { closeDescriptor } from '../os/socket.js'
import type { TlsContextHandle } from '../tls/context.js'
import { freeTls, makeTls, type TlsConnection } from '../tls/session.js'
import type { Channel, WaitHook } from './channel.js'
import { DescriptorChannel } from './descriptor-channel.js'
import { TlsChannel } from './tls-channel.js'

/** Numbers that are good in every thread of the process. One thread at a time uses a connection; one owns it. */
export interface Connection {
  fd: number
  tls?: TlsConnection
}

/** A channel over a connection, for the thread that calls. Closing the channel gives the connection back. */
export function openChannel({ fd, tls }: Connection, name: 'main' | number, wait: WaitHook): Channel {
  return tls ? new TlsChannel(fd, tls, name, wait) : new DescriptorChannel(fd, name, wait)
}

/**
 * A connection over a descriptor, which is closed where that fails.
 *
 * @param tls what its TLS is made from, where it is to have one
 */
export function makeConnection(fd: number, tls: TlsContextHandle | undefined): Connection {
  try {
    return tls ? { fd, tls: makeTls(fd, tls) } : { fd }
  } catch (error) {
    closeDescriptor(fd)
    throw error
  }
}

/** Waits for the handshake of a channel that has one. @throws MultifdError as {@link TlsChannel.handshake} */
export function shakeHands(channel: Channel, tls: TlsContextHandle | undefined, timeoutMs: number): void {
  if (tls && channel instanceof TlsChannel) channel.handshake(tls, timeoutMs)
}

/** Gives back what no thread uses any more. */
export function closeConnection({ fd, tls }: Connection): void {
  if (tls) freeTls(tls)
  closeDescriptor(fd)
}
