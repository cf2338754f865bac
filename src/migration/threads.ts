// The threads of one migration as the embedding thread sees them: started together, heard, and gone together.

import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import type { Piscina } from 'piscina'
import type { ChannelTask, ThreadOutcome } from '../channel/thread.js'
import { MultifdError, type PlainError } from '../errors.js'
import type { Logger } from '../log.js'
import { delayOptimizing } from '../os/engine.js'
import { closeDescriptor, shutdownBoth } from '../os/socket.js'
import type { FaultPoints } from '../shm/fault-points.js'
import { CHANNEL, CHANNEL_STATE, COUNTER, LIMIT } from '../shm/layout.js'
import { MigrationShm } from '../shm/migration-shm.js'
import type { TlsContext } from '../tls/context.js'
import type { CoordinatorTask } from './coordinator.js'
import type { CoordinatorMessage } from './messages.js'
import type { MigrationParameters } from './parameters.js'
import { openThreadLog } from './thread-logs.js'
import { keepPool, takePool } from './thread-pools.js'

/** A live thread of the migration, as query-migrationthreads has it. */
export interface ThreadInfo {
  name: string
  /** Of the operating system. */
  threadId: number
}

export interface ThreadsOptions {
  side: 'src' | 'dst'
  /** Entry file of the coordinator's worker, and of the channels'. */
  coordinator: URL
  channel: URL
  /** Multifd channels, 0 for the single-channel stream. */
  channels: number
  pagesPerPacket: number
  /** Source: words of the bitmaps of pages to be sent. */
  dirtyWords: number
  /** Channels whose threads start at once; the coordinator asks for the others'. */
  startAtOnce: number
  parameters: MigrationParameters
  tls: TlsContext | undefined
  /** What the coordinator is started with besides {@link CoordinatorTask}. */
  plan: object
  /** What a channel is started with besides {@link ChannelTask}. */
  channelPlan: object
  onMessage(message: CoordinatorMessage): void
  logger: Logger
  /** Where it is over before it begins. */
  failure?: MultifdError
  faults?: FaultPoints | undefined
}

// Longest wait, when the process exits, for threads that have only just started; they need a fraction of it.
const LOAD_MS = 500

// Only the process itself knows that it exits: its threads must leave their system calls, which it waits for.
const running = new Set<MigrationShm>()
function stopAll(): void {
  for (const shm of running) shm.stop()
  // Nor may one be ended while it loads native code: the process would abort.
  const deadline = performance.now() + LOAD_MS
  for (const shm of running) shm.waitLoaded(deadline - performance.now())
}

export class MigrationThreads {
  readonly shm: MigrationShm
  /** Settles when every thread has ended: undefined, or the error that came first. Never rejects. */
  readonly ended: Promise<MultifdError | undefined>
  readonly #side: 'src' | 'dst'
  #embeddingError: MultifdError | undefined
  #died = false
  #coordinatorDied = false
  #toCoordinator: MessagePort | undefined

  constructor(options: ThreadsOptions) {
    const { channels, pagesPerPacket, dirtyWords } = options
    this.#side = options.side
    this.shm = MigrationShm.create({ channels, pagesPerPacket, dirtyWords }, options.faults)
    this.limit(options.parameters)
    // Before a thread has it: one that is warm could come first with an error of its own.
    if (options.failure) this.fail(options.failure)
    this.ended = this.#run(options)
  }

  /** Whether nobody was left to tidy up in the coordinator's thread. */
  get coordinatorDied(): boolean {
    return this.#coordinatorDied
  }

  /** Lets these hold from now on. */
  limit({ maxBandwidth, downtimeLimit }: Pick<MigrationParameters, 'maxBandwidth' | 'downtimeLimit'>): void {
    this.shm.setLimit(LIMIT.maxBandwidth, maxBandwidth)
    this.shm.setLimit(LIMIT.downtimeLimit, downtimeLimit)
  }

