// The C library's functions that this package calls, declared once, loaded on first use.

import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { MultifdError } from '../errors.js'
import { Library } from './library.js'

// An address is a JavaScript number: user addresses on x86-64 and arm64 stay below 2^48, far inside what a double holds.
type Address = number

export interface Libc {
  socket(domain: number, type: number, protocol: number): number
  socketpair(domain: number, type: number, protocol: number, fds: Int32Array): number
  bind(fd: number, sockaddr: Uint8Array, length: number): number
  listen(fd: number, backlog: number): number
  accept4(fd: number, sockaddr: Address, length: Address, flags: number): number
  connect(fd: number, sockaddr: Uint8Array, length: number): number
  getsockname(fd: number, sockaddr: Uint8Array, length: Uint8Array): number
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array): number
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  shutdown(fd: number, how: number): number
  recv(fd: number, buffer: Address, length: number, flags: number): number
  recvmsg(fd: number, message: Address, flags: number): number
  sendmsg(fd: number, message: Address, flags: number): number
  sendfile(fd: number, file: number, offset: Address, length: number): number
  readv(fd: number, vector: Address, count: number): number
  writev(fd: number, vector: Address, count: number): number
  pread(fd: number, buffer: Address, length: number, position: number): number
  pwrite(fd: number, buffer: Address, length: number, position: number): number
  fsync(fd: number): number
  flock(fd: number, operation: number): number
  rename(from: string, to: string): number
  poll(fds: Uint8Array, count: number, timeoutMs: number): number
  close(fd: number): number
  fcntl(fd: number, command: number, argument: number): number
  ioctl(fd: number, request: number, argument: number): number
  syscall(number: number, argument: number): number
  read(fd: number, buffer: Address, length: number): number
  mmap(address: Address, length: number, protection: number, flags: number, fd: number, offset: number): Address
  munmap(address: Address, length: number): number
  madvise(address: Address, length: number, advice: number): number
  mincore(address: Address, length: number, residency: Address): number
  memcmp(a: Address, b: Address, length: number): number
  memcpy(to: Address, from: Address, length: number): Address
  memset(to: Address, byte: number, length: number): Address
  fallocate(fd: number, mode: number, offset: number, length: number): number
  lseek(fd: number, offset: number, whence: number): number
  getrlimit(resource: number, limit: Uint8Array): number
  gettid(): number
  sched_yield(): number
  prctl(option: number, name: Uint8Array): number
}

// koffi's own, of which it makes no address by itself.
type Pointer = object

interface Koffi {
  proto(declaration: string): object
  pointer(type: object): object
  register(callback: (...args: never[]) => unknown, type: object): Pointer
  unregister(callback: Pointer): void
  address(value: ArrayBufferView | Pointer): bigint
  decode(from: ArrayBufferView, type: 'void *'): Pointer
  errno(value?: number): number
  view(pointer: Pointer, length: number): ArrayBuffer
  load(path: string | null): { func(declaration: string): unknown }
}

const DECLARATIONS: Record<keyof Libc, string> = {
  socket: 'int socket(int, int, int)',
  socketpair: 'int socketpair(int, int, int, _Out_ int32_t *)',
  bind: 'int bind(int, uint8_t *, uint32_t)',
  listen: 'int listen(int, int)',
  accept4: 'int accept4(int, uintptr_t, uintptr_t, int)',
  connect: 'int connect(int, uint8_t *, uint32_t)',
  getsockname: 'int getsockname(int, _Inout_ uint8_t *, _Inout_ uint8_t *)',
  getsockopt: 'int getsockopt(int, int, int, _Inout_ uint8_t *, _Inout_ uint8_t *)',
  setsockopt: 'int setsockopt(int, int, int, uint8_t *, uint32_t)',
  shutdown: 'int shutdown(int, int)',
  recv: 'intptr_t recv(int, uintptr_t, size_t, int)',
  recvmsg: 'intptr_t recvmsg(int, uintptr_t, int)',
  sendmsg: 'intptr_t sendmsg(int, uintptr_t, int)',
  sendfile: 'intptr_t sendfile(int, int, uintptr_t, size_t)',
  readv: 'intptr_t readv(int, uintptr_t, int)',
  writev: 'intptr_t writev(int, uintptr_t, int)',
  pread: 'intptr_t pread(int, uintptr_t, size_t, int64_t)',
  pwrite: 'intptr_t pwrite(int, uintptr_t, size_t, int64_t)',
  fsync: 'int fsync(int)',
  flock: 'int flock(int, int)',
  rename: 'int rename(const char *, const char *)',
  poll: 'int poll(_Inout_ uint8_t *, unsigned long, int)',
  close: 'int close(int)',
  fcntl: 'int fcntl(int, int, intptr_t)',
  ioctl: 'int ioctl(int, unsigned long, intptr_t)',
  syscall: 'intptr_t syscall(intptr_t, intptr_t)',
  read: 'intptr_t read(int, uintptr_t, size_t)',
  mmap: 'uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)',
  munmap: 'int munmap(uintptr_t, size_t)',
  madvise: 'int madvise(uintptr_t, size_t, int)',
  mincore: 'int mincore(uintptr_t, size_t, uintptr_t)',
  memcmp: 'int memcmp(uintptr_t, uintptr_t, size_t)',
  memcpy: 'uintptr_t memcpy(uintptr_t, uintptr_t, size_t)',
  memset: 'uintptr_t memset(uintptr_t, int, size_t)',
  fallocate: 'int fallocate(int, int, int64_t, int64_t)',
  lseek: 'int64_t lseek(int, int64_t, int)',
  getrlimit: 'int getrlimit(int, _Inout_ uint8_t *)',
  gettid: 'int gettid()',
  sched_yield: 'int sched_yield()',
  prctl: 'int prctl(int, uint8_t *)',
}

