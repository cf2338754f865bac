// The OpenSSL that Node itself is built with: its functions are symbols of the process, and no other library is loaded.
//
// An SSL or SSL_CTX is an address that is good in every thread of the process; one thread at a time uses an SSL. OpenSSL's
// queue of errors is the thread's: it is empty between calls of ours, for whoever meets an error takes it out.

import { MultifdError } from '../errors.js'
import { foreignCallback, openLibrary, viewOf } from './libc.js'
import { Library } from './library.js'
import { PinnedBuffer } from './memory.js'

export interface Openssl {
  TLS_client_method(): number
  TLS_server_method(): number
  SSL_CTX_new(method: number): number
  SSL_CTX_free(context: number): void
  SSL_CTX_ctrl(context: number, command: number, value: number, pointer: number): number
  SSL_CTX_set_options(context: number, options: number): number
  SSL_CTX_set_num_tickets(context: number, tickets: number): number
  SSL_CTX_set_ciphersuites(context: number, names: string): number
  SSL_CTX_set_cipher_list(context: number, names: string): number
  SSL_CTX_set_verify(context: number, mode: number, callback: number): void
  SSL_CTX_set_default_passwd_cb_userdata(context: number, password: number): void
  SSL_CTX_load_verify_locations(context: number, file: string, path: number): number
  SSL_CTX_use_certificate_chain_file(context: number, file: string): number
  SSL_CTX_use_PrivateKey_file(context: number, file: string, type: number): number
  SSL_CTX_check_private_key(context: number): number
  SSL_CTX_get_cert_store(context: number): number
  SSL_CTX_set0_tmp_dh_pkey(context: number, parameters: number): number
  PEM_read_bio_Parameters(bio: number, into: number): number
  X509_STORE_add_lookup(store: number, method: number): number
  X509_STORE_set_flags(store: number, flags: number): number
  X509_LOOKUP_file(): number
  X509_load_crl_file(lookup: number, file: string, type: number): number
  SSL_new(context: number): number
  SSL_free(ssl: number): void
  SSL_set_bio(ssl: number, reads: number, writes: number): void
  SSL_get_rbio(ssl: number): number
  SSL_get_wbio(ssl: number): number
  SSL_set_connect_state(ssl: number): void
  SSL_set_accept_state(ssl: number): void
  SSL_set1_host(ssl: number, name: string): number
  SSL_set_hostflags(ssl: number, flags: number): void
  SSL_get0_param(ssl: number): number
  X509_VERIFY_PARAM_set1_ip_asc(parameters: number, address: string): number
  SSL_set_psk_client_callback(ssl: number, callback: bigint | number): void
  SSL_set_psk_server_callback(ssl: number, callback: bigint | number): void
  SSL_do_handshake(ssl: number): number
  SSL_read(ssl: number, into: number, length: number): number
  SSL_peek(ssl: number, into: number, length: number): number
  SSL_write(ssl: number, from: number, length: number): number
  SSL_pending(ssl: number): number
  SSL_shutdown(ssl: number): number
  SSL_get_error(ssl: number, result: number): number
  SSL_get_verify_result(ssl: number): number
  SSL_get_version(ssl: number): string
  SSL_get_current_cipher(ssl: number): number
  SSL_CIPHER_get_name(cipher: number): string
  SSL_get1_peer_certificate(ssl: number): number
  X509_get_subject_name(certificate: number): number
  X509_NAME_print_ex(bio: number, name: number, indent: number, flags: number): number
  X509_free(certificate: number): void
  X509_verify_cert_error_string(result: number): string
  BIO_new(method: number): number
  BIO_new_file(path: string, mode: string): number
  BIO_new_socket(fd: number, close: number): number
  BIO_s_mem(): number
  BIO_f_buffer(): number
  BIO_f_ssl(): number
  BIO_free_all(bio: number): void
  SSL_set_quiet_shutdown(ssl: number, mode: number): void
  BIO_push(bio: number, next: number): number
  BIO_next(bio: number): number
  BIO_set_callback_ex(bio: number, callback: bigint | number): void
  BIO_ctrl(bio: number, command: number, value: number, pointer: number): number
  BIO_int_ctrl(bio: number, command: number, value: number, which: number): number
  BIO_read(bio: number, into: number, length: number): number
  BIO_test_flags(bio: number, flags: number): number
  BIO_set_flags(bio: number, flags: number): void
  BIO_free(bio: number): number
  ERR_get_error(): number
  ERR_peek_last_error(): number
  ERR_clear_error(): void
  ERR_reason_error_string(code: number): string | null
}

