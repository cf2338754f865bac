// One connection's TLS: made from a context over a descriptor, step by step through its handshake, and handed over between
// threads by its address.

import { isIP } from 'node:net'
import { MultifdError } from '../errors.js'
import { errno } from '../os/libc.js'
import { PinnedBuffer } from '../os/memory.js'
import { BIO_BUFFER_SIZE, BIO_FLAGS, openssl, peerName, SSL_ERROR, takeOpensslError, withPsk } from '../os/openssl.js'
import { systemError } from '../os/socket.js'
import type { TlsContextHandle } from './context.js'

/** What the step of a handshake waits for; `done` when it is through, and the peer is who it must be. */
export type HandshakeStep = 'done' | 'read' | 'write'

const BIO_NOCLOSE = 0
const BIO_C_SET_SSL = 109
const BIO_C_SET_BUFF_SIZE = 117
/** Of the reader: its own buffer. */
export const READER_MIN = BIO_BUFFER_SIZE
const READ_BUFFER = 0
const WRITE_BUFFER = 1
// OpenSSL reads and writes record by record, of 16 KiB at most, and a call of the kernel for each half of one. With these
// between, a call moves several.
const BUFFER_SIZE = 128 * 1024
// X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
const WHOLE_LABELS = 4

/** One connection's TLS, by addresses. One thread at a time uses it. */
export interface TlsConnection {
  ssl: number
  /** A BIO that reads from it, record after record in one call, whatever is longer than {@link READER_MIN}. */
  reader: number
}

/** Makes the TLS of a connection, whose descriptor stays the caller's. Free it with {@link freeTls}. */
export function makeTls(fd: number, { address, role, hostname }: TlsContextHandle): TlsConnection {
  const lib = openssl()
  const ssl = lib.SSL_new(address)
  if (ssl === 0) throw new MultifdError('ERR_MULTIFD_TLS', 'OpenSSL has no memory')
  lib.SSL_set_bio(ssl, buffered(fd, READ_BUFFER), buffered(fd, WRITE_BUFFER))
  if (role === 'server') lib.SSL_set_accept_state(ssl)
  else lib.SSL_set_connect_state(ssl)
  // BIO_f_buffer reads what is longer than its buffer straight into place, and goes on until all of it has come.
  const source = lib.BIO_new(lib.BIO_f_ssl())
  lib.BIO_ctrl(source, BIO_C_SET_SSL, BIO_NOCLOSE, ssl)
  const tls = { ssl, reader: lib.BIO_push(lib.BIO_new(lib.BIO_f_buffer()), source) }
  try {
    if (hostname !== undefined) expectHost(ssl, hostname)
  } catch (error) {
    freeTls(tls)
    throw error
  }
  return tls
}

function buffered(fd: number, which: typeof READ_BUFFER | typeof WRITE_BUFFER): number {
  const lib = openssl()
  const buffer = lib.BIO_new(lib.BIO_f_buffer())
  lib.BIO_int_ctrl(buffer, BIO_C_SET_BUFF_SIZE, BUFFER_SIZE, which)
  return lib.BIO_push(buffer, lib.BIO_new_socket(fd, BIO_NOCLOSE))
}

function expectHost(ssl: number, name: string): void {
  const lib = openssl()
  lib.SSL_set_hostflags(ssl, WHOLE_LABELS)
  const set = isIP(name)
    ? lib.X509_VERIFY_PARAM_set1_ip_asc(lib.SSL_get0_param(ssl), name)
    : lib.SSL_set1_host(ssl, name)
  if (set !== 1) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `'${name}' is no name that a certificate can have`)
}

/** Once, when no thread uses it any more. */
export function freeTls({ ssl, reader }: TlsConnection): void {
  const lib = openssl()
  // The reader would say close_notify: to a source that does not read, that is a reset in the middle of what it sends.
  lib.SSL_set_quiet_shutdown(ssl, 1)
  lib.BIO_free_all(reader)
  lib.SSL_free(ssl)
}

/**
 * Goes on with a handshake as far as it goes without waiting.
 *
 * @throws MultifdError ERR_MULTIFD_TLS: the peer is not who it must be, does not take us, or speaks no TLS
 */
