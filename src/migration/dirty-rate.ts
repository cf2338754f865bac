// The dirty rate: how fast a program changes its memory, measured while it runs and before anything is migrated.

import { MessageChannel } from 'node:worker_threads'
import { MultifdError } from '../errors.js'
import type { RamBlock } from '../ram/block.js'
import { requireDirtyLog } from '../ram/dirty-log.js'
import { isLogClaimed, measureWithLog } from '../ram/log-use.js'
import { ThreadControl } from '../shm/thread-control.js'
import type { DirtyRateOutcome, DirtyRateTask } from './dirty-rate-thread.js'
import { keepPool, takePool } from './thread-pools.js'

/**
 * How it is measured. `page-sampling`: pages picked at random are hashed twice; a page that is written again with what it had
 * has not changed. `dirty-bitmap`: the kernel tells which pages are written. `dirty-ring` is KVM's, and refused.
 */
export const DIRTY_RATE_MODES = ['page-sampling', 'dirty-ring', 'dirty-bitmap'] as const
export type DirtyRateMode = (typeof DIRTY_RATE_MODES)[number]

export interface DirtyRateOptions {
  /** For how long it is measured: ms, 50 to 60,000. Default 1000. */
  calcTime?: number
  /** Default `page-sampling`. */
  mode?: DirtyRateMode
  /** `page-sampling` only: pages a GiB that are hashed, 128 to 16,384; at least so many in all. Default 512. */
  samplePages?: number
  /** Cancels. */
  signal?: AbortSignal
}

/** A measurement, as query-dirty-rate has it. */
export interface DirtyRate {
  status: 'unstarted' | 'measuring' | 'measured'
  mode: DirtyRateMode
  /** When it began: ms since 1970; 0 before the first one. */
  startTime: number
  /** As it was asked for, ms. */
  calcTime: number
  /** 0 in other modes than `page-sampling`. */
  samplePages: number
  /** Bytes of pages that changed, a second; pages that changed several times count once. Known once it is measured. */
  bytesPerSecond?: number
}

const UNSTARTED: DirtyRate = { status: 'unstarted', mode: 'page-sampling', startTime: 0, calcTime: 0, samplePages: 0 }
const CALC_TIME = { least: 50, most: 60_000, default: 1000 }
const SAMPLE_PAGES = { least: 128, most: 16_384, default: 512 }
// Longest wait of a process that exits for a thread that has only just started.
const LOAD_MS = 500

interface Run {
  control: ThreadControl
  begun: Promise<void>
  ended: Promise<DirtyRate>
  /** Why it is stopped early. */
  reason?: MultifdError
}

