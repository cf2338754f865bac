// A channel over TLS: OpenSSL encrypts from where pages lie and decrypts to where they belong, in blocking calls of the
// calling thread, none longer than CALL_MS.

import { MultifdError } from '../errors.js'
import { ERRNO, errno } from '../os/libc.js'
import { openssl, SSL_ERROR } from '../os/openssl.js'
import {
  closeDescriptor,
  POLL,
  pollDescriptors,
  prepareStream,
  setNonBlocking,
  shutdownBoth,
  systemError,
} from '../os/socket.js'
import type { TlsContextHandle } from '../tls/context.js'
import { freeTls, handshakeStep, receiveTls, streamFailure } from '../tls/session.js'
import type { Channel, ChannelFeature, WaitHook } from './channel.js'
import { CALL_MS, describe, peerGone } from './descriptor-channel.js'
import type { IoVector } from './iovec.js'

// What SSL_write is given at a time; it takes a record of that.
const WRITE_MAX = 2 ** 20
const READ_MAX = 2 ** 30
const BIO_CTRL_PENDING = 10
const BIO_CTRL_FLUSH = 11
const BIO_FLAGS_SHOULD_RETRY = 8

export class TlsChannel implements Channel {
  readonly name: 'main' | number
  readonly fd: number
  readonly features: ReadonlySet<ChannelFeature> = new Set<ChannelFeature>(['peek', 'shutdown'])
  readonly #ssl: number
  readonly #wait: WaitHook
  #closed = false

  /**
   * Takes both over: {@link close} gives them back.
   *
   * @param ssl of the descriptor, from makeTls; an error of the thread's before it must not be in OpenSSL's queue
   */
  constructor(fd: number, ssl: number, name: 'main' | number, wait: WaitHook) {
    this.fd = fd
    this.name = name
    this.#ssl = ssl
    this.#wait = wait
    prepareStream(fd, CALL_MS)
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
      while (handshakeStep(this.#ssl, context) !== 'done') {
        this.#wait(0, false)
        if (performance.now() < deadline) continue
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
    const { SSL_read, SSL_pending } = openssl()
    let total = 0
    let since = 0
    while (into.length > 0) {
      const got = SSL_read(this.#ssl, into.headAddress, Math.min(into.headLength, READ_MAX))
      if (got > 0) {
        into.advance(got)
        total += got
        since = 0
        if (!full && SSL_pending(this.#ssl) === 0) break
      } else if (this.#mayGoOn(got, 'recvmsg')) since = this.#pause(since, total !== boundary)
      else break
    }
    return total
  }

  readNow(length: number): Uint8Array | undefined {
    if (!this.waitReadable(0)) return undefined
    setNonBlocking(this.fd, true)
    try {
      return receiveTls(this.#ssl, length)
    } catch (error) {
      throw this.#ofChannel(error)
    } finally {
      setNonBlocking(this.fd, false)
    }
  }

  waitReadable(timeoutMs: number): boolean {
    const lib = openssl()
    if (lib.SSL_pending(this.#ssl) > 0) return true
    if (lib.BIO_ctrl(lib.SSL_get_rbio(this.#ssl), BIO_CTRL_PENDING, 0, 0) > 0) return true
    return pollDescriptors([{ fd: this.fd, events: POLL.in }], timeoutMs)[0] !== 0
  }

  writeFull(from: IoVector, more = false): void {
    const { SSL_write } = openssl()
    let since = 0
    while (from.length > 0) {
      // After a write that had to wait this is the same piece again, as OpenSSL wants it: a part of it is encrypted already.
      const put = SSL_write(this.#ssl, from.headAddress, Math.min(from.headLength, WRITE_MAX))
      if (put > 0) {
        from.advance(put)
        since = 0
      } else if (this.#mayGoOn(put, 'sendmsg')) since = this.#pause(since, true)
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
      if (lib.BIO_test_flags(bio, BIO_FLAGS_SHOULD_RETRY) === 0) throw this.#gone(number, 'sendmsg')
      since = this.#pause(since, true)
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
    freeTls(this.#ssl)
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

  #pause(since: number, inside: boolean): number {
    const now = performance.now()
    const start = since === 0 ? now - CALL_MS : since
    this.#wait(now - start, inside)
    return start
  }

  // A peer that does not take us says so before it closes the connection: that is the better reason.
  #gone(number: number, syscall: string): MultifdError {
    if (syscall === 'sendmsg') {
      try {
        setNonBlocking(this.fd, true)
        receiveTls(this.#ssl, 1, true)
      } catch (word) {
        if ((word as MultifdError).code === 'ERR_MULTIFD_TLS') return this.#ofChannel(word)
      } finally {
        setNonBlocking(this.fd, false)
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