const DECLARATIONS: Record<keyof Openssl, string> = {
  TLS_client_method: 'uintptr_t TLS_client_method()',
  TLS_server_method: 'uintptr_t TLS_server_method()',
  SSL_CTX_new: 'uintptr_t SSL_CTX_new(uintptr_t)',
  SSL_CTX_free: 'void SSL_CTX_free(uintptr_t)',
  SSL_CTX_ctrl: 'long SSL_CTX_ctrl(uintptr_t, int, long, uintptr_t)',
  SSL_CTX_set_options: 'uint64_t SSL_CTX_set_options(uintptr_t, uint64_t)',
  SSL_CTX_set_num_tickets: 'int SSL_CTX_set_num_tickets(uintptr_t, size_t)',
  SSL_CTX_set_ciphersuites: 'int SSL_CTX_set_ciphersuites(uintptr_t, const char *)',
  SSL_CTX_set_cipher_list: 'int SSL_CTX_set_cipher_list(uintptr_t, const char *)',
  SSL_CTX_set_verify: 'void SSL_CTX_set_verify(uintptr_t, int, uintptr_t)',
  SSL_CTX_set_default_passwd_cb_userdata: 'void SSL_CTX_set_default_passwd_cb_userdata(uintptr_t, uintptr_t)',
  SSL_CTX_load_verify_locations: 'int SSL_CTX_load_verify_locations(uintptr_t, const char *, uintptr_t)',
  SSL_CTX_use_certificate_chain_file: 'int SSL_CTX_use_certificate_chain_file(uintptr_t, const char *)',
  SSL_CTX_use_PrivateKey_file: 'int SSL_CTX_use_PrivateKey_file(uintptr_t, const char *, int)',
  SSL_CTX_check_private_key: 'int SSL_CTX_check_private_key(uintptr_t)',
  SSL_CTX_get_cert_store: 'uintptr_t SSL_CTX_get_cert_store(uintptr_t)',
  SSL_CTX_set0_tmp_dh_pkey: 'int SSL_CTX_set0_tmp_dh_pkey(uintptr_t, uintptr_t)',
  PEM_read_bio_Parameters: 'uintptr_t PEM_read_bio_Parameters(uintptr_t, uintptr_t)',
  X509_STORE_add_lookup: 'uintptr_t X509_STORE_add_lookup(uintptr_t, uintptr_t)',
  X509_STORE_set_flags: 'int X509_STORE_set_flags(uintptr_t, unsigned long)',
  X509_LOOKUP_file: 'uintptr_t X509_LOOKUP_file()',
  X509_load_crl_file: 'int X509_load_crl_file(uintptr_t, const char *, int)',
  SSL_new: 'uintptr_t SSL_new(uintptr_t)',
  SSL_free: 'void SSL_free(uintptr_t)',
  SSL_set_bio: 'void SSL_set_bio(uintptr_t, uintptr_t, uintptr_t)',
  SSL_get_rbio: 'uintptr_t SSL_get_rbio(uintptr_t)',
  SSL_get_wbio: 'uintptr_t SSL_get_wbio(uintptr_t)',
  SSL_set_connect_state: 'void SSL_set_connect_state(uintptr_t)',
  SSL_set_accept_state: 'void SSL_set_accept_state(uintptr_t)',
  SSL_set1_host: 'int SSL_set1_host(uintptr_t, const char *)',
  SSL_set_hostflags: 'void SSL_set_hostflags(uintptr_t, unsigned int)',
  SSL_get0_param: 'uintptr_t SSL_get0_param(uintptr_t)',
  X509_VERIFY_PARAM_set1_ip_asc: 'int X509_VERIFY_PARAM_set1_ip_asc(uintptr_t, const char *)',
  SSL_set_psk_client_callback: 'void SSL_set_psk_client_callback(uintptr_t, uintptr_t)',
  SSL_set_psk_server_callback: 'void SSL_set_psk_server_callback(uintptr_t, uintptr_t)',
  SSL_do_handshake: 'int SSL_do_handshake(uintptr_t)',
  SSL_read: 'int SSL_read(uintptr_t, uintptr_t, int)',
  SSL_peek: 'int SSL_peek(uintptr_t, uintptr_t, int)',
  SSL_write: 'int SSL_write(uintptr_t, uintptr_t, int)',
  SSL_pending: 'int SSL_pending(uintptr_t)',
  SSL_shutdown: 'int SSL_shutdown(uintptr_t)',
  SSL_get_error: 'int SSL_get_error(uintptr_t, int)',
  SSL_get_verify_result: 'long SSL_get_verify_result(uintptr_t)',
  SSL_get_version: 'const char *SSL_get_version(uintptr_t)',
  SSL_get_current_cipher: 'uintptr_t SSL_get_current_cipher(uintptr_t)',
  SSL_CIPHER_get_name: 'const char *SSL_CIPHER_get_name(uintptr_t)',
  SSL_get1_peer_certificate: 'uintptr_t SSL_get1_peer_certificate(uintptr_t)',
  X509_get_subject_name: 'uintptr_t X509_get_subject_name(uintptr_t)',
  X509_NAME_print_ex: 'int X509_NAME_print_ex(uintptr_t, uintptr_t, int, unsigned long)',
  X509_free: 'void X509_free(uintptr_t)',
  X509_verify_cert_error_string: 'const char *X509_verify_cert_error_string(long)',
  BIO_new: 'uintptr_t BIO_new(uintptr_t)',
  BIO_new_file: 'uintptr_t BIO_new_file(const char *, const char *)',
  BIO_new_socket: 'uintptr_t BIO_new_socket(int, int)',
  BIO_s_mem: 'uintptr_t BIO_s_mem()',
  BIO_f_buffer: 'uintptr_t BIO_f_buffer()',
  BIO_f_ssl: 'uintptr_t BIO_f_ssl()',
  BIO_free_all: 'void BIO_free_all(uintptr_t)',
  SSL_set_quiet_shutdown: 'void SSL_set_quiet_shutdown(uintptr_t, int)',
  BIO_push: 'uintptr_t BIO_push(uintptr_t, uintptr_t)',
  BIO_next: 'uintptr_t BIO_next(uintptr_t)',
  BIO_set_callback_ex: 'void BIO_set_callback_ex(uintptr_t, uintptr_t)',
  BIO_ctrl: 'long BIO_ctrl(uintptr_t, int, long, uintptr_t)',
  BIO_int_ctrl: 'long BIO_int_ctrl(uintptr_t, int, long, int)',
  BIO_read: 'int BIO_read(uintptr_t, uintptr_t, int)',
  BIO_test_flags: 'int BIO_test_flags(uintptr_t, int)',
  BIO_set_flags: 'void BIO_set_flags(uintptr_t, int)',
  BIO_free: 'int BIO_free(uintptr_t)',
  ERR_get_error: 'unsigned long ERR_get_error()',
  ERR_peek_last_error: 'unsigned long ERR_peek_last_error()',
  ERR_clear_error: 'void ERR_clear_error()',
  ERR_reason_error_string: 'const char *ERR_reason_error_string(unsigned long)',
}

