// userfaultfd in write-protect mode: ranges of this process's memory whose writes the kernel notes, or holds up.
//
// struct uffdio_api { u64 api, features, ioctls }      struct uffdio_range { u64 start, len }
// struct uffdio_register { range; u64 mode, ioctls }   struct uffdio_writeprotect { range; u64 mode }
// struct uffd_msg { u8 event; u8, u16, u32 reserved; u64 flags, address; … } of 32 bytes, for a page fault
//
// Source: Linux include/uapi/linux/userfaultfd.h.

import { closeSync, constants, openSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { missingFromKernel } from '../faults.js'
import { noteClosed, noteOpened } from './descriptors.js'
import { ERRNO, errno, errnoName, libc } from './libc.js'
import { PinnedBuffer } from './memory.js'
import { putWord, takeWord } from './words.js'

const DEVICE = '/dev/userfaultfd'
const SYS_USERFAULTFD = process.arch === 'arm64' ? 282 : 323
const USER_MODE_ONLY = 1
const USERFAULTFD_IOC_NEW = 0xaa00
const UFFDIO_API = 0xc018aa3f
const UFFDIO_REGISTER = 0xc020aa00
const UFFDIO_UNREGISTER = 0x8010aa01
const UFFDIO_WAKE = 0x8010aa02
const UFFDIO_WRITEPROTECT = 0xc018aa06
const API = 0xaa
const MODE_WP = 2
const WRITEPROTECT_MODE_WP = 1
const EVENT_PAGEFAULT = 0x12
const PAGEFAULT_FLAG_WP = 2
const MESSAGE_SIZE = 32
const MESSAGES = 64
const POLLIN = 1
// What one call protects: page tables may have to be made for it, and no call may last.
const PROTECT_BYTES = 2 ** 28

/** What a userfaultfd can be asked for. */
export const UFFD_FEATURE = {
  /** Write faults are told. */
  pagefaultFlagWp: 1 << 0,
  /** Write protection of shared memory and huge pages. */
  wpHugetlbfsShmem: 1 << 12,
  /** Protection covers pages that are not there yet. */
  wpUnpopulated: 1 << 13,
  /** A write lifts the protection by itself and nobody waits; of every kind of memory. */
  wpAsync: 1 << 15,
} as const

/** How a userfaultfd is opened: `device` and `system-call` hold up the kernel's own writes too, the third can not. */
type Way = 'device' | 'system-call' | 'user-mode-only'

interface Kernel {
  way: Way
  /** All that it offers. */
  features: number
}

// Found out once a thread: for holding up writes, and for noting them, which every user may.
const found = new Map<boolean, Kernel>()

/** The error of a call of userfaultfd's or pagemap's. */
export function kernelError(what: string, syscall: string, number: number): MultifdError {
  const code = number === ERRNO.noMemory ? 'ERR_MULTIFD_IO' : 'ERR_MULTIFD_UNSUPPORTED'
  const name = errnoName(number)
  return new MultifdError(code, `${what}: ${name}`, { errno: number, errnoName: name, syscall })
}

function openBy(way: Way): number | { errnoName: string } {
  const flags = constants.O_NONBLOCK | O_CLOEXEC
  if (missingFromKernel.has('userfaultfd')) return { errnoName: way === 'device' ? 'ENOENT' : 'ENOSYS' }
  if (way !== 'device') {
    const fd = Number(libc().syscall(SYS_USERFAULTFD, flags | (way === 'user-mode-only' ? USER_MODE_ONLY : 0)))
    return fd >= 0 ? fd : { errnoName: errnoName(errno()) }
  }
  let device: number
  try {
    device = openSync(DEVICE, constants.O_RDWR)
  } catch (cause) {
    return { errnoName: (cause as NodeJS.ErrnoException).code ?? String(cause) }
  }
  const fd = libc().ioctl(device, USERFAULTFD_IOC_NEW, flags)
  const number = errno()
  closeSync(device)
  return fd >= 0 ? fd : { errnoName: errnoName(number) }
}

const O_CLOEXEC = 0o2000000

function negotiate(fd: number, features: number): number | undefined {
  const api = new PinnedBuffer(24)
  putWord(api.view, 0, API)
  putWord(api.view, 8, features)
  if (libc().ioctl(fd, UFFDIO_API, api.address) !== 0) return undefined
  return api.view.getUint32(8, true)
}

function lookUp(kernelFaults: boolean): Kernel {
  const known = found.get(kernelFaults)
  if (known && missingFromKernel.size === 0) return known
  const ways: Way[] = kernelFaults ? ['device', 'system-call'] : ['device', 'system-call', 'user-mode-only']
  const refusals: Partial<Record<Way, string>> = {}
  for (const way of ways) {
    const fd = openBy(way)
    if (typeof fd === 'object') {
      refusals[way] = fd.errnoName
      continue
    }
    const offered = negotiate(fd, 0)
    libc().close(fd)
    if (offered === undefined) throw unsupported('this kernel speaks another userfaultfd API')
    const kernel = { way, features: offered & ~taken() }
    if (missingFromKernel.size === 0) found.set(kernelFaults, kernel)
    return kernel
  }
  throw unsupported(
    `userfaultfd can not be opened. ${DEVICE}: ${refusals.device} (the device node, since Linux 6.1, has to be ` +
      `readable and writable for this user). System call userfaultfd: ${refusals['system-call']} (needs ` +
      'vm.unprivileged_userfaultfd=1 or CAP_SYS_PTRACE, and a container whose seccomp profile allows it)',
  )
}

function taken(): number {
  let mask = 0
  if (missingFromKernel.has('wp-async')) mask |= UFFD_FEATURE.wpAsync
  if (missingFromKernel.has('wp-unpopulated')) mask |= UFFD_FEATURE.wpUnpopulated
  if (missingFromKernel.has('wp-shmem')) mask |= UFFD_FEATURE.wpHugetlbfsShmem
  return mask
}

function unsupported(message: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_UNSUPPORTED', message)
}

const SINCE: Record<keyof typeof UFFD_FEATURE, string> = {
  pagefaultFlagWp: 'UFFD_FEATURE_PAGEFAULT_FLAG_WP (Linux 5.7)',
  wpHugetlbfsShmem: 'UFFD_FEATURE_WP_HUGETLBFS_SHMEM (Linux 5.19)',
  wpUnpopulated: 'UFFD_FEATURE_WP_UNPOPULATED (Linux 6.4)',
  wpAsync: 'UFFD_FEATURE_WP_ASYNC (Linux 6.7)',
}

export interface UserfaultfdOptions {
  /** Whether writes are held up that the kernel makes for the program (a read into its memory); needs more rights. */
  kernelFaults: boolean
  required: (keyof typeof UFFD_FEATURE)[]
  /** Taken where the kernel has them. */
  wanted?: (keyof typeof UFFD_FEATURE)[]
}

/**
 * Whether this process may and this kernel can; found out once.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED with what is missing
 */
export function requireUserfaultfd({ kernelFaults, required }: UserfaultfdOptions): void {
  const { features } = lookUp(kernelFaults)
  for (const name of required) {
    if ((features & UFFD_FEATURE[name]) === 0) throw unsupported(`this kernel's userfaultfd has no ${SINCE[name]}`)
  }
}

export class Userfaultfd {
  readonly #features: number
  readonly #argument = new PinnedBuffer(128)
  readonly #messages = new PinnedBuffer(MESSAGE_SIZE * MESSAGES)
  readonly #poll = new Uint8Array(8)
  #fd: number

  private constructor(fd: number, features: number) {
    this.#fd = fd
    this.#features = features
    new DataView(this.#poll.buffer).setInt32(0, fd, true)
    new DataView(this.#poll.buffer).setInt16(4, POLLIN, true)
  }

  /** @throws MultifdError ERR_MULTIFD_UNSUPPORTED with what is missing */
  static open(options: UserfaultfdOptions): Userfaultfd {
    requireUserfaultfd(options)
    const { way, features } = lookUp(options.kernelFaults)
    let mask = 0
    for (const name of [...options.required, ...(options.wanted ?? [])]) mask |= UFFD_FEATURE[name] & features
    const fd = openBy(way)
    if (typeof fd === 'object') throw unsupported(`userfaultfd can not be opened any more: ${fd.errnoName}`)
    if (negotiate(fd, mask) === undefined) {
      const number = errno()
      libc().close(fd)
      throw kernelError('userfaultfd refuses the features that it offers', 'ioctl', number)
    }
    return new Userfaultfd(noteOpened(fd), mask)
  }

  has(feature: keyof typeof UFFD_FEATURE): boolean {
    return (this.#features & UFFD_FEATURE[feature]) !== 0
  }

  /**
   * Puts a range under this object's hand; nothing is protected by that.
   *
   * @throws MultifdError ERR_MULTIFD_STATE when another userfaultfd has it, ERR_MULTIFD_UNSUPPORTED for memory of a kind
   * that can not be
   */
  register(address: number, length: number, what: string): void {
    const { view } = this.#argument
    this.#range(address, length)
    putWord(view, 16, MODE_WP)
    putWord(view, 24, 0)
    if (this.#ioctl(UFFDIO_REGISTER)) return
    const number = errno()
    if (number === ERRNO.busy) {
      const message = `${what}: its writes are tracked already, by another userfaultfd of this process`
      throw new MultifdError('ERR_MULTIFD_STATE', message, { errno: number, errnoName: 'EBUSY', syscall: 'ioctl' })
    }
    throw kernelError(`${what}: the kernel can not write-protect memory of this kind`, 'ioctl', number)
  }

  /** Lets a registered range go; its protection is lifted, and nobody is told of it. */
  unregister(address: number, length: number): void {
    this.#range(address, length)
    this.#ioctl(UFFDIO_UNREGISTER)
  }

  /** @throws MultifdError ERR_MULTIFD_IO when memory runs short */
  protect(address: number, length: number, what: string): void {
    for (let done = 0; done < length; done += PROTECT_BYTES) {
      this.#protect(address + done, Math.min(PROTECT_BYTES, length - done), WRITEPROTECT_MODE_WP, what)
    }
  }

  /** Lifts the protection and lets those go on who wait for that. */
  unprotect(address: number, length: number, what: string): void {
    this.#protect(address, length, 0, what)
  }

  #protect(address: number, length: number, mode: number, what: string): void {
    do {
      this.#range(address, length)
      putWord(this.#argument.view, 16, mode)
      if (this.#ioctl(UFFDIO_WRITEPROTECT)) return
      // EAGAIN: the address space is being changed under the call.
    } while (errno() === ERRNO.again || errno() === ERRNO.intr)
    throw kernelError(`${what}: write protection`, 'ioctl', errno())
  }

  /** Wakes those who wait in a range; they look again. */
  wake(address: number, length: number): void {
    this.#range(address, length)
    this.#ioctl(UFFDIO_WAKE)
  }

  /**
   * Waits up to `timeoutMs` for writes that are held up, and calls `visit` with the address of each one's page.
   * `timeoutMs` is at most 100: a thread in a system call can not be ended.
   */
  readFaults(timeoutMs: number, visit: (address: number) => void): void {
    if (libc().poll(this.#poll, 1, timeoutMs) <= 0) return
    const { address, view } = this.#messages
    const bytes = Number(libc().read(this.#fd, address, MESSAGE_SIZE * MESSAGES))
    for (let at = 0; at + MESSAGE_SIZE <= bytes; at += MESSAGE_SIZE) {
      if (view.getUint8(at) !== EVENT_PAGEFAULT || (view.getUint32(at + 8, true) & PAGEFAULT_FLAG_WP) === 0) continue
      visit(takeWord(view, at + 16))
    }
  }

  /** Lifts every protection and wakes everyone who waits. Idempotent. */
  close(): void {
    if (this.#fd >= 0) {
      noteClosed(this.#fd)
      libc().close(this.#fd)
    }
    this.#fd = -1
  }

  #range(address: number, length: number): void {
    putWord(this.#argument.view, 0, address)
    putWord(this.#argument.view, 8, length)
  }

  #ioctl(request: number): boolean {
    if (this.#fd < 0) throw new MultifdError('ERR_MULTIFD_STATE', 'the userfaultfd is closed')
    return libc().ioctl(this.#fd, request, this.#argument.address) === 0
  }
}
