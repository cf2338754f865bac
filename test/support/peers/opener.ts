// A program that opens and closes files all the time, in a thread of its own: a descriptor closed under it shows.

import { closeSync, openSync } from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

// Enough that a number which becomes free in between is one that it takes.
const AT_ONCE = 64
const STOP = 0
const OPENED = 1
const LOST = 2

export class Opener {
  readonly #control = new Int32Array(new SharedArrayBuffer(12))
  readonly #worker = new Worker(new URL(import.meta.url), { workerData: { opener: this.#control }, execArgv: [] })

  /** Stops it: how many files it opened, and how many of them somebody else closed. */
  async stop(): Promise<{ opened: number; lost: number }> {
    Atomics.store(this.#control, STOP, 1)
    await new Promise((resolve) => this.#worker.once('exit', resolve))
    return { opened: Atomics.load(this.#control, OPENED), lost: Atomics.load(this.#control, LOST) }
  }
}

function open(control: Int32Array): void {
  while (Atomics.load(control, STOP) === 0) {
    const fds = Array.from({ length: AT_ONCE }, () => openSync('/dev/null', 'r'))
    for (const fd of fds) {
      try {
        closeSync(fd)
      } catch {
        Atomics.add(control, LOST, 1)
      }
    }
    Atomics.add(control, OPENED, AT_ONCE)
  }
}

const own = (workerData as { opener?: Int32Array } | null)?.opener
if (!isMainThread && own) open(own)
