// A channel over a descriptor: blocking system calls of the calling thread, none longer than CALL_MS.

import { MultifdError } from '../errors.js'
import { ERRNO, errno, errnoName, libc } from '../os/libc.js'
import { NO_ROOM, PinnedBuffer } from '../os/memory.js'
import {
  closeDescriptor,
  connectResult,
  isStreamSocket,
  MSG,
  POLL,
  pollDescriptors,
  prepareStream,
  receiveNow,
  setNonBlocking,
  shutdownBoth,
  systemError,
} from '../os/socket.js'
import { canSendZeroCopy, MSG_ZEROCOPY } from '../os/zero-copy.js'
import type { Channel, ChannelFeature, WaitHook } from './channel.js'
import type { IoVector } from './iovec.js'
import { ZeroCopySends } from './zero-copy.js'

/** Longest time in a system call. A thread in one can not be ended, and the process waits for it when it exits. */
export const CALL_MS = 100

// struct msghdr: bytes, and 32-bit words in it; machines that run this are little-endian.
const MSG_SIZE = 56
const MSG_IOV = 4
const MSG_IOVLEN = 6

// An off_t, in a buffer too large to move.
const POSITION_SIZE = 128
const CAN_NOT_SEND_FILE = new Set<number>([ERRNO.invalid, ERRNO.noSystemCall])