  /** The live threads, at this instant. */
  list(): ThreadInfo[] {
    const { shm } = this
    const threads = [{ name: this.#coordinatorName, threadId: shm.counter(shm.coordinatorPlace, COUNTER.tid) }]
    for (let channel = 0; channel < shm.channels; channel++) {
      threads.push({ name: this.#channelName(channel), threadId: shm.channelWord(channel, CHANNEL.tid) })
    }
    return threads.filter(({ threadId }) => threadId !== 0)
  }

  get #coordinatorName(): string {
    return `mig/${this.#side}/main`
  }

  #channelName(channel: number): string {
    return `mig/${this.#side}/${this.#side === 'src' ? 'send' : 'recv'}_${channel}`
  }

  /** Answers what the coordinator asked. Pairs with `ask` there: the message is on its way before it is told of it. */
  answer(message?: object): void {
    this.#toCoordinator?.postMessage(message)
    this.shm.answers.post()
  }

  /** Stops everything with an error of the embedding thread's, unless another came first. */
  fail(error: MultifdError): void {
    // One place past the coordinator's is the embedding thread's.
    if (this.shm.claimFailure(this.shm.coordinatorPlace + 1)) this.#embeddingError = error
    this.shm.stop()
  }

  async #run(options: ThreadsOptions): Promise<MultifdError | undefined> {
    const { shm } = this
    delayOptimizing()
    if (running.size === 0) process.on('exit', stopAll)
    running.add(shm)
    const outcomes: (ThreadOutcome | undefined)[] = []
    const channelTasks: Promise<void>[] = []
    const pools: Piscina[] = []
    const take = (file: URL, threads: number, atOnce: number): Piscina => {
      const pool = takePool(file, threads, atOnce)
      pools.push(pool)
      return pool
    }
    try {
      const channels = shm.channels === 0 ? undefined : take(options.channel, shm.channels, options.startAtOnce)
      const links = Array.from({ length: shm.channels }, () => new MessageChannel())
      const start = (channel: number): void => {
        channelTasks.push(this.#runChannel(channels!, options, channel, links[channel]!.port2, outcomes))
      }
      for (let channel = 0; channel < Math.min(options.startAtOnce, shm.channels); channel++) start(channel)
      outcomes[shm.coordinatorPlace] = await this.#runCoordinator(
        take(options.coordinator, 1, 1),
        options,
        links,
        start,
      )
      await Promise.all(channelTasks)
      // A coordinator closes its own, unless it died.
      for (const fd of shm.descriptors().list()) closeDescriptor(fd)
      for (const { port1, port2 } of links) {
        port1.close()
        port2.close()
      }
    } finally {
      await Promise.all(pools.map((pool) => (this.#died ? pool.destroy() : keepPool(pool))))
      shm.giveBack()
      options.tls?.close()
      running.delete(shm)
      if (running.size === 0) process.off('exit', stopAll)
    }
    return this.#firstError(outcomes)
  }

  async #runChannel(
    pool: Piscina,
    options: ThreadsOptions,
    channel: number,
    port: MessagePort,
    outcomes: (ThreadOutcome | undefined)[],
  ): Promise<void> {
    const { shm } = this
    const { stallTimeoutMs } = options.parameters
    const thread = this.#channelName(channel)
    const log = openThreadLog(options.logger, { thread, channel })
    const logged = log.task && { log: log.task }
    const task: ChannelTask = { ...options.channelPlan, shm: shm.handle, channel, port, stallTimeoutMs, ...logged }
    shm.setChannelWord(channel, CHANNEL.state, CHANNEL_STATE.starting)
    shm.noteStarting()
    try {
      shm.faults?.fail('channel-start-fails')
      const transferList = log.task ? [port, log.task.port] : [port]
      outcomes[channel] = (await pool.run(task, { transferList })) as ThreadOutcome
    } catch (cause) {
      this.#died = true
      this.fail(new MultifdError('ERR_MULTIFD_INTERNAL', `thread of channel ${channel} died`, { channel, cause }))
      // The coordinator waits for a word from it.
      shm.setChannelWord(channel, CHANNEL.state, CHANNEL_STATE.ended)
    } finally {
      log.close()
    }
  }

  async #runCoordinator(
    pool: Piscina,
    options: ThreadsOptions,
    links: MessageChannel[],
    startChannel: (channel: number) => void,
  ): Promise<ThreadOutcome> {
    const { port1, port2 } = new MessageChannel()
    this.#toCoordinator = port1
    const ports = links.map((link) => link.port1)
    const { parameters, tls } = options
    const log = openThreadLog(options.logger, { thread: this.#coordinatorName })
    const task: CoordinatorTask = {
      ...{ shm: this.shm.handle, ports, toProgram: port2, parameters },
      ...(tls && { tls: tls.handle }),
      ...(log.task && { log: log.task }),
    }
    const hear = (message: CoordinatorMessage): void => {
      if (message.type === 'start-channel') startChannel(message.channel)
      else options.onMessage(message)
    }
    port1.on('message', hear)
    this.shm.noteStarting()
    let outcome: ThreadOutcome = {}
    try {
      this.shm.faults?.fail('main-start-fails')
      const transferList = [port2, ...ports, ...(log.task ? [log.task.port] : [])]
      outcome = (await pool.run({ ...options.plan, ...task }, { transferList })) as ThreadOutcome
    } catch (cause) {
      this.#died = true
      this.#coordinatorDied = true
      this.fail(new MultifdError('ERR_MULTIFD_INTERNAL', 'the coordinator thread died', { cause }))
      // Wakes the channels' threads, and tells the other side.
      for (const fd of this.shm.descriptors().list()) shutdownBoth(fd)
    }
    // What it said last may not have been heard yet.
    port1.off('message', hear)
    for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) hear(last.message)
    log.close()
    this.#toCoordinator = undefined
    port1.close()
    return outcome
  }

  #firstError(outcomes: (ThreadOutcome | undefined)[]): MultifdError | undefined {
    const place = this.shm.failedPlace
    if (place === undefined) return undefined
    const plain: PlainError | undefined = outcomes[place]?.error
    if (plain) return MultifdError.fromPlain(plain)
    return this.#embeddingError ?? new MultifdError('ERR_MULTIFD_INTERNAL', 'a thread failed without a word')
  }
}
