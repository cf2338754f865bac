// A program that writes to its memory while it migrates, in a thread of its own, and can be told to stop.

import { once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../../src/ram/block.js'
import { stamp, wordsOf } from './stamp.js'
import { PAGE } from './stream.js'

interface WriterData {
  handles: RamBlockHandle[]
  control: Int32Array<SharedArrayBuffer>
  pauseMs: number
  pages: number
}

const STOP = 0
const CHANGES = 1
const NEVER = 2
const THROTTLE = 3
const HALTED = 4

export class Writer {
  readonly #control = new Int32Array(new SharedArrayBuffer(20))
  readonly #worker: Worker

  private constructor(blocks: readonly RamBlock[], pauseMs: number, pages: number) {
    const data: WriterData = { handles: blocks.map(({ handle }) => handle), control: this.#control, pauseMs, pages }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { writer: data }, execArgv: [] })
  }

  /**
   * Starts to write, the pages of every block in turn; it has begun when this resolves.
   *
   * @param pauseMs between two rounds over the blocks
   * @param pages of each block in a round
   */
  static async start(blocks: readonly RamBlock[], pauseMs = 0, pages = 1): Promise<Writer> {
    const writer = new Writer(blocks, pauseMs, pages)
    while (writer.changes === 0) await setImmediate()
    return writer
  }

  /** Rounds over the blocks so far. */
  get changes(): number {
    return Atomics.load(this.#control, CHANGES)
  }

  /** Takes so much of its time from it, in percent. */
  slowDown(percentage: number): void {
    Atomics.store(this.#control, THROTTLE, percentage)
  }

  /** Has it stop at once; its thread is still to end. When this resolves, no block changes any more. */
  async halt(): Promise<void> {
    Atomics.store(this.#control, STOP, 1)
    while (Atomics.load(this.#control, HALTED) === 0) await setImmediate()
  }

  /** Stops it; when this resolves, no block changes any more. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, STOP, 1)
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }
}

function write({ handles, control, pauseMs, pages }: WriterData): void {
  const blocks = handles.map((handle) => RamBlock.from(handle))
  const words = blocks.map(wordsOf)
  let began = performance.now()
  for (let change = 1; Atomics.load(control, STOP) === 0; change++) {
    for (const [index, block] of blocks.entries()) {
      const page = change % block.pages
      stamp(words[index]!, index, page, change)
      block.markDirty(page * PAGE, PAGE)
    }
    Atomics.store(control, CHANGES, change)
    if (change % pages !== 0) continue
    if (pauseMs > 0) Atomics.wait(control, NEVER, 0, pauseMs)
    const percentage = Atomics.load(control, THROTTLE)
    if (percentage > 0) {
      const ran = performance.now() - began
      Atomics.wait(control, NEVER, 0, (ran * percentage) / (100 - percentage))
    }
    began = performance.now()
  }
  Atomics.store(control, HALTED, 1)
}

const own = (workerData as { writer?: WriterData } | null)?.writer
if (!isMainThread && own) write(own)
