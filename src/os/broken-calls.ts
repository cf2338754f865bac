// System calls that fault points break: put in the place of the real ones, in one thread and only while one is armed there.
// Where none is, there is nothing here that a call passes.

import type { FaultName } from '../faults.js'
import { ERRNO, type Libc, libc, replaceCalls, setErrno, viewOf } from './libc.js'
import { type Openssl, openssl, replaceOpenssl, SSL_ERROR } from './openssl.js'

/** What the thread is. */
export type CallPlace = `${'source' | 'destination'} ${'main' | 'channel'}`

/** What the caller knows of the points: src/shm/fault-points.ts. */
export interface ArmedPoints {
  armed(name: FaultName): boolean
  happens(name: FaultName): boolean
}

type Calls<Library> = Partial<Record<keyof Library, (...args: never[]) => unknown>>
/** Makes broken calls from those that are there, which may be broken already. */
type Breaker<Library> = (calls: Library, happens: () => boolean) => Calls<Library>

const MSG_ERRQUEUE = 0x2000
const MSG_WAITALL = 0x100
const MSG_ZEROCOPY = 0x4000000
const UFFDIO_WRITEPROTECT = 0xc018aa06
const PAGEMAP_SCAN = 0xc0606610
// A storm lets every fourth call through.
const STORM = 4

function failing(number: number): number {
  setErrno(number)
  return -1
}

/** Fails a call, where the arguments are those meant, with an error number. */
function fail<Name extends keyof Libc>(
  name: Name,
  number: number,
  meant: (...args: Parameters<Libc[Name]>) => boolean = () => true,
): Breaker<Libc> {
  return (calls, happens) => ({
    [name]: (...args: Parameters<Libc[Name]>) => {
      if (meant(...args) && happens()) return failing(number)
      return (calls[name] as (...args: Parameters<Libc[Name]>) => unknown)(...args)
    },
  })
}

/** Lets a sendmsg or recvmsg have half of its list's first entry. */
function shorten(name: 'sendmsg' | 'recvmsg'): Breaker<Libc> {
  return (calls, happens) => ({
    [name]: (fd: number, message: number, flags: number) => {
      if ((flags & MSG_ERRQUEUE) !== 0 || !happens()) return calls[name](fd, message, flags)
      const header = new BigUint64Array(viewOf(message, 56))
      const entry = new BigUint64Array(viewOf(Number(header[2]), 16))
      const [count, length] = [header[3]!, entry[1]!]
      header[3] = 1n
      entry[1] = (length + 1n) / 2n
      try {
        return calls[name](fd, message, flags & ~MSG_WAITALL)
      } finally {
        header[3] = count
        entry[1] = length
      }
    },
  })
}

function storm(names: readonly (keyof Libc)[], number: number): Breaker<Libc> {
  return (calls, happens) => {
    const broken = names.map((name) => {
      const call = calls[name] as (...args: unknown[]) => unknown
      // Each has its own: of a loop of two calls, one alone would be let through otherwise.
      let turn = 0
      return [name, (...args: unknown[]) => (++turn % STORM !== 0 && happens() ? failing(number) : call(...args))]
    })
    return Object.fromEntries(broken)
  }
}

// A process of its own would end; this is a thread's own process.exit, which ends the thread.
function die(name: keyof Libc): Breaker<Libc> {
  return (calls, happens) => ({
    [name]: (...args: unknown[]) => {
      if (happens()) process.exit(1)
      return (calls[name] as (...args: unknown[]) => unknown)(...args)
    },
  })
}

// Poll has nothing to tell as long as nobody answers.
const hangConnect: Breaker<Libc> = (calls, happens) => {
  let hangs = false
  return {
    connect(fd: number, address: Uint8Array, length: number) {
      hangs = happens()
      return hangs ? failing(ERRNO.inProgress) : calls.connect(fd, address, length)
    },
    poll(fds: Uint8Array, count: number, timeoutMs: number) {
      return hangs ? calls.poll(new Uint8Array(8), 0, timeoutMs) : calls.poll(fds, count, timeoutMs)
    },
  }
}

const isData = (_fd: number, _message: number, flags: number): boolean => (flags & MSG_ERRQUEUE) === 0

