// Sockets by descriptor: addresses, options, connect, listen, accept, poll.

import { MultifdError } from '../errors.js'
import { noteClosed, noteOpened } from './descriptors.js'
import { ERRNO, errno, errnoName, libc } from './libc.js'
import { PinnedBuffer } from './memory.js'

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0x800
const SOCK_CLOEXEC = 0x80000
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_TYPE = 3
const SO_ERROR = 4
const SO_SNDBUF = 7
const SO_KEEPALIVE = 9
const SO_RCVLOWAT = 18
const SO_RCVTIMEO = 20
const SO_SNDTIMEO = 21
const SO_PROTOCOL = 38
const SO_DOMAIN = 39
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const TCP_CONGESTION = 13
// Every Linux has it, and lets every user choose it.
const UNPACED = 'reno'
const F_GETFL = 3
const F_SETFL = 4
const O_NONBLOCK = 0x800
const SHUT_RD = 0
const SHUT_WR = 1
const SHUT_RDWR = 2
const UNIX_PATH_MAX = 107

export const MSG = { peek: 0x02, dontWait: 0x40, waitAll: 0x100, noSignal: 0x4000, more: 0x8000 } as const
export const POLL = { in: 0x01, out: 0x04, err: 0x08, hup: 0x10 } as const

/** A resolved socket address. */
export type SocketAddress =
  | { family: 'inet' | 'inet6'; host: string; port: number; bytes: Uint8Array }
  | { family: 'unix'; path: string; bytes: Uint8Array }

/** The failure of a system call, with its number and name. */
export function systemError(
  code: 'ERR_MULTIFD_IO' | 'ERR_MULTIFD_CONNECT' | 'ERR_MULTIFD_LISTEN',
  what: string,
  syscall: string,
  number = errno(),
): MultifdError {
  const name = errnoName(number)
  return new MultifdError(code, `${what}: ${name}`, { errno: number, errnoName: name, syscall })
}

/** sockaddr_in of a dotted address. */
export function inetAddress(host: string, port: number): SocketAddress {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, AF_INET, true)
  view.setUint16(2, port)
  for (const [i, part] of host.split('.').entries()) bytes[4 + i] = Number(part)
  return { family: 'inet', host, port, bytes }
}

/** sockaddr_in6 of a numeric address, without a zone. */
export function inet6Address(host: string, port: number): SocketAddress {
  const bytes = new Uint8Array(28)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, AF_INET6, true)
  view.setUint16(2, port)
  const [head = '', tail = ''] = host.split('::')
  const words = (text: string): number[] => (text === '' ? [] : text.split(':').flatMap(inet6Words))
  const front = words(head)
  const back = host.includes('::') ? words(tail) : []
  for (const [i, word] of front.entries()) view.setUint16(8 + 2 * i, word)
  for (const [i, word] of back.entries()) view.setUint16(24 - 2 * back.length + 2 * i, word)
  return { family: 'inet6', host, port, bytes }
}

// "1a2b" is one word; a dotted tail as in ::ffff:127.0.0.1 is two.
function inet6Words(part: string): number[] {
  if (!part.includes('.')) return [Number.parseInt(part, 16)]
  const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number)
  return [a * 256 + b, c * 256 + d]
}