const GONE = new Set(['EPIPE', 'ECONNRESET', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'])

export class DescriptorChannel implements Channel {
  readonly name: 'main' | number
  readonly fd: number
  readonly features: ReadonlySet<ChannelFeature>
  readonly #socket: boolean
  readonly #wait: WaitHook
  readonly #message = new PinnedBuffer(MSG_SIZE)
  readonly #words = new Uint32Array(this.#message.bytes.buffer)
  #zeroCopy: ZeroCopySends | undefined
  // Of the next byte of a file, for sendfile to read and advance.
  #position: PinnedBuffer | undefined
  #restoreBlocking = false
  #closed = false

  /** Takes the descriptor over: {@link close} closes it. */
  constructor(fd: number, name: 'main' | number, wait: WaitHook) {
    this.fd = fd
    this.name = name
    this.#wait = wait
    this.#socket = isStreamSocket(fd)
    const features = new Set<ChannelFeature>(this.#socket ? ['peek', 'shutdown', 'sendFile'] : [])
    if (canSendZeroCopy(fd)) features.add('zeroCopySend')
    this.features = features
    if (this.#socket) prepareStream(fd, CALL_MS)
    else this.#restoreBlocking = !setNonBlocking(fd, true)
  }

  readFull(into: IoVector, boundary: number): number {
    const asked = into.length
    const got = this.#call(into, true)
    // What nearly always happens: everything in one call.
    if (got === asked) {
      into.reset()
      return got
    }
    return this.#read(into, boundary, true, got)
  }

  readSome(into: IoVector): number {
    return this.#read(into, 0, false, this.#call(into, false))
  }

  #call(into: IoVector, full: boolean): number {
    return this.#socket ? this.#receive(into, full) : libc().readv(this.fd, into.address, into.count)
  }

  // Goes on after a first call: what it said is said only once.
  #read(into: IoVector, boundary: number, full: boolean, first: number): number {
    let total = 0
    let since = 0
    for (let got = first; ; got = this.#call(into, full)) {
      if (got > 0) {
        into.advance(got)
        total += got
        since = 0
        if (!full || into.length === 0) return total
      } else if (got === 0) return total
      else since = this.#pause('read from', total, boundary, since, POLL.in)
    }
  }

  readNow(length: number): Uint8Array | undefined {
    return receiveNow(this.fd, length)
  }

  waitReadable(timeoutMs: number): boolean {
    return pollDescriptors([{ fd: this.fd, events: POLL.in }], timeoutMs)[0] !== 0
  }

  writeFull(from: IoVector, more = false): void {
    const flags = more ? MSG.more : 0
    let total = 0
    let since = 0
    while (from.length > 0) {
      const put = this.#socket ? this.#send(from, flags) : libc().writev(this.fd, from.address, from.count)
      if (put > 0) {
        from.advance(put)
        total += put
        since = 0
      } else since = this.#pause('write to', total, -1, since, POLL.out)
    }
  }

  writeFile(file: number, position: number, length: number): boolean {
    this.#position ??= new PinnedBuffer(POSITION_SIZE)
    const { view, address } = this.#position
    view.setBigInt64(0, BigInt(position), true)
    let total = 0
    let since = 0
    while (total < length) {
      const put = libc().sendfile(this.fd, file, address, length - total)
      if (put > 0) {
        total += put
        since = 0
      } else if (put === 0) throw this.#unreadable(0)
      else if (total === 0 && CAN_NOT_SEND_FILE.has(errno())) return false
      else if (errno() === ERRNO.io) throw this.#unreadable(ERRNO.io)
      else since = this.#pause('write to', total, -1, since, POLL.out)
    }
    return true
  }

  #unreadable(number: number): MultifdError {
    const name = number === 0 ? 'it ends too early' : errnoName(number)
    const message = `${describe(this.name)}: the file that is sent can not be read: ${name}`
    return new MultifdError('ERR_MULTIFD_FILE', message, {
      channel: this.name,
      errno: number,
      errnoName: name,
      syscall: 'sendfile',
    })
  }

  enableZeroCopy(most: number): void {
    if (!this.features.has('zeroCopySend')) {
      const message = `${describe(this.name)}: zero-copy sends need tcp and a kernel that has them`
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message, { channel: this.name })
    }
    this.#zeroCopy = new ZeroCopySends(this.fd, most)
  }

  writeZeroCopy(from: IoVector, head: number): void {
    const sends = this.#zeroCopySends()
    const uncopied = from.length - head
    let total = 0
    let since = 0
    while (from.length > 0) {
      const inHead = from.length > uncopied
      if (!inHead) this.#awaitSends(sends, sends.most - 1)
      const put = inHead ? this.#sendEntry(from) : this.#send(from, MSG_ZEROCOPY)
      if (put > 0) {
        if (!inHead) sends.note()
        from.advance(put)
        total += put
        since = 0
      } else if (errno() === ERRNO.noBuffers) this.#awaitMemory(sends)
      else since = this.#pause('write to', total, -1, since, POLL.out)
    }
  }

  flushZeroCopy(): number {
    const sends = this.#zeroCopySends()
    const { outstanding } = sends
    this.#awaitSends(sends, 0)
    // A connection that breaks gives its memory back too: that the kernel is through does not say that anything arrived.
    const number = outstanding > 0 ? connectResult(this.fd) : 0
    if (number !== 0) throw this.#failure('write to', number)
    return sends.takeCopied()
  }

  #zeroCopySends(): ZeroCopySends {
    if (this.#zeroCopy) return this.#zeroCopy
    throw new MultifdError('ERR_MULTIFD_INTERNAL', `${describe(this.name)}: zero-copy sends were not enabled`)
  }

  // Until no more than so many sends are under way.
  #awaitSends(sends: ZeroCopySends, most: number): void {
    for (let since = 0; sends.outstanding > most; ) {
      if (sends.collect()) {
        since = 0
        continue
      }
      const now = performance.now()
      if (since === 0) since = now
      this.#wait(now - since, true)
      const [events = 0] = pollDescriptors([{ fd: this.fd, events: 0 }], CALL_MS)
      if ((events & (POLL.err | POLL.hup)) === 0 || sends.collect()) continue
      // Neither is a notification: the connection has failed, and what is not acknowledged by now never will be.
      const number = connectResult(this.fd)
      if (number !== 0) throw this.#failure('write to', number)
      if ((events & POLL.hup) !== 0) throw this.#failure('write to', ERRNO.pipe)
    }
  }

  // The kernel has no memory to lock: sends of this channel that end give some back, anything else will not.
  #awaitMemory(sends: ZeroCopySends): void {
    const { outstanding } = sends
    if (outstanding > 0) {
      this.#awaitSends(sends, outstanding - 1)
      return
    }
    const message =
      `${describe(this.name)}: the kernel locks no more memory for zero-copy sends (ENOBUFS): ` +
      'RLIMIT_MEMLOCK counts for all processes of the user together, net.core.optmem_max for each connection'
    throw new MultifdError('ERR_MULTIFD_IO', message, {
      channel: this.name,
      errno: ERRNO.noBuffers,
      errnoName: errnoName(ERRNO.noBuffers),
      syscall: 'sendmsg',
    })
  }

  #receive(into: IoVector, full: boolean): number {
    this.#point(into)
    return libc().recvmsg(this.fd, this.#message.address, full ? MSG.waitAll : 0)
  }

  #send(from: IoVector, flags = 0): number {
    this.#point(from)
    return libc().sendmsg(this.fd, this.#message.address, MSG.noSignal | flags)
  }

  #sendEntry(from: IoVector): number {
    this.#point(from)
    this.#words[MSG_IOVLEN] = 1
    return libc().sendmsg(this.fd, this.#message.address, MSG.noSignal)
  }

  #point(vector: IoVector): void {
    const { address } = vector
    this.#words[MSG_IOV] = address % 2 ** 32
    this.#words[MSG_IOV + 1] = address / 2 ** 32
    this.#words[MSG_IOVLEN] = vector.count
  }

  // After a call that moved nothing: throws, or returns when the wait began so that the caller calls again.
  #pause(what: string, total: number, boundary: number, since: number, events: number): number {
    const number = errno()
    if (number !== ERRNO.again && number !== ERRNO.intr) throw this.#failure(what, number)
    const now = performance.now()
    const start = since === 0 ? now - (this.#socket && number === ERRNO.again ? CALL_MS : 0) : since
    this.#wait(now - start, total !== boundary)
    if (!this.#socket) pollDescriptors([{ fd: this.fd, events }], CALL_MS)
    return start
  }

  #failure(what: string, number: number): MultifdError {
    const syscall = what === 'write to' ? 'sendmsg' : 'recvmsg'
    const gone = peerGone(this.name, number, syscall)
    if (gone) return gone
    const noRoom = number === ERRNO.fault && what === 'read from'
    if (noRoom || number === ERRNO.noSpace) {
      const message = `${describe(this.name)}: ${noRoom ? NO_ROOM : 'the disk is full (ENOSPC)'}`
      return new MultifdError('ERR_MULTIFD_FILE', message, {
        channel: this.name,
        errno: number,
        errnoName: errnoName(number),
        syscall,
      })
    }
    return systemError(
      'ERR_MULTIFD_IO',
      `${describe(this.name)}: can not ${what} the connection`,
      syscall,
      number,
    ).onChannel(this.name)
  }

  // The descriptor's own end is its close.
  end(): void {}

  shutdown(): void {
    if (this.#socket && !this.#closed) shutdownBoth(this.fd)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#restoreBlocking) setNonBlocking(this.fd, false)
    closeDescriptor(this.fd)
  }
}

/** The error of a peer that is there no more, where the number says so. */
export function peerGone(channel: 'main' | number, number: number, syscall: string): MultifdError | undefined {
  const name = errnoName(number)
  if (!GONE.has(name)) return undefined
  const message = `${describe(channel)}: the peer is gone (${name}); its own log may say why`
  return new MultifdError('ERR_MULTIFD_CLOSED', message, { channel, errno: number, errnoName: name, syscall })
}

/** A channel's name in a sentence. */
export function describe(name: 'main' | number): string {
  return name === 'main' ? 'main channel' : `channel ${name}`
}
