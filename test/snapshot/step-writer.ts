// A program for snapshots of a moment: threads that write all the time, and can be halted between any two writes.

import { once } from 'node:events'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../src/ram/block.js'

const PAGE = 4096
const WORD = { state: 0, writes: 1, halted: 2 } as const
const STATE = { running: 0, halt: 1, end: 2 } as const

const ROUNDS_A_TURN = 4
const TURN_MS = 1

/** Pages of the group that a writer changes one after the other, all to the same number, before it begins anew. */
export const GROUP = 8

interface StepTask {
  handle: RamBlockHandle
  control: SharedArrayBuffer
  /** Pages [first, first + count) are its own; the first {@link GROUP} of them are the group. */
  first: number
  count: number
}

export class StepWriter {
  readonly #control = new Int32Array(new SharedArrayBuffer(12))
  readonly #worker: Worker

  constructor(block: RamBlock, first: number, count: number) {
    const control = this.#control.buffer as SharedArrayBuffer
    const stepWriter: StepTask = { handle: block.handle, control, first, count }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { stepWriter }, execArgv: [] })
  }

  /** So far. */
  get writes(): number {
    return Atomics.load(this.#control, WORD.writes)
  }

  /** Waits until it has written so many times more. */
  async goesOn(writes: number): Promise<void> {
    const from = this.writes
    while (this.writes < from + writes) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  /** When this returns it stands still, wherever it was. */
  halt(): void {
    Atomics.store(this.#control, WORD.state, STATE.halt)
    while (Atomics.load(this.#control, WORD.halted) === 0) Atomics.wait(this.#control, WORD.halted, 0, 100)
  }

  resume(): void {
    Atomics.store(this.#control, WORD.halted, 0)
    Atomics.store(this.#control, WORD.state, STATE.running)
    Atomics.notify(this.#control, WORD.state)
  }

  async end(): Promise<void> {
    Atomics.store(this.#control, WORD.state, STATE.end)
    Atomics.notify(this.#control, WORD.state)
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }
}

/** What is wrong with the group of pages that begins at `at`: each has its predecessor's number, or the one before. */
export function groupFault(words: Int32Array, first: number): string | undefined {
  const numbers = Array.from({ length: GROUP }, (_, page) => words[((first + page) * PAGE) / 4]!)
  const steps = numbers.filter((number, page) => page > 0 && number !== numbers[page - 1])
  const good = steps.length === 0 || (steps.length === 1 && numbers.at(-1) === numbers[0]! - 1)
  return good ? undefined : numbers.join(', ')
}

function write({ handle, control: shared, first, count }: StepTask): void {
  const block = RamBlock.from(handle)
  const view = block.bytes(0, block.size)
  const words = new Int32Array(view.buffer, view.byteOffset, view.length / 4)
  const control = new Int32Array(shared)
  let writes = 0
  const put = (page: number, word: number, value: number): boolean => {
    while (Atomics.load(control, WORD.state) === STATE.halt) {
      Atomics.store(control, WORD.halted, 1)
      Atomics.notify(control, WORD.halted)
      Atomics.wait(control, WORD.state, STATE.halt, 100)
    }
    words[((first + page) * PAGE) / 4 + word] = value
    Atomics.store(control, WORD.writes, ++writes)
    return Atomics.load(control, WORD.state) !== STATE.end
  }
  for (let round = 1; ; round++) {
    // Others want the processor too.
    if (round % ROUNDS_A_TURN === 0) Atomics.wait(control, WORD.state, STATE.running, TURN_MS)
    for (let page = 0; page < GROUP; page++) if (!put(page, 0, round)) return
    for (let i = 0; i < 4; i++) {
      if (!put(GROUP + Math.floor(Math.random() * (count - GROUP)), Math.floor(Math.random() * 1024), round)) return
    }
  }
}

const task = (workerData as { stepWriter?: StepTask } | null)?.stepWriter
if (!isMainThread && task) write(task)
