// The demo's program: a thread that changes the memory all the time. Unless the kernel watches, it says what it changed.

import { type MessagePort, parentPort } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../ram/block.js'
import { fillMixed } from './memory.js'

export interface WriterTask {
  block: RamBlockHandle
  /** How fast it dirties memory, bytes a second. */
  bytesPerSecond: number
}

/** What it is told. */
export type WriterOrder = { type: 'start' } | { type: 'rate'; bytesPerSecond: number } | { type: 'stop' }

/** What it answers: `filled` by itself, `stopped` to `stop`. After that nothing changes any more. */
export type WriterAnswer = { type: 'filled' } | { type: 'stopped'; writes: number }

const TICK_MS = 1
// A thread that got no time for long does not make up for all of it at once.
const MOST_TICKS = 20
const ONE_IN_SO_MANY_BECOMES_ZERO = 16

export function runWriter(task: WriterTask): void {
  const port = parentPort!
  const block = RamBlock.from(task.block)
  fillMixed(block)
  const writer = new Writer(block, port, task.bytesPerSecond)
  port.on('message', (order: WriterOrder) => writer.obey(order))
  port.postMessage({ type: 'filled' } satisfies WriterAnswer)
}

class Writer {
  readonly #block: RamBlock
  readonly #bytes: Uint8Array
  readonly #port: MessagePort
  #bytesPerSecond: number
  #timer: NodeJS.Timeout | undefined
  #last = 0
  #owed = 0
  #writes = 0

  constructor(block: RamBlock, port: MessagePort, bytesPerSecond: number) {
    this.#block = block
    this.#bytes = block.bytes(0, block.size)
    this.#port = port
    this.#bytesPerSecond = bytesPerSecond
  }

  obey(order: WriterOrder): void {
    if (order.type === 'start') {
      this.#last = performance.now()
      this.#timer = setInterval(() => this.#tick(), TICK_MS)
    } else if (order.type === 'rate') {
      this.#bytesPerSecond = order.bytesPerSecond
    } else {
      clearInterval(this.#timer)
      this.#port.postMessage({ type: 'stopped', writes: this.#writes } satisfies WriterAnswer)
      this.#port.close()
    }
  }

  #tick(): void {
    const now = performance.now()
    const elapsed = Math.min(now - this.#last, MOST_TICKS * TICK_MS)
    this.#last = now
    this.#owed += (elapsed * this.#bytesPerSecond) / 1000 / this.#block.pageSize
    for (; this.#owed >= 1; this.#owed--) this.#write()
  }

  #write(): void {
    const { pages, pageSize } = this.#block
    const at = Math.floor(Math.random() * pages) * pageSize
    const page = this.#bytes.subarray(at, at + pageSize)
    this.#writes++
    if (this.#writes % ONE_IN_SO_MANY_BECOMES_ZERO === 0) page.fill(0)
    else page.fill(this.#writes & 0xff, 16, 16 + (this.#writes % 1024))
    // After the write: marked first, it could be sent as it was before.
    if (this.#block.dirtyLog === 'explicit') this.#block.markDirty(at, pageSize)
  }
}
