// A channel over TLS: OpenSSL encrypts from where pages lie and decrypts to where they belong, in the calling thread, which
// waits for the descriptor no longer than CALL_MS at a time.

import { MultifdError } from '../errors.js'
import { ERRNO, errno } from '../os/libc.js'
import { BIO_CTRL_FLUSH, BIO_FLAGS, openssl, SSL_ERROR } from '../os/openssl.js'
import {
  closeDescriptor,
  POLL,
  pollDescriptors,
  prepareStream,
  setNonBlocking,
  setReceiveLowWater,
  shutdownBoth,
  systemError,
} from '../os/socket.js'
import type { TlsContextHandle } from '../tls/context.js'
import { freeTls, handshakeStep, READER_MIN, receiveTls, streamFailure, type TlsConnection } from '../tls/session.js'
import type { Channel, ChannelFeature, WaitHook } from './channel.js'
import { CALL_MS, describe, peerGone } from './descriptor-channel.js'
import type { IoVector } from './iovec.js'

// Bytes that are given to OpenSSL at a time: several records, and yet so few that a slow link moves them soon.
const PIECE_MAX = 128 * 1024
// Bytes worth waking up for, where at least so many more must come, and a record of which a part has been read already.
const WAKE_FOR = 64 * 1024
const RECORD_MAX = 17 * 1024
const BIO_CTRL_PENDING = 10

export class TlsChannel implements Channel {
  readonly name: 'main' | number
  readonly fd: number
  readonly features: ReadonlySet<ChannelFeature> = new Set<ChannelFeature>(['peek', 'shutdown'])
  readonly #tls: TlsConnection
  readonly #ssl: number
  readonly #wait: WaitHook
  #lowWater = 1
  #closed = false

  /**
   * Takes both over: {@link close} gives them back.
   *
   * @param tls of the descriptor, from makeTls
   */
  constructor(fd: number, tls: TlsConnection, name: 'main' | number, wait: WaitHook) {
    this.fd = fd
    this.name = name
    this.#tls = tls
    this.#ssl = tls.ssl
    this.#wait = wait
    prepareStream(fd, CALL_MS)
    setNonBlocking(fd, true)
    // What somebody else's call in this thread has left behind is not ours to tell.
    openssl().ERR_clear_error()
  }

  /**
   * Waits until both sides know each other.
   *
   * @throws MultifdError ERR_MULTIFD_TLS, ERR_MULTIFD_TIMEOUT, or whatever the wait hook throws
   */
  handshake(context: TlsContextHandle, timeoutMs: number): void {
    const deadline = performance.now() + timeoutMs
    try {
      for (;;) {
        const step = handshakeStep(this.#ssl, context)
        if (step === 'done') return
        pollDescriptors([{ fd: this.fd, events: step === 'write' ? POLL.out : POLL.in }], CALL_MS)
        this.#wait(0, false)
        if (performance.now() >= deadline)
          throw new MultifdError('ERR_MULTIFD_TIMEOUT', `no TLS handshake within ${timeoutMs} ms`)
      }
    } catch (error) {
      throw this.#ofChannel(error)
    }
  }

  readFull(into: IoVector, boundary: number): number {
    return this.#read(into, boundary, true)
  }

  readSome(into: IoVector): number {
    return this.#read(into, 0, false)
  }

  #read(into: IoVector, boundary: number, full: boolean): number {
    const { BIO_read, SSL_read, SSL_pending } = openssl()
    const { ssl, reader } = this.#tls
    let total = 0
    let since = 0
    while (into.length > 0) {
      const length = Math.min(into.headLength, PIECE_MAX)
      const got =
        full && length > READER_MIN
          ? BIO_read(reader, into.headAddress, length)
          : SSL_read(ssl, into.headAddress, length)
      if (got > 0) {
        into.advance(got)
        total += got
        since = 0
        if (!full && SSL_pending(ssl) === 0) break
      } else if (this.#mayGoOn(got, 'recvmsg')) {
        this.#wakeFor(boundary - total >= WAKE_FOR + RECORD_MAX ? WAKE_FOR : 1)
        since = this.#pause(since, total !== boundary, POLL.in)
      } else break
    }
    return total
  }

