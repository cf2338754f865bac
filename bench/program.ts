// A program for the bench: a thread that dirties memory at a rate, and knows how long it stood still.

import { once } from 'node:events'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { monotonicMs } from '../src/os/clock.js'
import { RamBlock, type RamBlockHandle } from '../src/ram/block.js'

const WORD = { state: 0 } as const
const STATE = { halted: 0, running: 1, halt: 2, end: 3 } as const
const TICK_MS = 1
const PAGE = 4096

interface ProgramTask {
  handle: RamBlockHandle
  bytesPerSecond: number
  control: SharedArrayBuffer
}

export class Program {
  readonly #control = new Int32Array(new SharedArrayBuffer(4))
  readonly #worker: Worker

  private constructor(block: RamBlock, bytesPerSecond: number) {
    const control = this.#control.buffer as SharedArrayBuffer
    const program: ProgramTask = { handle: block.handle, bytesPerSecond, control }
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { program }, execArgv: [] })
  }

  /** A program that stands still yet. @param bytesPerSecond of the pages that it writes to */
  static async start(block: RamBlock, bytesPerSecond: number): Promise<Program> {
    const program = new Program(block, bytesPerSecond)
    await program.#says()
    return program
  }

  /** Lets it go. Returns when it wrote first, ms of the system's monotonic clock. */
  async goOn(): Promise<number> {
    this.#set(STATE.running)
    return await this.#says()
  }

  /** Halts it: when this resolves it writes nothing more. Returns since when. */
  async halt(): Promise<number> {
    this.#set(STATE.halt)
    return await this.#says()
  }

  async end(): Promise<void> {
    this.#set(STATE.end)
    if (this.#worker.threadId !== -1) await once(this.#worker, 'exit')
  }

  async #says(): Promise<number> {
    const [at] = (await once(this.#worker, 'message')) as [number]
    return at
  }

  #set(state: number): void {
    Atomics.store(this.#control, WORD.state, state)
    Atomics.notify(this.#control, WORD.state)
  }
}

function run({ handle, bytesPerSecond, control: shared }: ProgramTask): void {
  const words = new Int32Array(RamBlock.from(handle).memory!)
  const pages = handle.size / PAGE
  const control = new Int32Array(shared)
  let last = 0
  let owed = 0
  parentPort!.postMessage(monotonicMs())
  for (let change = 1; ; ) {
    const state = Atomics.load(control, WORD.state)
    if (state === STATE.end) return
    if (state === STATE.halt) {
      parentPort!.postMessage(monotonicMs())
      Atomics.store(control, WORD.state, STATE.halted)
      last = 0
    } else if (state === STATE.halted) Atomics.wait(control, WORD.state, STATE.halted)
    else {
      const at = monotonicMs()
      owed += last === 0 ? 1 : ((at - last) * bytesPerSecond) / 1000 / PAGE
      for (; owed >= 1; owed--) words[(Math.floor(Math.random() * pages) * PAGE) / 4] = change++
      if (last === 0) parentPort!.postMessage(monotonicMs())
      last = at
      Atomics.wait(control, WORD.state, STATE.running, TICK_MS)
    }
  }
}

const task = (workerData as { program?: ProgramTask } | null)?.program
if (!isMainThread && task) run(task)
