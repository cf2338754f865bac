// Connecting to a destination, with a limit on the time it may take.

import { MultifdError } from '../errors.js'
import { ERRNO, errnoName } from '../os/libc.js'
import {
  closeDescriptor,
  connectResult,
  dropPacing,
  limitSendBuffer,
  POLL,
  pollDescriptors,
  type SocketAddress,
  startConnect,
} from '../os/socket.js'
import { CALL_MS } from './descriptor-channel.js'
import { isLoopback } from './uri.js'

// Bytes that a connection within this machine may hold back where several share the load. What waits in a socket's buffer
// leaves the processor's cache, from which the other side's copy is cheap; one connection alone would wait for room.
const SHARED_BUFFER = 512 * 1024

/**
 * Connects to the first of `addresses` that answers. Blocks the calling thread, never longer than about 100 ms without
 * asking `checkStopped`, which ends it by throwing.
 *
 * @param shared whether other connections carry parts of the same load
 * @returns the descriptor
 * @throws MultifdError ERR_MULTIFD_CONNECT, ERR_MULTIFD_TIMEOUT
 */
export function connectTo(
  addresses: readonly SocketAddress[],
  timeoutMs: number,
  checkStopped: () => void,
  shared = false,
): number {
  const deadline = performance.now() + timeoutMs
  let failure: MultifdError | undefined
  for (const address of addresses) {
    const where = address.family === 'unix' ? address.path : `${address.host}:${address.port}`
    const result = attempt(address, deadline, checkStopped)
    if (result.fd !== undefined) {
      if (address.family !== 'unix' && isLoopback(address)) {
        dropPacing(result.fd)
        if (shared) limitSendBuffer(result.fd, SHARED_BUFFER)
      }
      return result.fd
    }
    if (result.errno === undefined) {
      throw new MultifdError('ERR_MULTIFD_TIMEOUT', `no connection to ${where} within ${timeoutMs} ms`)
    }
    const name = errnoName(result.errno)
    failure = new MultifdError('ERR_MULTIFD_CONNECT', `failed to connect to '${where}': ${name}`, {
      errno: result.errno,
      errnoName: name,
      syscall: 'connect',
    })
  }
  throw failure ?? new MultifdError('ERR_MULTIFD_CONNECT', 'no address to connect to')
}

function attempt(address: SocketAddress, deadline: number, checkStopped: () => void): { fd?: number; errno?: number } {
  for (;;) {
    const { fd, errno } = startConnect(address)
    if (errno === 0) return { fd }
    // A unix listener whose backlog is full answers EAGAIN: it must be tried anew.
    const full = errno === ERRNO.again
    if (errno !== ERRNO.inProgress && !full) {
      closeDescriptor(fd)
      return { errno }
    }
    try {
      while (performance.now() < deadline) {
        checkStopped()
        const [events = 0] = pollDescriptors(full ? [] : [{ fd, events: POLL.out }], full ? 10 : CALL_MS)
        if (full) break
        if (events === 0) continue
        const result = connectResult(fd)
        if (result === 0) return { fd }
        closeDescriptor(fd)
        return { errno: result }
      }
    } catch (error) {
      closeDescriptor(fd)
      throw error
    }
    closeDescriptor(fd)
    if (performance.now() >= deadline) return {}
  }
}