let koffi: Koffi | undefined

export const libcLibrary = new Library(() => openLibrary<Libc>(null, DECLARATIONS))

function foreign(): Koffi {
  if (koffi) return koffi
  if (process.platform !== 'linux' || (process.arch !== 'x64' && process.arch !== 'arm64')) {
    throw new MultifdError(
      'ERR_MULTIFD_UNSUPPORTED',
      `migration needs Linux on x86-64 or arm64, this is ${process.platform} on ${process.arch}`,
    )
  }
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'the package koffi, which makes system calls, does not load', {
      cause,
    })
  }
  return koffi
}

/**
 * The C library.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED where there is no such library for us
 */
export function libc(): Libc {
  return libcLibrary.calls
}

/** Declares functions of a shared library, or with null of the process itself. Throws koffi's error when it is not there. */
export function openLibrary<T extends object>(name: string | null, declarations: Record<keyof T, string>): T {
  const library = foreign().load(name)
  const functions: Record<string, unknown> = {}
  for (const [key, declaration] of Object.entries<string>(declarations)) functions[key] = library.func(declaration)
  return functions as T
}

// A type that koffi has made is there for as long as the thread.
const callbackTypes = new Map<string, object>()

/**
 * A function of ours as an address that C code can call, from this thread and inside of a call of ours only. Whoever made
 * it releases it.
 */
export function foreignCallback(
  declaration: string,
  callback: (...args: never[]) => unknown,
): { address: bigint; release(): void } {
  const koffi = foreign()
  let type = callbackTypes.get(declaration)
  if (!type) {
    type = koffi.pointer(koffi.proto(declaration))
    callbackTypes.set(declaration, type)
  }
  const registered = koffi.register(callback, type)
  return { address: koffi.address(registered), release: () => koffi.unregister(registered) }
}

/** Linux's error number of this thread's last failed call. Ask at once: the next call overwrites it. */
export function errno(): number {
  return foreign().errno()
}

/** Makes {@link errno} say this: for calls that fault points break. */
export function setErrno(number: number): void {
  foreign().errno(number)
}

/**
 * The address of a view's first byte. It does not keep the memory alive: hold the view in whatever holds the address.
 * Views of 64 bytes or less can move and are refused.
 */
export function addressOf(view: Uint8Array | Int32Array | Uint32Array | Float64Array): number {
  if (view.buffer.byteLength <= 64) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'address of a buffer that can move')
  return Number(foreign().address(view))
}

/** Bytes [address, address + length) as an ArrayBuffer, at most 1 GiB. The mapping must outlive it. */
export function viewOf(address: number, length: number): ArrayBuffer {
  if (length > 2 ** 30) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'a view of more than 1 GiB')
  const koffi = foreign()
  return koffi.view(koffi.decode(new BigUint64Array([BigInt(address)]), 'void *'), length)
}

const NAME_OF_ERRNO = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

/** The symbol of an error number, such as ECONNRESET. */
export function errnoName(number: number): string {
  return NAME_OF_ERRNO.get(number) ?? `errno ${number}`
}

export const ERRNO = {
  intr: constants.errno.EINTR,
  again: constants.errno.EAGAIN,
  fault: constants.errno.EFAULT,
  io: constants.errno.EIO,
  inProgress: constants.errno.EINPROGRESS,
  addressInUse: constants.errno.EADDRINUSE,
  connectionRefused: constants.errno.ECONNREFUSED,
  invalid: constants.errno.EINVAL,
  noSpace: constants.errno.ENOSPC,
  noMemory: constants.errno.ENOMEM,
  busy: constants.errno.EBUSY,
  notPermitted: constants.errno.EPERM,
  noSystemCall: constants.errno.ENOSYS,
  noIoctl: constants.errno.ENOTTY,
  notSupported: constants.errno.EOPNOTSUPP,
  noBuffers: constants.errno.ENOBUFS,
  tooManyFiles: constants.errno.EMFILE,
  pipe: constants.errno.EPIPE,
} as const