/** Bytes of a BIO_f_buffer, where nobody asks for more. */
export const BIO_BUFFER_SIZE = 4096
export const BIO_CTRL_FLUSH = 11
export const BIO_FLAGS = { read: 1, write: 2, shouldRetry: 8 } as const

/** What SSL_get_error says of a call that did not do what it was to. */
export const SSL_ERROR = { ssl: 1, wantRead: 2, wantWrite: 3, syscall: 5, zeroReturn: 6 } as const

// Of an error's code: its reason. From 1000 on, alerts of the peer.
const REASON_MASK = 0x7fffff
const FIRST_ALERT = 1000

export const opensslLibrary = new Library(() => {
  try {
    return openLibrary<Openssl>(null, DECLARATIONS)
  } catch (cause) {
    if (cause instanceof MultifdError) throw cause
    const text = `TLS needs a Node whose executable exports OpenSSL 3, as the official ones do; this one (${process.version}) does not`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', text, { cause })
  }
})

/**
 * Node's OpenSSL.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED for a Node that does not export it
 */
export function openssl(): Openssl {
  return opensslLibrary.calls
}

/** An error of OpenSSL's. */
export interface OpensslError {
  /** In its words, such as `certificate verify failed`. */
  text: string
  /** Whether the peer said it, by an alert. */
  alert: boolean
}