export function handshakeStep(ssl: number, context: TlsContextHandle): HandshakeStep {
  const lib = openssl()
  let result = 0
  let reason = 0
  const step = (): void => {
    result = lib.SSL_do_handshake(ssl)
    reason = result === 1 ? 0 : lib.SSL_get_error(ssl, result)
  }
  const { keys, role, username } = context
  if (keys) {
    withPsk(
      ssl,
      role,
      (identity = username) => {
        const key = keys.get(identity)
        return key && { identity, key }
      },
      step,
    )
  } else step()
  if (reason === SSL_ERROR.wantRead) return 'read'
  // OpenSSL puts a buffer of its own upon ours while it shakes hands, and overlooks there that ours could not be emptied.
  const full = reason === SSL_ERROR.syscall && lib.BIO_test_flags(lib.SSL_get_wbio(ssl), BIO_FLAGS.shouldRetry) !== 0
  if (reason === SSL_ERROR.wantWrite || full) return 'write'
  if (result !== 1) throw handshakeFailure(ssl, context, reason)
  checkAllowed(ssl, context)
  return 'done'
}

function checkAllowed(ssl: number, { authz }: TlsContextHandle): void {
  if (!authz) return
  const name = peerName(ssl)
  if (name !== undefined && authz.includes(name)) return
  throw new MultifdError(
    'ERR_MULTIFD_TLS',
    `the source's certificate is of '${name}', which is not allowed (tls.authz)`,
  )
}

const NO_TLS = new Set(['wrong version number', 'http request', 'https proxy request', 'bad record type'])

function handshakeFailure(ssl: number, { role, hostname }: TlsContextHandle, reason: number): MultifdError {
  const peer = role === 'client' ? 'destination' : 'source'
  const error = takeOpensslError()
  const failed = (why: string): MultifdError => new MultifdError('ERR_MULTIFD_TLS', why)
  if (reason !== SSL_ERROR.ssl || !error) return failed(`the ${peer} ended the connection in the TLS handshake`)
  if (error.alert) return failed(`the ${peer} does not take us: ${error.text}`)
  const verified = Number(openssl().SSL_get_verify_result(ssl))
  if (verified !== 0) {
    const wanted = hostname === undefined ? '' : ` (expected '${hostname}')`
    const text = openssl().X509_verify_cert_error_string(verified)
    return failed(`the ${peer}'s certificate is refused: ${text}${wanted}`)
  }
  if (NO_TLS.has(error.text)) return failed(`the ${peer} does not speak TLS (${error.text})`)
  return failed(`the TLS handshake with the ${peer} failed: ${error.text}`)
}

/** What was agreed on, such as `TLSv1.3, TLS_AES_128_GCM_SHA256`. */
export function agreedCipher(ssl: number): string {
  const lib = openssl()
  return `${lib.SSL_get_version(ssl)}, ${lib.SSL_CIPHER_get_name(lib.SSL_get_current_cipher(ssl))}`
}

let smallBuffer: PinnedBuffer | undefined

/**
 * Takes, or with `peek` looks at, up to `length` bytes (512 at most) of a connection whose descriptor does not wait.
 *
 * @returns undefined when there are none yet; an empty array at the end of the stream
 * @throws MultifdError ERR_MULTIFD_TLS, ERR_MULTIFD_IO
 */
export function receiveTls(ssl: number, length: number, peek = false): Uint8Array | undefined {
  const lib = openssl()
  smallBuffer ??= new PinnedBuffer(512)
  const { address, bytes } = smallBuffer
  const got = (peek ? lib.SSL_peek : lib.SSL_read)(ssl, address, Math.min(length, 512))
  if (got > 0) return bytes.slice(0, got)
  const number = errno()
  const reason = lib.SSL_get_error(ssl, got)
  if (reason === SSL_ERROR.wantRead || reason === SSL_ERROR.wantWrite) return undefined
  if (reason === SSL_ERROR.zeroReturn) return new Uint8Array()
  throw streamFailure(reason, number)
}

/** What a call says that has failed for good: the reason that SSL_get_error gave, and the error number after the call. */
export function streamFailure(reason: number, number: number): MultifdError {
  const error = takeOpensslError()
  if (reason === SSL_ERROR.ssl && error) {
    return new MultifdError('ERR_MULTIFD_TLS', error.alert ? `the peer refuses: ${error.text}` : `TLS: ${error.text}`)
  }
  return systemError('ERR_MULTIFD_IO', 'can not use the connection', 'read', number)
}
