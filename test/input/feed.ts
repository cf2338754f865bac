// Where a receiver's descriptor comes from: a file that is cut and overwritten in place, or one end of a socket.

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  acceptOne,
  closeDescriptor,
  inetAddress,
  localPort,
  openListener,
  POLL,
  pollDescriptors,
  setNonBlocking,
  startConnect,
  unixAddress,
} from '../../src/os/socket.js'

/** A folder in memory where there is one. */
export function scratchFolder(): string {
  try {
    return mkdtempSync('/dev/shm/multifd-input-')
  } catch {
    return mkdtempSync(join(tmpdir(), 'multifd-input-'))
  }
}

/** A file whose every opening reads from its start. */
export class FileFeed {
  readonly path: string
  readonly #folder = scratchFolder()
  readonly #fd: number

  constructor() {
    this.path = join(this.#folder, 'stream')
    this.#fd = openSync(this.path, 'w+')
  }

  /** Makes the parts the file's whole content. */
  put(...parts: Uint8Array[]): void {
    let at = 0
    for (const part of parts) {
      for (let done = 0; done < part.length; ) done += writeSync(this.#fd, part, done, part.length - done, at + done)
      at += part.length
    }
    ftruncateSync(this.#fd, at)
  }

  /** Overwrites bytes in place. */
  patch(at: number, bytes: Uint8Array): void {
    writeSync(this.#fd, bytes, 0, bytes.length, at)
  }

  /** Cuts the file; it does not grow again. */
  cut(length: number): void {
    ftruncateSync(this.#fd, length)
  }

  /** A descriptor of its own for a receiver, which closes it. */
  open(): number {
    return openSync(this.path, 'r')
  }

  close(): void {
    closeSync(this.#fd)
    rmSync(this.#folder, { recursive: true })
  }
}

/** Connected pairs of stream sockets, made without an event loop. */
export class SocketPairs {
  readonly kind: 'tcp' | 'unix'
  readonly #folder: string | undefined
  readonly #listener: number
  readonly #address

  constructor(kind: 'tcp' | 'unix') {
    this.kind = kind
    if (kind === 'unix') {
      this.#folder = scratchFolder()
      this.#address = unixAddress(join(this.#folder, 'socket'))
      this.#listener = openListener(this.#address, 8)
    } else {
      this.#listener = openListener(inetAddress('127.0.0.1', 0), 8)
      this.#address = inetAddress('127.0.0.1', localPort(this.#listener))
    }
  }

  /** Two ends; `writer` is blocking, and the caller's to close. */
  open(): { reader: number; writer: number } {
    const { fd: writer } = startConnect(this.#address)
    pollDescriptors([{ fd: this.#listener, events: POLL.in }], 1000)
    const reader = acceptOne(this.#listener)
    if (reader === undefined) throw new Error('the connection did not come')
    pollDescriptors([{ fd: writer, events: POLL.out }], 1000)
    setNonBlocking(writer, false)
    return { reader, writer }
  }

  close(): void {
    closeDescriptor(this.#listener)
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true })
  }
}