/** Takes the errors of this thread; undefined when there are none. The one that was raised first has the reason. */
export function takeOpensslError(): OpensslError | undefined {
  const code = Number(openssl().ERR_get_error())
  if (code === 0) return undefined
  openssl().ERR_clear_error()
  const reason = code & REASON_MASK
  return {
    text: openssl().ERR_reason_error_string(code) ?? `error ${code.toString(16)}`,
    alert: reason >= FIRST_ALERT && reason < FIRST_ALERT + 256,
  }
}

const NAME_ROOM = 4096
// XN_FLAG_RFC2253 without XN_FLAG_DN_REV and ASN1_STRFLGS_ESC_MSB: commas between, characters beyond ASCII as they are, and
// in the certificate's own order, as GnuTLS writes a name for QEMU.
const NAME_FLAGS = 0x1010313

/** The subject of the peer's certificate, such as `C=GB,O=Example Org,CN=host`; undefined when it has shown none. */
export function peerName(ssl: number): string | undefined {
  const lib = openssl()
  const certificate = lib.SSL_get1_peer_certificate(ssl)
  if (certificate === 0) return undefined
  const bio = lib.BIO_new(lib.BIO_s_mem())
  try {
    const text = new PinnedBuffer(NAME_ROOM)
    lib.X509_NAME_print_ex(bio, lib.X509_get_subject_name(certificate), 0, NAME_FLAGS)
    const length = lib.BIO_read(bio, text.address, NAME_ROOM)
    return new TextDecoder().decode(text.bytes.subarray(0, Math.max(0, length)))
  } finally {
    lib.BIO_free(bio)
    lib.X509_free(certificate)
  }
}

/** What a pre-shared key's holder is asked: the name that the client gave, where it is the server that is asked. */
export type PskLookup = (identity: string | undefined) => { identity: string; key: Uint8Array } | undefined

const CLIENT_CALLBACK = 'unsigned int (uintptr_t, uintptr_t, uintptr_t, unsigned int, uintptr_t, unsigned int)'
const SERVER_CALLBACK = 'unsigned int (uintptr_t, const char *, uintptr_t, unsigned int)'

/** Runs a step of a handshake in this thread, with `lookup` to answer for pre-shared keys meanwhile. */
export function withPsk<T>(ssl: number, side: 'client' | 'server', lookup: PskLookup, step: () => T): T {
  const put = (text: Uint8Array, to: number, room: number): number => {
    if (text.length > room) return 0
    new Uint8Array(viewOf(to, text.length)).set(text)
    return text.length
  }
  const client = (_ssl: number, _hint: number, name: number, nameRoom: number, key: number, room: number): number => {
    const found = lookup(undefined)
    if (!found || put(new TextEncoder().encode(`${found.identity}\0`), name, nameRoom) === 0) return 0
    return put(found.key, key, room)
  }
  const server = (_ssl: number, identity: string, key: number, room: number): number => {
    const found = lookup(identity)
    return found ? put(found.key, key, room) : 0
  }
  const callback =
    side === 'client' ? foreignCallback(CLIENT_CALLBACK, client) : foreignCallback(SERVER_CALLBACK, server)
  const set = side === 'client' ? openssl().SSL_set_psk_client_callback : openssl().SSL_set_psk_server_callback
  set(ssl, callback.address)
  try {
    return step()
  } finally {
    set(ssl, 0)
    callback.release()
  }
}
