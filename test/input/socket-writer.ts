// The other end of a socket, in a thread of its own: writes what it is told to, and ends as it is told to.

import { writeSync } from 'node:fs'
import { Worker, workerData } from 'node:worker_threads'
import { libc } from '../../src/os/libc.js'
import { closeDescriptor } from '../../src/os/socket.js'

/** Words that the two threads share. */
const WORD = { state: 0, fd: 1, length: 2, piece: 3, reset: 4 } as const
const WORDS = 8
const STATE = { idle: 0, write: 1, written: 2, close: 3, quit: 4 } as const
const CAPACITY = 8 * 1024 * 1024

const SOL_SOCKET = 1
const SO_LINGER = 13
const SHUT_WR = 1

interface Shared {
  words: Int32Array
  bytes: Uint8Array
}

function share(buffer: SharedArrayBuffer): Shared {
  return { words: new Int32Array(buffer, 0, WORDS), bytes: new Uint8Array(buffer, 4 * WORDS) }
}

function change({ words }: Shared, state: number): void {
  Atomics.store(words, WORD.state, state)
  Atomics.notify(words, WORD.state)
}

function until({ words }: Shared, ...states: number[]): number {
  for (;;) {
    const state = Atomics.load(words, WORD.state)
    if (states.includes(state)) return state
    Atomics.wait(words, WORD.state, state, 1000)
  }
}

/** The thread's handle for a test. */
export class SocketWriter {
  readonly #shared: Shared
  readonly #worker: Worker

  private constructor(shared: Shared, worker: Worker) {
    this.#shared = shared
    this.#worker = worker
  }

  static async start(): Promise<SocketWriter> {
    const buffer = new SharedArrayBuffer(4 * WORDS + CAPACITY)
    const worker = new Worker(new URL(import.meta.url), { workerData: { socketWriter: buffer }, execArgv: [] })
    await new Promise((resolve) => worker.once('online', resolve))
    return new SocketWriter(share(buffer), worker)
  }

  /**
   * Begins to write, and ends the sending direction after it. Takes `fd` over.
   *
   * @param options.piece bytes of one write
   * @param options.reset ends with a reset in place of an orderly end
   */
  write(fd: number, bytes: Uint8Array, options: { piece: number; reset: boolean }): void {
    const { words } = this.#shared
    this.#shared.bytes.set(bytes)
    words[WORD.fd] = fd
    words[WORD.length] = bytes.length
    words[WORD.piece] = options.piece
    words[WORD.reset] = options.reset ? 1 : 0
    change(this.#shared, STATE.write)
  }

  /** Waits until all is written, or the other side is gone, and closes. */
  finish(): void {
    until(this.#shared, STATE.written)
    change(this.#shared, STATE.close)
    until(this.#shared, STATE.idle)
  }

  async close(): Promise<void> {
    change(this.#shared, STATE.quit)
    await new Promise((resolve) => this.#worker.once('exit', resolve))
  }
}

function serve(shared: Shared): void {
  const { words, bytes } = shared
  while (until(shared, STATE.write, STATE.quit) !== STATE.quit) {
    const fd = words[WORD.fd]!
    const length = words[WORD.length]!
    try {
      for (let at = 0; at < length; ) at += writeSync(fd, bytes, at, Math.min(words[WORD.piece]!, length - at))
    } catch {
      // The receiver had enough.
    }
    if (words[WORD.reset] === 1)
      libc().setsockopt(fd, SOL_SOCKET, SO_LINGER, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8)
    else libc().shutdown(fd, SHUT_WR)
    if (words[WORD.reset] === 1) closeDescriptor(fd)
    change(shared, STATE.written)
    until(shared, STATE.close)
    if (words[WORD.reset] === 0) closeDescriptor(fd)
    change(shared, STATE.idle)
  }
}

const { socketWriter } = (workerData ?? {}) as { socketWriter?: SharedArrayBuffer }
if (socketWriter) serve(share(socketWriter))
