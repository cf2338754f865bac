// Fault points: numbered, named places where the engine can be made to break, armed by a test or from outside.
//
// This table is all there is to know of them; docs/faults.md is made from it. How they are armed: src/shm/fault-points.ts.
// How system calls are broken: src/os/broken-calls.ts,
// and src/os/broken-tls.ts where OpenSSL makes them.

import type { ErrorCode } from './errors.js'

/** `snapshot`: a background snapshot, which has no other side. */
export type FaultSide = 'source' | 'destination' | 'snapshot'

export interface FaultPoint {
  /** Never given to another point. */
  number: number
  sides: readonly FaultSide[]
  /**
   * The thread that it happens in: a channel's, the coordinator's, the program's own, or any of the engine's. A background
   * snapshot has one thread for everything.
   */
  thread: 'channel' | 'main' | 'program' | 'snapshot' | 'any'
  /** What a migration must have for the place to be reached. */
  needs?: 'channels' | 'tls' | 'snapshot' | 'kernel-log' | 'zero-copy' | 'xbzrle' | 'zstd' | 'prealloc'
  /** Whether it is reached over TLS, too, where OpenSSL makes the connection's system calls. */
  overTls?: true
  /** What happens there. */
  breaks: string
  /** Whether it happens every time from then on, and not once. */
  lasts?: true
  /**
   * What becomes of the migration: it `fails`, or it is `survived` and succeeds; `unguarded` takes a guard out, and the
   * destination's memory may be wrong.
   */
  outcome: 'fails' | 'survived' | 'unguarded'
  /** The code that its own side fails with. `waits`: it goes on waiting for a source. */
  code?: ErrorCode | 'waits' | readonly ErrorCode[]
  /** What the other side may then fail with. */
  peer?: readonly (ErrorCode | 'waits')[]
}

const source = ['source'] as const
const destination = ['destination'] as const
const either = ['source', 'destination'] as const
const snapshot = ['snapshot'] as const
const writers = ['destination', 'snapshot'] as const
const everywhere = ['source', 'destination', 'snapshot'] as const
// The destination says so, or the connection breaks before it can.
const told = ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED'] as const
// One that fails while connections come ends their handshakes, too.
const toldSoon = [...told, 'ERR_MULTIFD_TLS'] as const
// Where a stream ends depends on what was on its way.
const cut = ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_BARRIER'] as const
const fails = { outcome: 'fails' } as const
const survived = { outcome: 'survived', lasts: true } as const