const BROKEN_CALLS: Partial<Record<FaultName, Partial<Record<CallPlace, Breaker<Libc>>>>> = {
  'connect-fails': { 'source main': fail('connect', ERRNO.connectionRefused) },
  'connect-hangs': { 'source main': hangConnect },
  'accept-fails': { 'destination main': fail('accept4', ERRNO.tooManyFiles) },
  'send-fails': { 'source channel': fail('sendmsg', ERRNO.io) },
  'send-short': { 'source channel': shorten('sendmsg') },
  'send-stalls': { 'source channel': fail('sendmsg', ERRNO.again) },
  'recv-fails': { 'destination channel': fail('recvmsg', ERRNO.io) },
  'recv-ends': { 'destination channel': end() },
  'recv-short': { 'destination channel': shorten('recvmsg') },
  'recv-stalls': { 'destination channel': fail('recvmsg', ERRNO.again) },
  'main-send-fails': { 'source main': fail('sendmsg', ERRNO.io) },
  'main-recv-ends': { 'destination main': end() },
  'return-path-fails': { 'source main': fail('recv', ERRNO.io) },
  'word-fails': { 'destination main': fail('sendmsg', ERRNO.io) },
  'calls-interrupted': {
    'source main': storm(['sendmsg', 'recv', 'poll', 'ioctl'], ERRNO.intr),
    'source channel': storm(['sendmsg', 'recvmsg', 'poll'], ERRNO.intr),
    'destination main': storm(['sendmsg', 'recvmsg', 'recv', 'accept4', 'poll', 'pwrite'], ERRNO.intr),
    'destination channel': storm(['recvmsg', 'poll', 'pwrite'], ERRNO.intr),
  },
  'calls-put-off': {
    'source main': storm(['sendmsg', 'recv'], ERRNO.again),
    'source channel': storm(['sendmsg', 'recvmsg'], ERRNO.again),
    'destination main': storm(['sendmsg', 'recvmsg', 'recv', 'accept4'], ERRNO.again),
    'destination channel': storm(['recvmsg'], ERRNO.again),
  },
  'channel-dies': { 'source channel': die('sendmsg'), 'destination channel': die('recvmsg') },
  'main-dies': { 'source main': die('sendmsg'), 'destination main': die('recvmsg') },
  'disk-full': { 'destination channel': fail('pwrite', ERRNO.noSpace) },
  'disk-write-fails': { 'destination channel': fail('pwrite', ERRNO.io) },
  'disk-sync-fails': { 'destination main': fail('fsync', ERRNO.io) },
  'disk-rename-fails': { 'destination main': fail('rename', ERRNO.io) },
  'dirty-log-start-fails': {
    'source main': fail('ioctl', ERRNO.noMemory, (_fd, request) => request === UFFDIO_WRITEPROTECT),
  },
  'dirty-log-scan-fails': {
    'source main': fail('ioctl', ERRNO.noMemory, (_fd, request, argument) => {
      // An empty range asks only whether the kernel has the call.
      if (request !== PAGEMAP_SCAN) return false
      const words = new BigUint64Array(viewOf(argument, 96))
      return words[3]! > words[2]!
    }),
  },
  'zero-copy-never-ends': {
    'source channel': fail('recvmsg', ERRNO.again, (_fd, _message, flags) => (flags & MSG_ERRQUEUE) !== 0),
  },
  'zero-copy-no-memory': {
    'source channel': fail('sendmsg', ERRNO.noBuffers, (_fd, _message, flags) => (flags & MSG_ZEROCOPY) !== 0),
  },
}

function end(): Breaker<Libc> {
  return (calls, happens) => ({
    recvmsg: (fd: number, message: number, flags: number) =>
      isData(fd, message, flags) && happens() ? 0 : calls.recvmsg(fd, message, flags),
  })
}

/** Has calls of OpenSSL's end with a reason, which SSL_get_error then has. */
function endTls(names: readonly (keyof Openssl)[], result: number, reason: number, number = 0): Breaker<Openssl> {
  return (calls, happens) => {
    let ended = false
    const broken = names.map((name) => {
      const call = calls[name] as (...args: unknown[]) => unknown
      return [
        name,
        (...args: unknown[]) => {
          ended = happens()
          if (!ended) return call(...args)
          setErrno(number)
          return result
        },
      ]
    })
    return {
      ...Object.fromEntries(broken),
      SSL_get_error: (ssl: number, of: number) => (ended ? reason : calls.SSL_get_error(ssl, of)),
    }
  }
}

function dieInTls(name: keyof Openssl): Breaker<Openssl> {
  return (calls, happens) => ({
    [name]: (...args: unknown[]) => {
      if (happens()) process.exit(1)
      return (calls[name] as (...args: unknown[]) => unknown)(...args)
    },
  })
}

const BROKEN_TLS: Partial<Record<FaultName, Partial<Record<CallPlace, Breaker<Openssl>>>>> = {
  'handshake-hangs': { 'source main': endTls(['SSL_do_handshake'], -1, SSL_ERROR.wantRead) },
  'accepted-handshake-hangs': { 'destination main': endTls(['SSL_do_handshake'], -1, SSL_ERROR.wantRead) },
  'send-fails': { 'source channel': endTls(['SSL_write'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'main-send-fails': { 'source main': endTls(['SSL_write'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'recv-ends': { 'destination channel': endTls(['SSL_read', 'BIO_read'], 0, SSL_ERROR.zeroReturn) },
  'main-recv-ends': { 'destination main': endTls(['SSL_read', 'BIO_read'], 0, SSL_ERROR.zeroReturn) },
  'channel-dies': { 'source channel': dieInTls('SSL_write'), 'destination channel': dieInTls('BIO_read') },
}

/** Breaks the calling thread's calls by what is armed, until {@link mendCalls}. */
export function breakCalls(place: CallPlace, points: ArmedPoints, tls: boolean): void {
  for (const [key, places] of Object.entries(tls ? BROKEN_TLS : {})) {
    const name = key as FaultName
    const breaker = points.armed(name) ? places[place] : undefined
    if (breaker) replaceOpenssl(breaker(openssl(), () => points.happens(name)) as Partial<Openssl>)
  }
  for (const [key, places] of Object.entries(BROKEN_CALLS)) {
    const name = key as FaultName
    const breaker = points.armed(name) ? places[place] : undefined
    if (breaker) replaceCalls(breaker(libc(), () => points.happens(name)) as Partial<Libc>)
  }
}

/** Puts the real calls back. */
export function mendCalls(): void {
  replaceCalls(undefined)
  replaceOpenssl(undefined)
}
