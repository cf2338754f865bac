// A thread that writes to the program's memory and records what it wrote; it can be halted, and let go on.

import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { RamBlock, type RamBlockHandle } from '../../src/ram/block.js'
import { PageContents } from './contents.js'
import type { BlockShape, WriterShape } from './draw.js'
import { WriteRecord, writablePages } from './memory.js'
import { Random } from './random.js'

const PAGE = 4096
const ORDER = 0
const HALTED = 1
const WRITES = 2
const THROTTLE = 3
const GO = 0
const HALT = 1
const END = 2
const TICK_MS = 1
// Of the pattern `hot`, and of `bursts`.
const HOT_PAGES = 16
const BURST_MS = 150
const BURST_SHARE = 0.2

interface Task {
  handles: RamBlockHandle[]
  record: RamBlockHandle
  shapes: BlockShape[]
  writer: WriterShape
  control: Int32Array
}

/** The writers' thread: one for all of them, one after the other. A soak would see what Node keeps of each that ended. */
let thread: Worker | undefined

export class StressWriter {
  readonly #control = new Int32Array(new SharedArrayBuffer(16))
  readonly #worker: Worker
  readonly #done: Promise<unknown>

  private constructor(blocks: readonly RamBlock[], shapes: BlockShape[], record: WriteRecord, writer: WriterShape) {
    const handles = blocks.map(({ handle }) => handle)
    const task: Task = { handles, record: record.block.handle, shapes, writer, control: this.#control }
    thread ??= new Worker(new URL(import.meta.url), { workerData: { writes: true }, execArgv: [] })
    this.#worker = thread
    this.#done = once(thread, 'message')
    this.#done.catch(() => {
      thread = undefined
    })
    thread.postMessage(task)
  }

  /** Fills the memory and goes on writing; it has filled it when this resolves. */
  static async start(
    blocks: readonly RamBlock[],
    shapes: BlockShape[],
    record: WriteRecord,
    writer: WriterShape,
  ): Promise<StressWriter> {
    const started = new StressWriter(blocks, shapes, record, writer)
    while (started.writes === 0) await Promise.race([delay(1), started.#done])
    return started
  }

  /** Pages written so far. */
  get writes(): number {
    return Atomics.load(this.#control, WRITES)
  }

  /** When this resolves, nothing is written any more, and the record is complete. */
  async halt(): Promise<void> {
    this.#order(HALT)
    while (Atomics.load(this.#control, HALTED) === 0) await delay(0)
  }

  /** Goes on; it has written something when this resolves. */
  async resume(): Promise<void> {
    const before = this.writes
    this.#order(GO)
    const deadline = performance.now() + 10_000
    while (this.writes === before) {
      if (performance.now() > deadline) throw new Error('the writer does not go on')
      await delay(1)
    }
  }

  /** Takes so many percent of its pages from it. */
  throttle(percentage: number): void {
    Atomics.store(this.#control, THROTTLE, percentage)
  }

  async end(): Promise<void> {
    this.#order(END)
    if (this.#worker.threadId !== -1) await this.#done
  }

  #order(order: number): void {
    Atomics.store(this.#control, ORDER, order)
    Atomics.notify(this.#control, ORDER)
  }
}

class Writing {
  readonly #blocks: RamBlock[]
  readonly #bytes: Uint8Array[]
  readonly #contents: PageContents[]
  readonly #record: WriteRecord
  readonly #pages: [block: number, page: number][]
  readonly #control: Int32Array
  readonly #shape: WriterShape
  readonly #random: Random
  readonly #hot: number
  #writes = 0

  constructor({ handles, record, shapes, writer, control }: Task) {
    this.#blocks = handles.map((handle) => RamBlock.from(handle))
    this.#bytes = this.#blocks.map((block) => block.bytes())
    this.#contents = shapes.map(({ content }, block) => new PageContents(block, content))
    this.#record = new WriteRecord(shapes, RamBlock.from(record))
    this.#pages = writablePages(shapes)
    this.#control = control
    this.#shape = writer
    this.#random = new Random(writer.seed)
    this.#hot = this.#random.whole(0, this.#pages.length - 1)
  }

  /** Some pages have content from the start, and the others were never touched. */
  fill(): void {
    for (let at = 0; at < this.#pages.length; at++) if (this.#random.chance(80)) this.#write(at)
    this.#write(0)
    Atomics.store(this.#control, WRITES, this.#writes)
  }

  run(): void {
    const control = this.#control
    let owed = 0
    for (let last = performance.now(); ; ) {
      const order = Atomics.load(control, ORDER)
      if (order === END) return
      if (order === HALT) {
        Atomics.store(control, HALTED, 1)
        Atomics.wait(control, ORDER, HALT)
        Atomics.store(control, HALTED, 0)
        last = performance.now()
        owed = 1
        continue
      }
      const now = performance.now()
      owed += ((now - last) / 1000) * this.#rateAt(now)
      last = now
      for (; owed >= 1 && Atomics.load(control, ORDER) === GO; owed--) {
        this.#write(this.#next())
        Atomics.store(control, WRITES, this.#writes)
      }
      Atomics.wait(control, ORDER, GO, TICK_MS)
    }
  }

  /** Pages a second at this moment. */
  #rateAt(now: number): number {
    const { pattern, rate } = this.#shape
    const slowed = (rate * (100 - Atomics.load(this.#control, THROTTLE))) / 100
    if (pattern !== 'bursts') return slowed
    return now % BURST_MS < BURST_MS * BURST_SHARE ? slowed / BURST_SHARE : 0
  }

  #next(): number {
    const { length } = this.#pages
    const random = this.#random
    switch (this.#shape.pattern) {
      case 'sequential':
        return this.#writes % length
      case 'stride':
        return (this.#writes * 7) % length
      case 'hot':
        return random.chance(90) ? (this.#hot + random.whole(0, HOT_PAGES - 1)) % length : random.whole(0, length - 1)
      default:
        return random.whole(0, length - 1)
    }
  }

  #write(at: number): void {
    const [block, page] = this.#pages[at]!
    const version = this.#record.version(block, page) + 1
    this.#contents[block]!.write(this.#bytes[block]!, page, version)
    const { dirtyLog } = this.#blocks[block]!
    if (dirtyLog === 'explicit' && !this.#shape.forgets) this.#blocks[block]!.markDirty(page * PAGE, PAGE)
    this.#record.set(block, page, version)
    this.#writes++
  }
}

if (!isMainThread && (workerData as { writes?: true } | null)?.writes) {
  parentPort!.on('message', (task: Task) => {
    const writing = new Writing(task)
    writing.fill()
    writing.run()
    parentPort!.postMessage('done')
    // It would not by itself: the memory of blocks counts for nothing on its heap.
    globalThis.gc?.()
  })
}