export const FAULT_POINTS = {
  'recv-without-barrier': {
    ...{ number: 1, sides: destination, thread: 'channel', overTls: true, outcome: 'unguarded', lasts: true },
    breaks: 'a receiving channel does not wait at SYNC: shows what the barrier is for',
  },
  'send-without-flush': {
    ...{ number: 2, sides: source, thread: 'channel', needs: 'zero-copy', outcome: 'unguarded', lasts: true },
    breaks: 'a sending channel does not wait for its zero-copy sends at SYNC: shows what the flush is for',
  },
  'connect-fails': {
    ...{ number: 3, sides: source, thread: 'main', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_CONNECT', peer: ['waits'] },
    breaks: 'connect is refused (ECONNREFUSED)',
  },
  'connect-hangs': {
    ...{ number: 4, sides: source, thread: 'main', overTls: true, lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_TIMEOUT', peer: ['waits'] },
    breaks: 'connect gets no answer: ends by connectTimeoutMs',
  },
  'accept-fails': {
    ...{ number: 5, sides: destination, thread: 'main', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: [...toldSoon, 'ERR_MULTIFD_CONNECT'] },
    breaks: 'accept fails for want of descriptors (EMFILE)',
  },
  'handshake-hangs': {
    ...{ number: 6, sides: source, thread: 'main', needs: 'tls', overTls: true, lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_TIMEOUT', peer: ['waits'] },
    breaks: 'the TLS handshake does not go on: ends by connectTimeoutMs',
  },
  'accepted-handshake-hangs': {
    ...{ number: 7, sides: destination, thread: 'main', needs: 'tls', overTls: true, lasts: true, ...fails },
    ...{ code: 'waits', peer: ['ERR_MULTIFD_TIMEOUT', 'ERR_MULTIFD_TLS'] },
    breaks: "a newcomer's TLS handshake does not go on: it is refused after helloTimeoutMs, as every stranger is",
  },
  'send-fails': {
    ...{ number: 8, sides: source, thread: 'channel', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: cut },
    breaks: "a channel's send fails (EIO)",
  },
  'send-short': {
    ...{ number: 9, sides: source, thread: 'channel', overTls: true, ...survived },
    breaks: 'every send of a channel takes half of its first entry only',
  },
  'send-stalls': {
    ...{ number: 10, sides: source, thread: 'channel', overTls: true, lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_TIMEOUT', peer: ['ERR_MULTIFD_TIMEOUT', ...cut] },
    breaks: "a channel's sends take nothing (EAGAIN): ends by stallTimeoutMs",
  },
  'recv-fails': {
    ...{ number: 11, sides: destination, thread: 'channel', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: told },
    breaks: "a channel's receive fails (EIO)",
  },
  'recv-ends': {
    ...{ number: 12, sides: destination, thread: 'channel', overTls: true, ...fails },
    ...{ code: cut, peer: told },
    breaks: 'a channel is at its end before it was due',
  },
  'recv-short': {
    ...{ number: 13, sides: destination, thread: 'channel', overTls: true, ...survived },
    breaks: 'every receive of a channel takes half of its first entry only',
  },
  'recv-stalls': {
    ...{ number: 14, sides: destination, thread: 'channel', overTls: true, lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_TIMEOUT', peer: ['ERR_MULTIFD_TIMEOUT', ...told] },
    breaks: 'nothing more comes on a channel (EAGAIN): ends by stallTimeoutMs',
  },
  'main-send-fails': {
    ...{ number: 15, sides: source, thread: 'main', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: cut },
    breaks: "the coordinator's send fails (EIO): with multifd the first ones are the channels' initial packets",
  },
  'main-recv-ends': {
    ...{ number: 16, sides: destination, thread: 'main', overTls: true, ...fails },
    ...{ code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED'], peer: toldSoon },
    breaks: 'the main channel is at its end in the middle of something',
  },
  'return-path-fails': {
    ...{ number: 17, sides: source, thread: 'main', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_CLOSED', peer: cut },
    breaks: 'what the destination says can not be read (EIO)',
  },
  'word-fails': {
    ...{ number: 18, sides: destination, thread: 'main', overTls: true, lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: told },
    breaks: 'the destination can say nothing to the source (EIO)',
  },
  'calls-interrupted': {
    ...{ number: 19, sides: everywhere, thread: 'any', overTls: true, ...survived },
    breaks: 'three calls of four are interrupted (EINTR)',
  },
  'calls-put-off': {
    ...{ number: 20, sides: either, thread: 'any', overTls: true, ...survived },
    breaks: 'three sends and receives of four have to be made again (EAGAIN)',
  },
  'channel-dies': {
    ...{ number: 21, sides: either, thread: 'channel', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_INTERNAL', peer: [...cut, 'ERR_MULTIFD_REMOTE'] },
    breaks: "a channel's thread ends in the middle of its work",
  },
  'main-dies': {
    ...{ number: 22, sides: either, thread: 'main', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_INTERNAL', peer: [...cut, 'ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_TLS'] },
    breaks: "the coordinator's thread ends in the middle of its work",
  },
  'channel-start-fails': {
    ...{ number: 23, sides: either, thread: 'program', needs: 'channels', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_INTERNAL', peer: [...cut, 'ERR_MULTIFD_CONNECT', 'ERR_MULTIFD_TLS', 'waits'] },
    breaks: "a channel's thread does not start",
  },
  'main-start-fails': {
    ...{ number: 24, sides: either, thread: 'program', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_INTERNAL', peer: [...cut, 'ERR_MULTIFD_CONNECT', 'ERR_MULTIFD_TLS', 'waits'] },
    breaks: "the coordinator's thread does not start",
  },
  'semaphore-late': {
    ...{ number: 25, sides: either, thread: 'any', overTls: true, ...survived },
    breaks: 'whoever waits for a semaphore goes on 20 ms later',
  },
  'slot-late': {
    ...{ number: 26, sides: source, thread: 'main', needs: 'channels', overTls: true, ...survived },
    breaks: 'a batch is seen in its ring 20 ms before it is announced',
  },
  'no-shared-memory': {
    ...{ number: 27, sides: either, thread: 'program', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_UNSUPPORTED', peer: ['waits', ...told, 'ERR_MULTIFD_CONNECT'] },
    breaks: "there is no memory for the threads' slots and counters",
  },
  'no-staging-memory': {
    ...{ number: 28, sides: destination, thread: 'channel', needs: 'snapshot', ...fails },
    ...{ code: 'ERR_MULTIFD_UNSUPPORTED', peer: told },
    breaks: 'there is no memory for the pages of a snapshot on their way into the file',
  },
  'disk-full': {
    ...{ number: 29, sides: writers, thread: 'channel', needs: 'snapshot', ...fails },
    ...{ code: 'ERR_MULTIFD_FILE', peer: told },
    breaks: 'the disk is full (ENOSPC) when pages are written',
  },
  'disk-write-fails': {
    ...{ number: 30, sides: writers, thread: 'channel', needs: 'snapshot', ...fails },
    ...{ code: 'ERR_MULTIFD_FILE', peer: told },
    breaks: 'the disk fails (EIO) when pages are written',
  },
  'disk-sync-fails': {
    ...{ number: 31, sides: writers, thread: 'main', needs: 'snapshot', ...fails },
    ...{ code: 'ERR_MULTIFD_FILE', peer: told },
    breaks: 'the disk fails (EIO) in fsync, once all has come',
  },
  'disk-rename-fails': {
    ...{ number: 32, sides: writers, thread: 'main', needs: 'snapshot', ...fails },
    ...{ code: 'ERR_MULTIFD_FILE', peer: told },
    breaks: 'a whole snapshot can not get its name (EIO)',
  },
  'dirty-log-start-fails': {
    ...{ number: 33, sides: source, thread: 'main', needs: 'kernel-log', ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: cut },
    breaks: 'the kernel has no memory to protect pages (ENOMEM of UFFDIO_WRITEPROTECT)',
  },
  'dirty-log-scan-fails': {
    ...{ number: 34, sides: source, thread: 'main', needs: 'kernel-log', ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: cut },
    breaks: 'the kernel has no memory to tell what was written (ENOMEM of PAGEMAP_SCAN)',
  },
  'zero-copy-never-ends': {
    ...{ number: 35, sides: source, thread: 'channel', needs: 'zero-copy', lasts: true, ...fails },
    ...{ code: 'ERR_MULTIFD_TIMEOUT', peer: ['ERR_MULTIFD_TIMEOUT', ...cut] },
    breaks: 'the kernel never says that it is through with a zero-copy send: ends by stallTimeoutMs',
  },
  'zero-copy-no-memory': {
    ...{ number: 36, sides: source, thread: 'channel', needs: 'zero-copy', ...fails },
    ...{ code: 'ERR_MULTIFD_IO', peer: cut },
    breaks: 'the kernel locks no memory for a zero-copy send (ENOBUFS), and none of the channel is under way',
  },
  'device-save-fails': {
    ...{ number: 37, sides: source, thread: 'program', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_DEVICE', peer: cut },
    breaks: 'a device can not be saved',
  },
  'device-load-fails': {
    ...{ number: 38, sides: destination, thread: 'program', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_DEVICE', peer: told },
    breaks: 'a device can not be loaded',
  },
  'no-resident-memory': {
    ...{ number: 39, sides: destination, thread: 'program', needs: 'prealloc', overTls: true, ...fails },
    ...{ code: 'ERR_MULTIFD_FILE', peer: told },
    breaks: 'the kernel has no memory to make a block resident (ENOMEM of MADV_POPULATE_WRITE)',
  },
  'no-cache-memory': {
    ...{ number: 40, sides: source, thread: 'main', needs: 'xbzrle', ...fails },
    ...{ code: 'ERR_MULTIFD_UNSUPPORTED', peer: cut },
    breaks: "there is no memory for a part of XBZRLE's cache",
  },
  'no-codec-memory': {
    ...{ number: 41, sides: either, thread: 'channel', needs: 'zstd', ...fails },
    ...{ code: 'ERR_MULTIFD_UNSUPPORTED', peer: [...cut, 'ERR_MULTIFD_REMOTE'] },
    breaks: 'zstd has no memory for a compressor, or a decompressor',
  },
  'write-hold-fails': {
    ...{ number: 42, sides: snapshot, thread: 'snapshot', ...fails, code: 'ERR_MULTIFD_IO' },
    breaks: 'the kernel has no memory to watch over writes (ENOMEM of UFFDIO_REGISTER)',
  },
  'write-protect-fails': {
    ...{ number: 43, sides: snapshot, thread: 'snapshot', ...fails, code: 'ERR_MULTIFD_IO' },
    breaks: 'the kernel has no memory to hold writes up, or to let them go on (ENOMEM of UFFDIO_WRITEPROTECT)',
  },
  'snapshot-dies': {
    ...{ number: 44, sides: snapshot, thread: 'snapshot', ...fails, code: 'ERR_MULTIFD_INTERNAL' },
    breaks: 'the thread of a background snapshot ends while it holds writes up',
  },
} as const satisfies Record<string, FaultPoint>

export type FaultName = keyof typeof FAULT_POINTS

/** What a kernel can lack. */
export type KernelFeature = 'userfaultfd' | 'wp-async' | 'wp-unpopulated' | 'wp-shmem' | 'pagemap-scan'

/** Features that a test takes from the kernel, in the thread that adds them: the call that needs one fails as it would. */
export const missingFromKernel = new Set<KernelFeature>()