/** Measures the dirty rate of some blocks, once at a time, in a thread of its own. */
export class DirtyRateMeter {
  readonly #ram: readonly RamBlock[]
  #latest: DirtyRate = UNSTARTED
  #run: Run | undefined

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT without a block */
  constructor(ram: readonly RamBlock[]) {
    if (ram.length === 0) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'there is no RAM block to measure')
    this.#ram = [...ram]
  }

  /** The measurement that runs, or the last one. One that came to nothing leaves `unstarted`. */
  get latest(): Readonly<DirtyRate> {
    return this.#latest
  }

  /**
   * Measures. The program runs on; with `dirty-bitmap` its first write to each page takes a microsecond more. A migration or a
   * background snapshot that begins has the kernel's log to itself: it ends a measurement with `dirty-bitmap`.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for what is out of range; ERR_MULTIFD_UNSUPPORTED for `dirty-ring`, or when the
   * kernel can not tell; ERR_MULTIFD_STATE when one is measured already, or with `dirty-bitmap` while a migration or a
   * snapshot runs or when one began; ERR_MULTIFD_ABORTED
   */
  async measure(options: DirtyRateOptions = {}): Promise<DirtyRate> {
    return await this.#start(options).ended
  }

  /** The same, but resolves once it has begun; {@link latest} tells the rest. */
  async begin(options: DirtyRateOptions = {}): Promise<void> {
    const run = this.#start(options)
    run.ended.catch(() => {})
    await run.begun
  }

  /** Ends a measurement that runs, and waits for its end. Idempotent. */
  async close(): Promise<void> {
    await this.#end(new MultifdError('ERR_MULTIFD_ABORTED', 'the measurement was cancelled'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #start(options: DirtyRateOptions): Run {
    const { calcTime, mode, samplePages } = this.#check(options)
    const { signal } = options
    if (signal?.aborted) throw cancelled(signal)
    for (const block of this.#ram) block.checkSame()
    const control = new ThreadControl()
    const { port1, port2 } = new MessageChannel()
    const blocks = this.#ram.map(({ handle }) => handle)
    const task: DirtyRateTask = { control: control.buffer, port: port2, blocks, mode, calcTime, samplePages }
    this.#latest = { status: 'measuring', mode, startTime: Date.now(), calcTime, samplePages }
    const heard = new Promise<void>((resolve) => {
      port1.once('message', () => resolve())
    })
    const abort = (): void => void this.#end(cancelled(signal!))
    signal?.addEventListener('abort', abort, { once: true })
    const forget = measureWithLogOf(mode, this.#ram, () =>
      this.#end(new MultifdError('ERR_MULTIFD_STATE', 'a migration or a snapshot began, which has the dirty log')),
    )
    const ended = inThread(task, control)
      .then((outcome) => this.#conclude(outcome))
      .finally(() => {
        signal?.removeEventListener('abort', abort)
        port1.close()
        this.#run = undefined
        forget()
      })
    const run = { control, begun: Promise.race([heard, ended.then(() => {})]), ended }
    run.begun.catch(() => {})
    this.#run = run
    return run
  }

  // QEMU's words, which its clients know.
  #check(options: DirtyRateOptions): { calcTime: number; mode: DirtyRateMode; samplePages: number } {
    const { calcTime = CALC_TIME.default, mode = 'page-sampling', samplePages } = options
    const wrong = (text: string): MultifdError => new MultifdError('ERR_MULTIFD_ARGUMENT', text)
    if (this.#run) throw new MultifdError('ERR_MULTIFD_STATE', 'the dirty rate is already being measured.')
    if (!isWithin(calcTime, CALC_TIME)) {
      throw wrong(`Calculation time is out of range [${CALC_TIME.least}ms, ${CALC_TIME.most}ms].`)
    }
    if (!DIRTY_RATE_MODES.includes(mode)) throw wrong(`mode '${mode}' is unknown`)
    if (samplePages !== undefined && mode !== 'page-sampling') {
      throw wrong('sample-pages is used only in page-sampling mode')
    }
    if (samplePages !== undefined && !isWithin(samplePages, SAMPLE_PAGES)) {
      throw wrong(`sample-pages is out of range[${SAMPLE_PAGES.least}, ${SAMPLE_PAGES.most}].`)
    }
    if (mode === 'dirty-ring') {
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', 'mode dirty-ring is not enabled, use other method instead.')
    }
    if (mode === 'dirty-bitmap' && isLogClaimed(this.#ram)) {
      throw new MultifdError('ERR_MULTIFD_STATE', 'a migration or a snapshot has the dirty log: use page-sampling')
    }
    if (mode === 'dirty-bitmap') requireDirtyLog('kernel')
    return { calcTime, mode, samplePages: mode === 'page-sampling' ? (samplePages ?? SAMPLE_PAGES.default) : 0 }
  }

  #conclude(outcome: DirtyRateOutcome): DirtyRate {
    const reason = this.#run?.reason
    if (reason || 'error' in outcome || 'stopped' in outcome) {
      this.#latest = UNSTARTED
      throw reason ?? ('error' in outcome ? MultifdError.fromPlain(outcome.error) : cancelled())
    }
    const bytesPerSecond = (outcome.bytes * 1000) / outcome.ms
    this.#latest = { ...this.#latest, status: 'measured', bytesPerSecond }
    return this.#latest
  }

  async #end(reason: MultifdError): Promise<void> {
    const run = this.#run
    if (!run) return
    run.reason ??= reason
    run.control.stop()
    await run.ended.catch(() => {})
  }
}

function isWithin(value: number, { least, most }: { least: number; most: number }): boolean {
  return Number.isInteger(value) && value >= least && value <= most
}

function cancelled(signal?: AbortSignal): MultifdError {
  return new MultifdError('ERR_MULTIFD_ABORTED', 'the measurement was cancelled', { cause: signal?.reason })
}

function measureWithLogOf(mode: DirtyRateMode, blocks: readonly RamBlock[], giveWay: () => Promise<void>): () => void {
  return mode === 'dirty-bitmap' ? measureWithLog({ blocks, giveWay }) : () => {}
}

async function inThread(task: DirtyRateTask, control: ThreadControl): Promise<DirtyRateOutcome> {
  const pool = takePool(new URL('../../workers/dirty-rate.js', import.meta.url), 1, 1)
  // A thread may not be ended while it loads native code: the process would abort.
  const onExit = (): void => {
    control.stop()
    control.waitLoaded(LOAD_MS)
  }
  process.once('exit', onExit)
  try {
    const outcome = (await pool.run(task, { transferList: [task.port] })) as DirtyRateOutcome
    keepPool(pool)
    return outcome
  } catch (cause) {
    await pool.destroy()
    const error = new MultifdError('ERR_MULTIFD_INTERNAL', 'the thread that measures died', { cause })
    return { error: error.toPlain() }
  } finally {
    process.off('exit', onExit)
  }
}
