// System calls that fault points break: put in the place of the real ones, in one thread and only while one is armed there.
// Where none is, there is nothing here that a call passes.

import type { FaultName } from '../faults.js'
import { anyCall, type Breaker, type Broken, type CallPlace, die, failing, STORM } from './breaker.js'
import { BROKEN_TLS } from './broken-tls.js'
import { ERRNO, type Libc, libcLibrary, viewOf } from './libc.js'
import type { Library } from './library.js'
import { type Libzstd, zstdLibrary } from './libzstd.js'
import { opensslLibrary } from './openssl.js'

/** What the caller knows of the points: src/shm/fault-points.ts. */
export interface ArmedPoints {
  armed(name: FaultName): boolean
  happens(name: FaultName): boolean
}

const MSG_ERRQUEUE = 0x2000
const MSG_WAITALL = 0x100
const MSG_ZEROCOPY = 0x4000000
const UFFDIO_REGISTER = 0xc020aa00
const UFFDIO_WRITEPROTECT = 0xc018aa06
const PAGEMAP_SCAN = 0xc0606610

/** Fails a call, where the arguments are those meant, with an error number. */
function fail<Name extends keyof Libc>(
  name: Name,
  number: number,
  meant: (...args: Parameters<Libc[Name]>) => boolean = () => true,
): Breaker<Libc> {
  return (calls, happens) => ({
    [name]: (...args: Parameters<Libc[Name]>) => {
      return meant(...args) && happens() ? failing(number) : anyCall(calls, name)(...args)
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

// An empty range asks only whether the kernel has the call.
function isScan(request: number, argument: number): boolean {
  if (request !== PAGEMAP_SCAN) return false
  const words = new BigUint64Array(viewOf(argument, 96))
  return words[3]! > words[2]!
}

/** Fails three calls of four; of ioctl those that may have to be made again. */
function storm(names: readonly (keyof Libc)[], number: number): Breaker<Libc> {
  return (calls, happens) => {
    const broken = names.map((name) => {
      const call = anyCall(calls, name)
      const meant = (_fd?: unknown, request?: unknown, argument?: unknown): boolean =>
        name !== 'ioctl' || request === UFFDIO_WRITEPROTECT || isScan(request as number, argument as number)
      // Each has its own: of a loop of two calls, one alone would be let through otherwise.
      let turn = 0
      return [
        name,
        (...args: unknown[]) => (meant(...args) && ++turn % STORM !== 0 && happens() ? failing(number) : call(...args)),
      ]
    })
    return Object.fromEntries(broken)
  }
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

const BROKEN_CALLS: Broken<Libc> = {
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
    snapshot: storm(['ioctl', 'poll', 'read', 'pwrite', 'fsync'], ERRNO.intr),
  },
  'calls-put-off': {
    'source main': storm(['sendmsg', 'recv'], ERRNO.again),
    'source channel': storm(['sendmsg', 'recvmsg'], ERRNO.again),
    'destination main': storm(['sendmsg', 'recvmsg', 'recv', 'accept4'], ERRNO.again),
    'destination channel': storm(['recvmsg'], ERRNO.again),
  },
  'channel-dies': { 'source channel': die('sendmsg'), 'destination channel': die('recvmsg') },
  'main-dies': { 'source main': die('sendmsg'), 'destination main': die('recvmsg') },
  'disk-full': onDisk('channel', fail('pwrite', ERRNO.noSpace)),
  'disk-write-fails': onDisk('channel', fail('pwrite', ERRNO.io)),
  'disk-sync-fails': onDisk('main', fail('fsync', ERRNO.io)),
  'disk-rename-fails': onDisk('main', fail('rename', ERRNO.io)),
  'dirty-log-start-fails': {
    'source main': failRequest(UFFDIO_WRITEPROTECT),
  },
  'dirty-log-scan-fails': {
    'source main': fail('ioctl', ERRNO.noMemory, (_fd, request, argument) => isScan(request, argument)),
  },
  'zero-copy-never-ends': {
    'source channel': fail('recvmsg', ERRNO.again, (_fd, _message, flags) => (flags & MSG_ERRQUEUE) !== 0),
  },
  'zero-copy-no-memory': {
    'source channel': fail('sendmsg', ERRNO.noBuffers, (_fd, _message, flags) => (flags & MSG_ZEROCOPY) !== 0),
  },
  'write-hold-fails': { snapshot: failRequest(UFFDIO_REGISTER) },
  'write-protect-fails': { snapshot: failRequest(UFFDIO_WRITEPROTECT) },
  'snapshot-dies': { snapshot: die('pwrite') },
}

const BROKEN_ZSTD: Broken<Libzstd> = {
  'no-codec-memory': {
    'source channel': (calls, happens) => ({ ZSTD_createCCtx: () => (happens() ? 0 : calls.ZSTD_createCCtx()) }),
    'destination channel': (calls, happens) => ({ ZSTD_createDCtx: () => (happens() ? 0 : calls.ZSTD_createDCtx()) }),
  },
}

/** What writes a file: of a destination its channels or its coordinator, and a background snapshot. */
function onDisk(thread: 'channel' | 'main', breaker: Breaker<Libc>): Partial<Record<CallPlace, Breaker<Libc>>> {
  return { [`destination ${thread}`]: breaker, snapshot: breaker }
}

function failRequest(wanted: number): Breaker<Libc> {
  return fail('ioctl', ERRNO.noMemory, (_fd, request) => request === wanted)
}

function end(): Breaker<Libc> {
  return (calls, happens) => ({
    recvmsg: (fd: number, message: number, flags: number) =>
      isData(fd, message, flags) && happens() ? 0 : calls.recvmsg(fd, message, flags),
  })
}

/** Breaks the calling thread's calls by what is armed, until {@link mendCalls}. */
export function breakCalls(place: CallPlace, points: ArmedPoints, tls: boolean): void {
  if (tls) breakLibrary(opensslLibrary, BROKEN_TLS, place, points)
  breakLibrary(libcLibrary, BROKEN_CALLS, place, points)
  breakLibrary(zstdLibrary, BROKEN_ZSTD, place, points)
}

function breakLibrary<Calls extends object>(
  library: Library<Calls>,
  broken: Broken<Calls>,
  place: CallPlace,
  points: ArmedPoints,
): void {
  for (const [key, places] of Object.entries(broken)) {
    const name = key as FaultName
    const breaker = points.armed(name) ? places[place] : undefined
    if (breaker) library.replace(breaker(library.calls, () => points.happens(name)) as Partial<Calls>)
  }
}

/** Puts the real calls back. */
export function mendCalls(): void {
  for (const library of [libcLibrary, opensslLibrary, zstdLibrary]) library.restore()
}
