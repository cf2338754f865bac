// Bare sockets: threads that move a block's bytes, each its share over its own socket, without any protocol.

import { Worker } from 'node:worker_threads'
import { type AddressRange, IoVector } from '../../src/io/iovec.js'
import { libc } from '../../src/os/libc.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { MSG, prepareStream } from '../../src/os/socket.js'
import type { RamBlock, RamBlockHandle } from '../../src/ram/block.js'

/** Bytes of one call: those of a full packet's pages. */
export const CALL_BYTES = 512 * 1024
const CALL_MS = 100
const GONE = 'the peer is gone'

// struct msghdr
const MSG_IOV = 16
const MSG_IOVLEN = 24
const MSG_SIZE = 56

export interface BareTask {
  block: RamBlockHandle
  fd: number
  channel: number
  channels: number
  sends: boolean
  /** One word: 0 until the senders may start. */
  go: SharedArrayBuffer
}

/** What a thread says: that it is ready, and when (in ms of the wall clock) it was done. */
export type BareMessage = 'ready' | { doneAt: number }

interface BareThreads {
  ready: Promise<unknown>
  /** When the last one was done. */
  done: Promise<number>
  /** Lets the senders start. */
  go(): void
}

/** Starts a thread a socket; `ready` and `done` settle when all of them are. */
export function startBare(block: RamBlock, fds: number[], sends: boolean): BareThreads {
  const go = new SharedArrayBuffer(4)
  const threads = fds.map((fd, channel) => {
    const workerData: BareTask = { block: block.handle, fd, channel, channels: fds.length, sends, go }
    const worker = new Worker(new URL('./bare-thread.js', import.meta.url), { workerData })
    const ready = new Promise<void>((resolve, reject) => {
      worker.on('message', (message: BareMessage) => message === 'ready' && resolve())
      worker.on('error', reject)
    })
    const done = new Promise<number>((resolve, reject) => {
      worker.on('message', (message: BareMessage) => message !== 'ready' && resolve(message.doneAt))
      worker.on('error', reject)
    })
    return { ready, done }
  })
  return {
    ready: Promise.all(threads.map(({ ready }) => ready)),
    done: Promise.all(threads.map(({ done }) => done)).then((times) => Math.max(...times)),
    go() {
      Atomics.store(new Int32Array(go), 0, 1)
      Atomics.notify(new Int32Array(go), 0)
    },
  }
}

/** Blocking calls on one socket. */
export class BareSocket {
  readonly #fd: number
  readonly #vector = new IoVector(2)
  readonly #message = new PinnedBuffer(MSG_SIZE)

  constructor(fd: number) {
    this.#fd = fd
    prepareStream(fd, CALL_MS)
  }

  send(range: AddressRange, offset: number, length: number): void {
    this.#vector.push(range, offset, length)
    if (!this.#move((message) => libc().sendmsg(this.#fd, message, MSG.noSignal))) throw new Error(GONE)
  }

  receive(range: AddressRange, offset: number, length: number): void {
    this.#vector.push(range, offset, length)
    if (!this.#receive()) throw new Error(GONE)
  }

  /** Fills part of a range and then another whole one; returns whether the stream had enough for that. */
  receiveBoth(range: AddressRange, offset: number, length: number, then: AddressRange): boolean {
    this.#vector.push(range, offset, length)
    this.#vector.push(then, 0, then.size)
    return this.#receive()
  }

  #receive(): boolean {
    return this.#move((message) => libc().recvmsg(this.#fd, message, MSG.waitAll))
  }

  #move(call: (message: number) => number): boolean {
    const { view, address } = this.#message
    const vector = this.#vector
    while (vector.length > 0) {
      view.setBigUint64(MSG_IOV, BigInt(vector.address), true)
      view.setUint32(MSG_IOVLEN, vector.count, true)
      const moved = call(address)
      if (moved === 0) return false
      // A call that timed out says -1: it is made again, and the benchmark has an end of its own.
      if (moved > 0) vector.advance(moved)
    }
    vector.reset()
    return true
  }
}
