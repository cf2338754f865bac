// A program that writes to its memory while it migrates, in a thread of its own, and can be told to stop.

import { once } from 'node:events'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../../src/ram/block.js'
import { stamp, wordsOf } from './stamp.js'
import { PAGE } from './stream.js'

interface WriterData {
  handles: RamBlockHandle[]
  control: Int32Array<SharedArrayBuffer>
  pauseMs: number
}

const STOP = 0
const CHANGES = 1
const NEVER = 2

export class Writer {
  readonly #control = new Int32Array(new SharedArrayBuffer(12))
  readonly #worker: Worker

  private constructor(blocks: readonly RamBlock[], pauseMs: number) {
    const data: WriterData = { handles: blocks.map(({ handle }) => handle), control: this.#control, pauseMs }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { writer: data }, execArgv: [] })
  }

  /**
   * Starts to write, one page of every block in turn.
   *
   * @param pauseMs between two rounds over the blocks
   */
  static async start(blocks: readonly RamBlock[], pauseMs = 0): Promise<Writer> {
    const writer = new Writer(blocks, pauseMs)
    await once(writer.#worker, 'online')
    return writer
  }

  /** Rounds over the blocks so far. */
  get changes(): number {
    return Atomics.load(this.#control, CHANGES)
  }

  /** Stops it; when this resolves, no block changes any more. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, STOP, 1)
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }
}

function write({ handles, control, pauseMs }: WriterData): void {
  const blocks = handles.map((handle) => RamBlock.from(handle))
  const words = blocks.map(wordsOf)
  for (let change = 1; Atomics.load(control, STOP) === 0; change++) {
    for (const [index, block] of blocks.entries()) {
      const page = change % block.pages
      stamp(words[index]!, index, page, change)
      block.markDirty(page * PAGE, PAGE)
    }
    Atomics.store(control, CHANGES, change)
    if (pauseMs > 0) Atomics.wait(control, NEVER, 0, pauseMs)
  }
}

const own = (workerData as { writer?: WriterData } | null)?.writer
if (!isMainThread && own) write(own)