  readNow(length: number): Uint8Array | undefined {
    try {
      return receiveTls(this.#ssl, length)
    } catch (error) {
      throw this.#ofChannel(error)
    }
  }

  waitReadable(timeoutMs: number): boolean {
    const lib = openssl()
    if (lib.SSL_pending(this.#ssl) > 0) return true
    if (lib.BIO_ctrl(lib.SSL_get_rbio(this.#ssl), BIO_CTRL_PENDING, 0, 0) > 0) return true
    this.#wakeFor(1)
    return pollDescriptors([{ fd: this.fd, events: POLL.in }], timeoutMs)[0] !== 0
  }

  writeFull(from: IoVector, more = false): void {
    const { SSL_write } = openssl()
    let since = 0
    while (from.length > 0) {
      // After a write that had to wait this is the same piece again, as OpenSSL wants it: a part of it is encrypted already.
      const put = SSL_write(this.#ssl, from.headAddress, Math.min(from.headLength, PIECE_MAX))
      if (put > 0) {
        from.advance(put)
        since = 0
      } else if (this.#mayGoOn(put, 'sendmsg')) since = this.#pause(since, true, POLL.out)
      else throw this.#gone(ERRNO.pipe, 'sendmsg')
    }
    if (!more) this.#flush()
  }

  // Hands the kernel what was gathered for it.
  #flush(): void {
    const lib = openssl()
    const bio = lib.SSL_get_wbio(this.#ssl)
    for (let since = 0; lib.BIO_ctrl(bio, BIO_CTRL_FLUSH, 0, 0) <= 0; ) {
      const number = errno()
      if (lib.BIO_test_flags(bio, BIO_FLAGS.shouldRetry) === 0) throw this.#gone(number, 'sendmsg')
      since = this.#pause(since, true, POLL.out)
    }
  }

  writeFile(): boolean {
    return false
  }

  enableZeroCopy(): void {
    const message = `${describe(this.name)}: zero-copy sends are not possible: encrypted pages are no longer where they lie`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message, { channel: this.name })
  }

  writeZeroCopy(): void {
    this.enableZeroCopy()
  }

  flushZeroCopy(): number {
    return 0
  }

  end(): void {
    try {
      // Once: the peer's own word is not waited for.
      const result = openssl().SSL_shutdown(this.#ssl)
      if (result < 0) this.#mayGoOn(result, 'sendmsg')
      this.#flush()
    } catch (error) {
      // A peer that is gone needs no word.
      if (!(error instanceof MultifdError)) throw error
    }
  }

  shutdown(): void {
    if (!this.#closed) shutdownBoth(this.fd)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    freeTls(this.#tls)
    closeDescriptor(this.fd)
  }

  // After a call that moved nothing: whether to wait and call again. False at the end of the stream.
  #mayGoOn(result: number, syscall: string): boolean {
    const number = errno()
    const reason = openssl().SSL_get_error(this.#ssl, result)
    if (reason === SSL_ERROR.wantRead || reason === SSL_ERROR.wantWrite) return true
    if (reason === SSL_ERROR.zeroReturn) return false
    if (reason === SSL_ERROR.syscall) throw this.#gone(number, syscall)
    throw this.#ofChannel(streamFailure(reason, number))
  }

  // A sender of small records would otherwise wake this thread for each of them, at its own cost.
  #wakeFor(bytes: number): void {
    if (bytes === this.#lowWater) return
    this.#lowWater = bytes
    setReceiveLowWater(this.fd, bytes)
  }

  // Until the descriptor is ready, or a while has passed. Returns when the wait began.
  #pause(since: number, inside: boolean, events: number): number {
    const start = since === 0 ? performance.now() : since
    pollDescriptors([{ fd: this.fd, events }], CALL_MS)
    this.#wait(performance.now() - start, inside)
    return start
  }

  // A peer that does not take us says so before it closes the connection: that is the better reason.
  #gone(number: number, syscall: string): MultifdError {
    if (syscall === 'sendmsg') {
      try {
        receiveTls(this.#ssl, 1, true)
      } catch (word) {
        if ((word as MultifdError).code === 'ERR_MULTIFD_TLS') return this.#ofChannel(word)
      }
    }
    const gone = peerGone(this.name, number, syscall)
    if (gone) return gone
    const text = `${describe(this.name)}: can not use the connection`
    return systemError('ERR_MULTIFD_IO', text, syscall, number).onChannel(this.name)
  }

  #ofChannel(error: unknown): MultifdError {
    if (!(error instanceof MultifdError) || error.channel !== undefined) throw error
    const { code, errno: number, errnoName, syscall } = error
    const gone = number === undefined ? undefined : peerGone(this.name, number, syscall ?? 'recvmsg')
    if (gone) return gone
    const details = { channel: this.name, errno: number, errnoName, syscall, cause: error }
    return new MultifdError(code, `${describe(this.name)}: ${error.message}`, details)
  }
}
