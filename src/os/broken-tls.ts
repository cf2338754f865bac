// Calls of OpenSSL's that fault points break. It makes the connection's system calls itself, out of our reach: what it would
// say of them is said in its place, or beneath it.

import { anyCall, type Breaker, type Broken, die, STORM } from './breaker.js'
import { ERRNO, foreignCallback, setErrno } from './libc.js'
import { PinnedBuffer } from './memory.js'
import { BIO_BUFFER_SIZE, BIO_CTRL_FLUSH, BIO_FLAGS, type Openssl, SSL_ERROR } from './openssl.js'

/** Has calls of OpenSSL's end with a reason, which SSL_get_error then has. */
function endTls(names: readonly (keyof Openssl)[], result: number, reason: number, number = 0): Breaker<Openssl> {
  return (calls, happens) => {
    let ended = false
    const broken = names.map((name) => {
      const call = anyCall(calls, name)
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

/** Lets a write or a read of OpenSSL's have half of what it is given. */
function halve(name: 'SSL_write' | 'SSL_read' | 'BIO_read', least = 1): Breaker<Openssl> {
  return (calls, happens) => ({
    [name]: (of: number, address: number, length: number) => {
      const some = Math.min(length, Math.max(Math.ceil(length / 2), least))
      return calls[name](of, address, happens() ? some : length)
    },
  })
}

function both(...breakers: Breaker<Openssl>[]): Breaker<Openssl> {
  return (calls, happens) => Object.assign({}, ...breakers.map((breaker) => breaker(calls, happens)))
}

// A BIO's callback of OpenSSL's: asked before each operation, and after it.
const CALLBACK = 'long (uintptr_t, int, uintptr_t, size_t, int, long, int, uintptr_t)'
const OPERATION = { read: 2, write: 3 } as const
const BIO_C_GET_SSL = 110

/**
 * Has three of four of the reads and writes on the connection itself interrupted, which OpenSSL takes for the same as to be
 * made again: it sees EINTR and EAGAIN alike. Beneath its buffers, so a record can have gone in part.
 */
const putOff: Breaker<Openssl> = (calls, happens) => {
  const turns = { read: 0, write: 0 }
  const answer = (bio: number, operation: number, ...rest: number[]): number => {
    const result = rest[4]!
    const which = operation === OPERATION.read ? 'read' : operation === OPERATION.write ? 'write' : undefined
    if (which === undefined || ++turns[which] % STORM === 0 || !happens()) return result
    calls.BIO_set_flags(bio, BIO_FLAGS[which] | BIO_FLAGS.shouldRetry)
    return -1
  }
  // Only for as long as the call lasts: a connection can go to another thread, or be freed, after it.
  const within = (bios: number[], call: () => unknown): unknown => {
    const { address, release } = foreignCallback(CALLBACK, answer)
    for (const bio of bios) calls.BIO_set_callback_ex(bio, address)
    try {
      return call()
    } finally {
      for (const bio of bios) calls.BIO_set_callback_ex(bio, 0)
      release()
    }
  }
  const connections = (ssl: number): number[] => [
    calls.BIO_next(calls.SSL_get_rbio(ssl)),
    calls.BIO_next(calls.SSL_get_wbio(ssl)),
  ]
  const sslOf = (reader: number): number => {
    const pointer = new PinnedBuffer(8)
    calls.BIO_ctrl(reader, BIO_C_GET_SSL, 0, pointer.address)
    return Number(pointer.view.getBigUint64(0, true))
  }
  const names = ['SSL_do_handshake', 'SSL_read', 'SSL_peek', 'SSL_write', 'SSL_shutdown'] as const
  const ofSsl = names.map((name) => {
    const call = anyCall(calls, name)
    return [name, (ssl: number, ...rest: unknown[]) => within(connections(ssl), () => call(ssl, ...rest))]
  })
  return {
    ...Object.fromEntries(ofSsl),
    BIO_read: (reader: number, into: number, length: number) =>
      within(connections(sslOf(reader)), () => calls.BIO_read(reader, into, length)),
    BIO_ctrl: (bio: number, command: number, value: number, pointer: number) => {
      const call = (): number => calls.BIO_ctrl(bio, command, value, pointer)
      return command === BIO_CTRL_FLUSH ? within([calls.BIO_next(bio)], call) : call()
    },
  }
}

const putOffEverywhere = {
  'source main': putOff,
  'source channel': putOff,
  'destination main': putOff,
  'destination channel': putOff,
}
const READS = ['SSL_read', 'BIO_read'] as const

export const BROKEN_TLS: Broken<Openssl> = {
  'handshake-hangs': { 'source main': endTls(['SSL_do_handshake'], -1, SSL_ERROR.wantRead) },
  'accepted-handshake-hangs': { 'destination main': endTls(['SSL_do_handshake'], -1, SSL_ERROR.wantRead) },
  'send-fails': { 'source channel': endTls(['SSL_write'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'send-short': { 'source channel': halve('SSL_write') },
  'send-stalls': { 'source channel': endTls(['SSL_write'], -1, SSL_ERROR.wantWrite) },
  'recv-fails': { 'destination channel': endTls(READS, -1, SSL_ERROR.syscall, ERRNO.io) },
  'recv-ends': { 'destination channel': endTls(READS, 0, SSL_ERROR.zeroReturn) },
  // What is no longer than the reader's buffer it would read ahead of.
  'recv-short': { 'destination channel': both(halve('SSL_read'), halve('BIO_read', BIO_BUFFER_SIZE + 1)) },
  'recv-stalls': { 'destination channel': endTls(READS, -1, SSL_ERROR.wantRead) },
  'main-send-fails': { 'source main': endTls(['SSL_write'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'main-recv-ends': { 'destination main': endTls(READS, 0, SSL_ERROR.zeroReturn) },
  'return-path-fails': { 'source main': endTls(['SSL_read'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'word-fails': { 'destination main': endTls(['SSL_write'], -1, SSL_ERROR.syscall, ERRNO.io) },
  'calls-interrupted': putOffEverywhere,
  'calls-put-off': putOffEverywhere,
  'channel-dies': { 'source channel': die('SSL_write'), 'destination channel': die('BIO_read') },
  'main-dies': { 'source main': die('SSL_write'), 'destination main': die('SSL_read') },
}
