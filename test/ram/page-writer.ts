// A thread that writes to pages of a block at random, until it is told to stop.

import { once } from 'node:events'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../src/ram/block.js'

const PAGE = 4096
const STOP = 0
const WRITES = 1

interface WriterTask {
  handle: RamBlockHandle
  /** Pages [first, first + count) are its own. */
  first: number
  count: number
  /** Every page once, in order, or at random for as long as it goes. */
  once: boolean
  control: Int32Array
}

export class PageWriter {
  readonly #control = new Int32Array(new SharedArrayBuffer(8))
  readonly #worker: Worker

  constructor(block: RamBlock, { first = 0, count = block.pages, once: single = false } = {}) {
    const task: WriterTask = { handle: block.handle, first, count, once: single, control: this.#control }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { pageWriter: task }, execArgv: [] })
  }

  /** Writes so far. */
  get writes(): number {
    return Atomics.load(this.#control, WRITES)
  }

  /** Resolves when it is at its end. */
  async ended(): Promise<void> {
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }

  /** Stops it; when this resolves, nothing is written any more. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, STOP, 1)
    await this.ended()
  }
}

/** What a writer leaves in the first word of a page, never what was there before. */
export function stampOf(page: number): number {
  return 0x40000000 + page
}

function write({ handle, first, count, once: single, control }: WriterTask): void {
  const block = RamBlock.from(handle)
  const words = new Int32Array(block.bytes().buffer, 0, block.size / 4)
  for (let change = 0; Atomics.load(control, STOP) === 0 && !(single && change === count); change++) {
    const page = first + (single ? change : Math.floor(Math.random() * count))
    if (single) words[(page * PAGE) / 4] = stampOf(page)
    else words[(page * PAGE) / 4 + Math.floor(Math.random() * 1024)] = change
    Atomics.store(control, WRITES, change + 1)
  }
}

const task = (workerData as { pageWriter?: WriterTask } | null)?.pageWriter
if (!isMainThread && task) write(task)
