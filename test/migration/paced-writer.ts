// A thread that writes to pages of a block at a known rate, no page twice before each had its turn.

import { once } from 'node:events'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../src/ram/block.js'

const PAGE = 4096
const STOP = 0
const WRITES = 1
const TICK_MS = 1

interface PacedTask {
  handle: RamBlockHandle
  bytesPerSecond: number
  /** In order, or here and there. */
  scattered: boolean
  control: Int32Array
}

export class PacedWriter {
  readonly #control = new Int32Array(new SharedArrayBuffer(8))
  readonly #worker: Worker

  constructor(block: RamBlock, bytesPerSecond: number, scattered: boolean) {
    const paced: PacedTask = { handle: block.handle, bytesPerSecond, scattered, control: this.#control }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { paced }, execArgv: [] })
  }

  /** Bytes of the pages written to so far. */
  get bytes(): number {
    return Atomics.load(this.#control, WRITES) * PAGE
  }

  async stop(): Promise<void> {
    Atomics.store(this.#control, STOP, 1)
    Atomics.notify(this.#control, STOP)
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }
}

function write({ handle, bytesPerSecond, scattered, control }: PacedTask): void {
  const block = RamBlock.from(handle)
  const bytes = block.bytes()
  // Odd, so that it meets every page of a power of two.
  const step = scattered ? Math.floor(block.pages * 0.618) | 1 : 1
  const began = performance.now()
  for (let writes = 0; Atomics.load(control, STOP) === 0; ) {
    const due = ((performance.now() - began) * bytesPerSecond) / 1000 / PAGE
    for (; writes < due; writes++) {
      const at = ((writes * step) % block.pages) * PAGE
      bytes[at + (writes % PAGE)] = (bytes[at + (writes % PAGE)]! + 1) & 0xff
    }
    Atomics.store(control, WRITES, writes)
    Atomics.wait(control, STOP, 0, TICK_MS)
  }
}

const { paced } = (workerData ?? {}) as { paced?: PacedTask }
if (!isMainThread && paced) write(paced)
