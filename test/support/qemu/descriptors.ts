// Descriptors for a QEMU to have: their way through its QMP socket.

import type { Socket } from 'node:net'
import { libc } from '../../../src/os/libc.js'
import { PinnedBuffer } from '../../../src/os/memory.js'
import { systemError } from '../../../src/os/socket.js'

// struct msghdr, and struct cmsghdr with one descriptor behind it.
const MESSAGE_SIZE = 56
const MESSAGE = { vector: 16, vectorLength: 24, control: 32, controlLength: 40 } as const
const CONTROL_SIZE = 24
const CONTROL_LENGTH = 20n
const SOL_SOCKET = 1
const SCM_RIGHTS = 1

/** Writes text to a unix socket, and a descriptor with it (SCM_RIGHTS). */
export function sendWithDescriptor(socket: Socket, text: string, descriptor: number): void {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
  const bytes = Buffer.from(text)
  const data = new PinnedBuffer(Math.max(bytes.length, 128))
  data.bytes.set(bytes)
  const vector = new PinnedBuffer(128)
  vector.view.setBigUint64(0, BigInt(data.address), true)
  vector.view.setBigUint64(8, BigInt(bytes.length), true)
  const control = new PinnedBuffer(128)
  control.view.setBigUint64(0, CONTROL_LENGTH, true)
  control.view.setInt32(8, SOL_SOCKET, true)
  control.view.setInt32(12, SCM_RIGHTS, true)
  control.view.setInt32(16, descriptor, true)
  const message = new PinnedBuffer(128)
  message.bytes.fill(0, 0, MESSAGE_SIZE)
  message.view.setBigUint64(MESSAGE.vector, BigInt(vector.address), true)
  message.view.setBigUint64(MESSAGE.vectorLength, 1n, true)
  message.view.setBigUint64(MESSAGE.control, BigInt(control.address), true)
  message.view.setBigUint64(MESSAGE.controlLength, BigInt(CONTROL_SIZE), true)
  const sent = libc().sendmsg(fd, message.address, 0)
  if (sent !== bytes.length) throw systemError('ERR_MULTIFD_IO', `${sent} of ${bytes.length} bytes went`, 'sendmsg')
}