/** sockaddr_un of a path. */
export function unixAddress(path: string): SocketAddress {
  const name = new TextEncoder().encode(path)
  if (name.length === 0 || name.length > UNIX_PATH_MAX) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', `a unix socket's path has 1 to ${UNIX_PATH_MAX} bytes: '${path}'`)
  }
  const bytes = new Uint8Array(2 + name.length + 1)
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true)
  bytes.set(name, 2)
  return { family: 'unix', path, bytes }
}

function int(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}

function timeval(ms: number): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, Math.floor(ms / 1000), true)
  view.setUint32(8, (ms % 1000) * 1000, true)
  return bytes
}

function open(address: SocketAddress, code: 'ERR_MULTIFD_CONNECT' | 'ERR_MULTIFD_LISTEN'): number {
  const domain = address.family === 'inet' ? AF_INET : address.family === 'inet6' ? AF_INET6 : AF_UNIX
  const fd = libc().socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) throw systemError(code, 'can not open a socket', 'socket')
  return noteOpened(fd)
}

/** Starts to connect; returns the descriptor, non-blocking. Poll it for POLL.out, then ask {@link connectResult}. */
export function startConnect(address: SocketAddress): { fd: number; errno: number } {
  const fd = open(address, 'ERR_MULTIFD_CONNECT')
  if (libc().connect(fd, address.bytes, address.bytes.length) === 0) return { fd, errno: 0 }
  return { fd, errno: errno() }
}

/** The outcome of a connect that was in progress: 0, or an error number. */
export function connectResult(fd: number): number {
  const value = int(0)
  if (libc().getsockopt(fd, SOL_SOCKET, SO_ERROR, value, int(4)) !== 0) return errno()
  return new DataView(value.buffer).getInt32(0, true)
}

/**
 * Opens a listening socket, non-blocking.
 *
 * @throws MultifdError ERR_MULTIFD_LISTEN with the error number
 */
export function openListener(address: SocketAddress, backlog: number): number {
  const fd = open(address, 'ERR_MULTIFD_LISTEN')
  const where = address.family === 'unix' ? address.path : `${address.host} port ${address.port}`
  if (address.family !== 'unix') libc().setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, int(1), 4)
  if (libc().bind(fd, address.bytes, address.bytes.length) !== 0) {
    const failure = systemError('ERR_MULTIFD_LISTEN', `can not listen on ${where}`, 'bind')
    closeDescriptor(fd)
    throw failure
  }
  if (libc().listen(fd, backlog) !== 0) {
    const failure = systemError('ERR_MULTIFD_LISTEN', `can not listen on ${where}`, 'listen')
    closeDescriptor(fd)
    throw failure
  }
  return fd
}

/** The port that the kernel gave a listening tcp socket. */
export function localPort(fd: number): number {
  const bytes = new Uint8Array(28)
  if (libc().getsockname(fd, bytes, int(28)) !== 0) {
    throw systemError('ERR_MULTIFD_LISTEN', 'can not read the address of a socket', 'getsockname')
  }
  return new DataView(bytes.buffer).getUint16(2)
}

/** Accepts one waiting connection, or returns undefined when there is none. The descriptor is blocking. */
export function acceptOne(listener: number): number | undefined {
  for (;;) {
    const fd = libc().accept4(listener, 0, 0, SOCK_CLOEXEC)
    if (fd >= 0) return noteOpened(fd)
    const number = errno()
    if (number === ERRNO.again) return undefined
    // A connection that went away while it waited is no error of the listener.
    if (number === ERRNO.intr || errnoName(number) === 'ECONNABORTED') continue
    throw systemError('ERR_MULTIFD_IO', 'can not accept a connection', 'accept', number)
  }
}

/** Whether a descriptor is a stream socket. */
export function isStreamSocket(fd: number): boolean {
  const value = int(0)
  if (libc().getsockopt(fd, SOL_SOCKET, SO_TYPE, value, int(4)) !== 0) return false
  return new DataView(value.buffer).getInt32(0, true) === SOCK_STREAM
}

/** Whether a descriptor is a tcp socket. */
export function isTcpSocket(fd: number): boolean {
  const option = (name: number): number => {
    const value = int(0)
    if (libc().getsockopt(fd, SOL_SOCKET, name, value, int(4)) !== 0) return -1
    return new DataView(value.buffer).getInt32(0, true)
  }
  const domain = option(SO_DOMAIN)
  return (domain === AF_INET || domain === AF_INET6) && option(SO_PROTOCOL) === IPPROTO_TCP
}

/** Puts a connected socket into the form channels use: blocking, no call longer than `callMs`, no delay, kept alive. */
export function prepareStream(fd: number, callMs: number): void {
  setNonBlocking(fd, false)
  limitReceive(fd, callMs)
  libc().setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, timeval(callMs), 16)
  libc().setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, int(1), 4)
  libc().setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, int(1), 4) // no effect on unix sockets, and no harm
}

/** Bounds the time of calls that wait for something to come. */
export function limitReceive(fd: number, callMs: number): void {
  libc().setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval(callMs), 16)
}

/**
 * Takes the pacing off a connection within this machine. Where the system's congestion control paces (bbr), its timers
 * would hold back what no network is there to be congested by.
 */
export function dropPacing(fd: number): void {
  const algorithm = new TextEncoder().encode(UNPACED)
  libc().setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, algorithm, algorithm.length)
}

/** Fixes the room for bytes on their way out, which would grow by itself otherwise. The kernel takes twice as much. */
export function limitSendBuffer(fd: number, bytes: number): void {
  libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUF, int(bytes), 4)
}

/** Lets poll call a tcp socket readable only when so many bytes have come, or its end. */
export function setReceiveLowWater(fd: number, bytes: number): void {
  libc().setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, int(bytes), 4)
}

/** Two connected ends within this process. The caller closes both. */
export function openPair(): [number, number] {
  const fds = new Int32Array(2)
  if (libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) !== 0) {
    throw systemError('ERR_MULTIFD_IO', 'can not make a pair of sockets', 'socketpair')
  }
  return [fds[0]!, fds[1]!]
}

/** Sets or clears O_NONBLOCK; returns what it was. */
export function setNonBlocking(fd: number, on: boolean): boolean {
  const flags = libc().fcntl(fd, F_GETFL, 0)
  libc().fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK)
  return (flags & O_NONBLOCK) !== 0
}

/** Whether a descriptor is open. */
export function isOpen(fd: number): boolean {
  return libc().fcntl(fd, F_GETFL, 0) >= 0
}

/** Ends reading only: what is queued can still be read, then comes the end. */
export function shutdownRead(fd: number): void {
  libc().shutdown(fd, SHUT_RD)
}

/** Ends writing only: the peer reads what was sent, and then the end. */
export function shutdownWrite(fd: number): void {
  libc().shutdown(fd, SHUT_WR)
}

/** Ends both directions; wakes every thread that sits in a call on the socket. */
export function shutdownBoth(fd: number): void {
  libc().shutdown(fd, SHUT_RDWR)
}

export function closeDescriptor(fd: number): void {
  noteClosed(fd)
  libc().close(fd)
}

let smallBuffer: PinnedBuffer | undefined

/**
 * Takes, or with `peek` looks at, up to `length` (512 at most) waiting bytes without waiting.
 * Returns undefined when none wait, and an empty array at the end of the stream.
 */
export function receiveNow(fd: number, length: number, peek = false): Uint8Array | undefined {
  smallBuffer ??= new PinnedBuffer(512)
  const got = libc().recv(fd, smallBuffer.address, Math.min(length, 512), MSG.dontWait | (peek ? MSG.peek : 0))
  if (got >= 0) return smallBuffer.bytes.slice(0, got)
  const number = errno()
  if (number === ERRNO.again || number === ERRNO.intr) return undefined
  throw systemError('ERR_MULTIFD_IO', 'can not read from a connection', 'recv', number)
}

/** Waits until one of `fds` has one of its events, or the time is over. Returns the events of each. */
export function pollDescriptors(fds: readonly { fd: number; events: number }[], timeoutMs: number): number[] {
  const bytes = new Uint8Array(8 * fds.length)
  const view = new DataView(bytes.buffer)
  for (const [i, { fd, events }] of fds.entries()) {
    view.setInt32(8 * i, fd, true)
    view.setInt16(8 * i + 4, events, true)
  }
  if (libc().poll(bytes, fds.length, timeoutMs) <= 0) return fds.map(() => 0)
  return fds.map((_, i) => view.getInt16(8 * i + 6, true))
}
