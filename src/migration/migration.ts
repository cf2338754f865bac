// What a source and a destination have in common for the program that embeds them: state, figures, events, the end.

import { EventEmitter } from 'node:events'
import { MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import { noLogger } from '../log.js'
import type { RamBlock } from '../ram/block.js'
import { FaultPoints } from '../shm/fault-points.js'
import { TlsContext } from '../tls/context.js'
import type { CoordinatorMessage } from './messages.js'
import { changedWhileRunning, completeParameters, type MigrationParameters } from './parameters.js'
import { type Figures, type MigrationStatistics, type PassInfo, readStatistics } from './statistics.js'
import { MigrationState, type MigrationStatus } from './status.js'
import { MigrationThreads, type ThreadInfo, type ThreadsOptions } from './threads.js'

export interface MigrationEvents {
  status: [status: MigrationStatus]
  /** A pass begins, from 1 on; the one after the program has stopped is the last. */
  passBegin: [pass: number]
  /** A pass has ended, and it was not the last. */
  pass: [info: PassInfo]
  /** Source: the program stands still. */
  stop: []
  /** Source: it goes on, as the migration failed or was cancelled. */
  resume: []
}

export interface RunOptions
  extends Omit<ThreadsOptions, 'onMessage' | 'parameters' | 'channels' | 'pagesPerPacket' | 'failure' | 'logger'> {
  pageSize: number
  totalBytes: number
  signal: AbortSignal
  /** What one side alone is told. */
  onMessage?(message: CoordinatorMessage, threads: MigrationThreads): void
}

/** Of one migration, from the moment that it was asked for. */
export interface Cancellation {
  readonly signal: AbortSignal
  release(): void
}

/** How a migration ends. */
export type Outcome = 'completed' | 'failed' | 'cancelled'

function isOutcome(status: MigrationStatus): status is Outcome {
  return status === 'completed' || status === 'failed' || status === 'cancelled'
}

const PACKET_BYTES = 524288

export abstract class Migration extends EventEmitter<MigrationEvents> {
  protected readonly logger: Logger
  protected readonly state: MigrationState
  #parameters: MigrationParameters
  #error: MultifdError | undefined
  readonly #cancellable = new Set<AbortController>()
  readonly #outcomes = { completed: 0, failed: 0, cancelled: 0 }
  /** How long the program ran on after the coordinator wanted it stopped, ms: no downtime of its. */
  protected ranOn = 0
  #threads: MigrationThreads | undefined
  #figures: Partial<Figures> = {}
  #began = 0
  #setupTime: number | undefined
  #doneTime: number | undefined
  #totalTime: number | undefined
  #pageSize = 0
  #totalBytes = 0
  #xbzrleCacheSize: number | undefined

  protected constructor(parameters: MigrationParameters, logger: Logger | undefined) {
    super()
    this.#parameters = parameters
    this.logger = logger ?? noLogger
    this.state = new MigrationState((status) => {
      if (isOutcome(status)) this.#outcomes[status]++
      this.logger.debug({ status }, 'migration status')
      this.emit('status', status)
    })
  }

  /** The state, as query-migrate names it. */
  get status(): MigrationStatus {
    return this.state.status
  }

  /** Migrations so far, by how they ended. */
  get outcomes(): Readonly<Record<Outcome, number>> {
    return this.#outcomes
  }

  /** The program's blocks that are sent or received into; none where a file or a guest is received. */
  abstract get memory(): readonly RamBlock[]

  /** What holds; for the next migration where it can not be changed in this one. */
  get parameters(): Readonly<MigrationParameters> {
    return this.#parameters
  }

  /**
   * Changes parameters. While a migration runs it is `maxBandwidth` and `downtimeLimit` that can be changed, and they hold
   * at once.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT as the constructor; ERR_MULTIFD_STATE for another one while a migration runs;
   * nothing is changed then
   */
  setParameters(parameters: Partial<MigrationParameters>): void {
    const next = completeParameters({ ...this.#parameters, ...parameters })
    this.checkParameters(next)
    if (this.state.running) {
      const fixed = changedWhileRunning(this.#parameters, next)
      if (fixed) throw new MultifdError('ERR_MULTIFD_STATE', `parameter '${fixed}' can not be changed in mid-migration`)
      this.#threads?.limit(next)
    }
    this.#parameters = next
  }

  /** What the coordinator's thread would have done at its end; called where it died. */
  protected tidyUp(): void {}

  /** What one side alone knows of parameters. @throws MultifdError ERR_MULTIFD_ARGUMENT */
  protected checkParameters(_parameters: MigrationParameters): void {}

  /** The figures at this instant, as query-migrate has them; undefined before the first migration. */
  statistics(): MigrationStatistics | undefined {
    if (!this.#threads) return undefined
    return readStatistics({
      shm: this.#threads.shm,
      status: this.state.status,
      totalTime: this.#totalTime ?? performance.now() - this.#began,
      totalBytes: this.#totalBytes,
      pageSize: this.#pageSize,
      setupTime: this.#setupTime,
      figures: this.#figures,
      xbzrleCacheSize: this.#xbzrleCacheSize,
      errorDesc: this.state.status === 'failed' ? this.#error?.message : undefined,
    })
  }

  /** The live threads of the migration, by QEMU's names and with the operating system's ids. */
  threads(): ThreadInfo[] {
    return this.#threads?.list() ?? []
  }

  /**
   * Cancels the migration that runs or is about to, whatever it does at the moment; without one, nothing happens. The
   * program goes on, and the other side ends by itself.
   *
   * @param reason the `cause` of the error that the migration ends with
   */
  cancel(reason?: unknown): void {
    for (const controller of this.#cancellable) controller.abort(reason)
  }

  /**
   * Breaks the connections of the migration that runs, as if the network had: it fails. For one whose peer hangs, and that
   * is not to be taken for cancelled. Without one, nothing happens.
   */
  yank(): void {
    if (!this.state.running) return
    this.#threads?.fail(new MultifdError('ERR_MULTIFD_CLOSED', 'the connections were broken on request (yank)'))
  }

  /** Cancels a migration that runs, and waits until nothing of it is left: no thread, no descriptor. Idempotent. */
  async close(): Promise<void> {
    this.cancel(new MultifdError('ERR_MULTIFD_STATE', 'it was closed'))
    await this.settled()
  }

  /** What {@link cancel} and the caller's own signal abort, from now until `release`. */
  protected cancellation(signal: AbortSignal | undefined): Cancellation {
    const controller = new AbortController()
    const abort = (): void => controller.abort(signal!.reason)
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    this.#cancellable.add(controller)
    return {
      signal: controller.signal,
      release: () => {
        this.#cancellable.delete(controller)
        signal?.removeEventListener('abort', abort)
      },
    }
  }

  /** The credentials of the parameters, if there are any. Whoever opens them gives them to {@link run}, or closes them. */
  protected openTls(role: 'client' | 'server', host?: string): TlsContext | undefined {
    const { tls } = this.#parameters
    return tls && new TlsContext(tls, role, host)
  }

  /** Waits until the threads of the migration before are gone. */
  protected async settled(): Promise<void> {
    await this.#threads?.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Runs one migration in its threads; resolves to its figures, rejects with its first error. */
  protected async run(options: RunOptions): Promise<MigrationStatistics> {
    const { signal, onMessage, pageSize, totalBytes, ...rest } = options
    const { multifd, multifdChannels, xbzrle, xbzrleCacheSize } = this.parameters
    let done: () => void
    const hasEverything = new Promise<undefined>((resolve) => {
      done = () => resolve(undefined)
    })
    this.#began = performance.now()
    this.#setupTime = undefined
    this.#doneTime = undefined
    this.#totalTime = undefined
    this.#figures = {}
    this.#error = undefined
    this.ranOn = 0
    this.#pageSize = pageSize
    this.#totalBytes = totalBytes
    this.#xbzrleCacheSize = rest.side === 'src' && xbzrle ? xbzrleCacheSize : undefined
    const cancelled = (): MultifdError => {
      return new MultifdError('ERR_MULTIFD_ABORTED', 'the migration was cancelled', { cause: signal.reason })
    }
    const threads: MigrationThreads = this.#start({
      ...rest,
      ...(signal.aborted && { failure: cancelled() }),
      channels: multifd ? multifdChannels : 0,
      pagesPerPacket: PACKET_BYTES / pageSize,
      parameters: this.parameters,
      logger: this.logger,
      onMessage: (message) => {
        this.#hear(message)
        if (message.type === 'done') done()
        onMessage?.(message, threads)
      },
    })
    this.#threads = threads
    this.state.become('setup')
    let over = false
    const abort = (): void => {
      if (over) return
      if (this.state.allows('cancelling')) this.state.become('cancelling')
      threads.fail(cancelled())
    }
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    // What is left after that is the threads' own end, which nobody has to wait for; see `close`.
    const error = await Promise.race([threads.ended, hasEverything])
    over = true
    this.#totalTime = (error ? undefined : this.#doneTime) ?? performance.now() - this.#began
    if (threads.coordinatorDied) this.tidyUp()
    if (error) throw this.#failed(error)
    this.state.become('completed')
    return this.statistics()!
  }

  // What it takes to start them may be missing.
  #start(options: ThreadsOptions): MigrationThreads {
    try {
      return new MigrationThreads({ ...options, faults: armedFaults(options) })
    } catch (thrown) {
      options.tls?.close()
      this.#threads = undefined
      this.state.become('setup')
      throw this.#failed(MultifdError.from(thrown))
    }
  }

  #failed(error: MultifdError): MultifdError {
    this.#error = error
    this.state.become(error.code === 'ERR_MULTIFD_ABORTED' ? 'cancelled' : 'failed')
    this.logger.error({ code: error.code, channel: error.channel }, error.message)
    return error
  }

  #takeFigures({ downtime, ...figures }: Partial<Figures>): void {
    Object.assign(this.#figures, figures)
    if (downtime !== undefined) this.#figures.downtime = Math.max(0, downtime - this.ranOn)
  }

  #hear(message: CoordinatorMessage): void {
    if (message.type === 'figures') this.#takeFigures(message.figures)
    else if (message.type === 'pass-begins') this.emit('passBegin', message.pass)
    else if (message.type === 'pass') {
      this.logger.debug(message.info, 'pass')
      this.emit('pass', message.info)
    } else if (message.type === 'warning') this.logger.warn({}, message.text)
    else if (message.type === 'set-up') {
      this.#pageSize = message.pageSize
      this.#totalBytes = message.blocks.reduce((sum, { size }) => sum + size, 0)
    } else if (message.type === 'done') this.#doneTime = performance.now() - this.#began
    else if (message.type === 'active') {
      this.#setupTime = performance.now() - this.#began
      // One that is cancelled meanwhile may not know it yet.
      if (this.state.allows('active')) this.state.become('active')
    }
  }
}

function armedFaults({ side, faults }: Pick<ThreadsOptions, 'side' | 'faults'>): FaultPoints | undefined {
  const name = side === 'src' ? 'source' : 'destination'
  const armed = faults ?? FaultPoints.fromEnvironment(name)
  armed?.checkSide(name)
  return armed
}
