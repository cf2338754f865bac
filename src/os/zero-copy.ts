// Sending without copying: what the kernel needs to be told, what it allows, and what it says when it is through.
//
//   struct msghdr of a notification (recvmsg with MSG_ERRQUEUE; no data, one control message)
//     control message   0  8  length, this header included
//                       8  4  level: SOL_IP or SOL_IPV6
//                      12  4  type: IP_RECVERR or IPV6_RECVERR
//     sock_extended_err 16  4  error number
//                      20  1  origin: 5 for zero copy
//                      21  1  type
//                      22  1  code: bit 0 when the kernel copied after all
//                      24  4  first send of the range (info)
//                      28  4  last send of the range (data)

import { readFileSync } from 'node:fs'
import { ERRNO, errno, libc } from './libc.js'
import { PinnedBuffer } from './memory.js'
import { isTcpSocket, systemError } from './socket.js'

const SOL_SOCKET = 1
const SO_ZEROCOPY = 60
const MSG_ERRQUEUE = 0x2000
const MSG_CONTROL = 32
const MSG_CONTROLLEN = 40
const MSG_SIZE = 56
const CONTROL_SIZE = 256
const CONTROL_HEADER = 16
const RECVERR = new Set(['0/11', '41/25'])
const ORIGIN_ZEROCOPY = 5
const CODE_COPIED = 1
const RLIMIT_MEMLOCK = 8
// CAP_IPC_LOCK's bit, in the upper half of no mask that exists: the lower half of the number is enough.
const CAP_IPC_LOCK = 14

/** MSG_ZEROCOPY of sendmsg. */
export const MSG_ZEROCOPY = 0x4000000

/** A range of sends that the kernel is through with: numbers count from 0 and wrap at 2^32. */
export interface Completion {
  first: number
  count: number
  /** Whether the kernel copied after all. */
  copied: boolean
}

/** Whether a descriptor is a tcp socket of a kernel that can send without copying. */
export function canSendZeroCopy(fd: number): boolean {
  return isTcpSocket(fd) && libc().getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, word(0), word(4)) === 0
}

/**
 * Lets a socket send without copying.
 *
 * @throws MultifdError ERR_MULTIFD_IO
 */
export function enableZeroCopy(fd: number): void {
  if (libc().setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, word(1), 4) === 0) return
  throw systemError('ERR_MULTIFD_IO', 'the kernel refuses zero-copy sends (SO_ZEROCOPY)', 'setsockopt')
}

/** Reads the notifications of one socket. */
export class CompletionReader {
  readonly #fd: number
  readonly #message = new PinnedBuffer(MSG_SIZE)
  readonly #control = new PinnedBuffer(CONTROL_SIZE)

  constructor(fd: number) {
    this.#fd = fd
  }

  /**
   * The next notification, or undefined when none waits. Never waits itself.
   *
   * @throws MultifdError ERR_MULTIFD_IO
   */
  next(): Completion | undefined {
    for (;;) {
      this.#point()
      if (libc().recvmsg(this.#fd, this.#message.address, MSG_ERRQUEUE) >= 0) {
        const completion = decodeCompletion(this.#control.view, this.#controlLength())
        if (completion) return completion
        continue // an error report that nobody asked for
      }
      const number = errno()
      if (number === ERRNO.again) return undefined
      if (number === ERRNO.intr) continue
      throw systemError('ERR_MULTIFD_IO', "can not read a socket's error queue", 'recvmsg', number)
    }
  }

  // The kernel overwrites the length with what it filled in.
  #point(): void {
    const { view } = this.#message
    view.setUint32(MSG_CONTROL, this.#control.address % 2 ** 32, true)
    view.setUint32(MSG_CONTROL + 4, Math.floor(this.#control.address / 2 ** 32), true)
    view.setUint32(MSG_CONTROLLEN, CONTROL_SIZE, true)
    view.setUint32(MSG_CONTROLLEN + 4, 0, true)
  }

  #controlLength(): number {
    return Math.min(this.#message.view.getUint32(MSG_CONTROLLEN, true), CONTROL_SIZE)
  }
}

/** The completion in a notification's control messages, or undefined when they have none. */
export function decodeCompletion(view: DataView, length: number): Completion | undefined {
  for (let at = 0; at + CONTROL_HEADER <= length; ) {
    const size = view.getUint32(at, true)
    if (size < CONTROL_HEADER || at + size > length) return undefined
    const kind = `${view.getInt32(at + 8, true)}/${view.getInt32(at + 12, true)}`
    if (RECVERR.has(kind) && size >= CONTROL_HEADER + 16 && view.getUint8(at + 20) === ORIGIN_ZEROCOPY) {
      const first = view.getUint32(at + 24, true)
      const last = view.getUint32(at + 28, true)
      return { first, count: ((last - first) >>> 0) + 1, copied: (view.getUint8(at + 22) & CODE_COPIED) !== 0 }
    }
    at += Math.ceil(size / 8) * 8
  }
  return undefined
}

/** Bytes that this process may keep locked (RLIMIT_MEMLOCK), Infinity for those it does not bind. */
export function lockedMemoryLimit(): number {
  if (mayLockAnything()) return Number.POSITIVE_INFINITY
  const limit = new Uint8Array(16)
  if (libc().getrlimit(RLIMIT_MEMLOCK, limit) !== 0) return 0
  const view = new DataView(limit.buffer)
  const bytes = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32
  // RLIM_INFINITY is the largest number there is.
  return bytes >= 2 ** 63 ? Number.POSITIVE_INFINITY : bytes
}

function mayLockAnything(): boolean {
  try {
    const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
    return (Number.parseInt(mask.slice(-8), 16) & (1 << CAP_IPC_LOCK)) !== 0
  } catch {
    return false
  }
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}
