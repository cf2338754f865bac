// What the coordinators of both sides share: descriptors, waits, hand-overs to the channels, and the orderly end.

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { channelWait, Stopped, type ThreadOutcome } from '../channel/thread.js'
import { MultifdError } from '../errors.js'
import type { Channel, WaitHook } from '../io/channel.js'
import { type Connection, closeConnection, openChannel } from '../io/connection.js'
import { describe } from '../io/descriptor-channel.js'
import { type LogTask, ThreadLog } from '../log.js'
import { breakCalls, mendCalls } from '../os/broken-calls.js'
import { noteDescriptors, noteOpened } from '../os/descriptors.js'
import { shutdownBoth } from '../os/socket.js'
import { nameThread, restThread } from '../os/thread.js'
import { CHANNEL, CHANNEL_STATE, COUNTER, LIMIT } from '../shm/layout.js'
import { MigrationShm, type ShmHandle } from '../shm/migration-shm.js'
import type { TlsContextHandle } from '../tls/context.js'
import type { CoordinatorMessage } from './messages.js'
import type { MigrationParameters } from './parameters.js'
import { movedPages } from './statistics.js'

const THREADS_END_MS = 10_000
/** Longest time between two looks whether the migration goes on. */
export const LOOK_MS = 100

/** What every coordinator is started with. */
export interface CoordinatorTask {
  shm: ShmHandle
  /** To each channel's thread, by channel number. */
  ports: MessagePort[]
  /** To the embedding thread, and its answers from there. */
  toProgram: MessagePort
  parameters: MigrationParameters
  /** What connections are made of where the parameters have TLS. */
  tls?: TlsContextHandle
  log?: LogTask
}

/** The coordinator of one migration, in its own thread. */
export class Coordinator {
  readonly shm: MigrationShm
  readonly parameters: MigrationParameters
  readonly tls: TlsContextHandle | undefined
  readonly log: ThreadLog
  readonly #task: CoordinatorTask
  readonly #connections: Connection[] = []
  #main: Channel | undefined
  #progress = -1
  #progressAt = 0

  constructor(task: CoordinatorTask) {
    this.shm = new MigrationShm(task.shm)
    this.parameters = task.parameters
    this.tls = task.tls
    this.log = new ThreadLog(task.log)
    this.#task = task
  }

  /**
   * Runs `body` from registration to deregistration; every connection it took is closed when it returns.
   *
   * @param name the thread's, for the operating system
   */
  static run(
    task: CoordinatorTask,
    side: 'src' | 'dst',
    body: (coordinator: Coordinator) => void,
    name = `mig/${side}/main`,
  ): ThreadOutcome {
    const coordinator = new Coordinator(task)
    const { shm } = coordinator
    const threadId = nameThread(name)
    shm.setCounter(shm.coordinatorPlace, COUNTER.tid, threadId)
    coordinator.log.debug({ threadId, channels: shm.channels }, 'the thread runs')
    noteDescriptors(shm.descriptors())
    let outcome: ThreadOutcome = {}
    const { faults } = shm
    if (faults) breakCalls(side === 'src' ? 'source main' : 'destination main', faults, task.tls !== undefined)
    try {
      body(coordinator)
    } catch (thrown) {
      if (!(thrown instanceof Stopped) && shm.claimFailure(shm.coordinatorPlace)) {
        outcome = { error: MultifdError.from(thrown).toPlain() }
      }
      shm.stop()
    }
    mendCalls()
    coordinator.#finish()
    coordinator.log.debug({}, 'every channel is at its end')
    shm.setCounter(shm.coordinatorPlace, COUNTER.tid, 0)
    restThread()
    return outcome
  }

  /** Bytes a second at the moment, 0 for no limit. */
  get maxBandwidth(): number {
    return this.shm.limit(LIMIT.maxBandwidth)
  }

  /** Of the moment, ms. */
  get downtimeLimit(): number {
    return this.shm.limit(LIMIT.downtimeLimit)
  }

  /** A pass of the source's begins: counts it, and tells. Returns its number, from 1 on. */
  beginPass(): number {
    const { shm } = this
    shm.count(shm.coordinatorPlace, COUNTER.passes, 1)
    const pass = shm.counter(shm.coordinatorPlace, COUNTER.passes)
    this.tell({ type: 'pass-begins', pass })
    return pass
  }

  /** What is left to send at this moment, bytes: it becomes less as pages go, until the next look. */
  setRemaining(bytes: number): void {
    const { shm } = this
    shm.setCounter(shm.coordinatorPlace, COUNTER.movedAtLook, movedPages(shm))
    shm.setCounter(shm.coordinatorPlace, COUNTER.remaining, bytes)
  }

  /** Takes a connection over: it is closed when the migration ends, after every thread that uses it. */
  own(connection: Connection): Connection {
    this.#connections.push(connection)
    return connection
  }

  /** The main channel over a connection, which is taken over. */
  openMain(connection: Connection, wait: WaitHook): Channel {
    // It may have been opened by somebody else.
    noteOpened(connection.fd)
    this.#main = openChannel(connection, 'main', wait)
    // It closes the connection itself: a second close could hit somebody else's of the same number.
    const owned = this.#connections.indexOf(connection)
    if (owned >= 0) this.#connections.splice(owned, 1)
    return this.#main
  }

  /** Hands something over to a channel's thread. Pairs with waitHandOver and takeHandOver there. */
  handOver(channel: number, message: object, wake: boolean): void {
    this.#task.ports[channel]!.postMessage(message)
    if (wake) this.shm.wake(channel).post()
  }

  tell(message: CoordinatorMessage): void {
    this.#task.toProgram.postMessage(message)
  }

  /**
   * Asks the embedding program something and waits for its answer. Pairs with `answer` in threads.ts.
   *
   * @param meanwhile is called now and then
   */
  ask<Answer = undefined>(message: CoordinatorMessage, meanwhile: () => void = () => {}): Answer {
    this.tell(message)
    while (!this.shm.answers.wait(LOOK_MS)) {
      this.checkStopped()
      meanwhile()
    }
    this.checkStopped()
    this.noteProgress()
    return receiveMessageOnPort(this.#task.toProgram)?.message as Answer
  }

  checkStopped(): void {
    if (this.shm.stopped) throw new Stopped()
  }

  /**
   * Waits until `done`, waking whenever a channel reports. `stalled` makes the error when nothing moves for too long.
   *
   * @param options.quiet is called whenever no channel had anything to report for a while
   * @param options.wait waits shortly where it is not for a thread's report; whether anything came
   */
  waitFor(done: () => boolean, stalled: () => string, options: { quiet?(): void; wait?(): boolean } = {}): void {
    const { quiet, wait = () => this.shm.coordinator.wait(LOOK_MS) } = options
    this.noteProgress()
    while (!done()) {
      this.checkStopped()
      if (wait()) continue
      quiet?.()
      this.checkProgress(stalled)
    }
    this.checkStopped()
  }

  /** Restarts the clock of {@link checkProgress}. */
  noteProgress(): void {
    this.#progress = -1
  }

  /** Fails when no thread moved a byte for the stall timeout. */
  checkProgress(stalled: () => string): void {
    const now = performance.now()
    const progress = this.shm.sum(COUNTER.bytes, true)
    if (progress !== this.#progress) {
      this.#progress = progress
      this.#progressAt = now
      return
    }
    const { stallTimeoutMs } = this.parameters
    if (stallTimeoutMs > 0 && now - this.#progressAt > stallTimeoutMs) {
      throw new MultifdError('ERR_MULTIFD_TIMEOUT', `${stalled()} for ${stallTimeoutMs} ms`)
    }
  }

  /** Whether a channel's thread has ended, or was never needed. */
  channelEnded(channel: number): boolean {
    const state = this.shm.channelWord(channel, CHANNEL.state)
    return state === CHANNEL_STATE.ended || state === CHANNEL_STATE.absent
  }

  /** The wait of a channel's connection while it is the coordinator's. */
  channelWait(channel: number): WaitHook {
    return channelWait(this.shm, channel, this.parameters.stallTimeoutMs)
  }

  /** The first channel that has had fewer SYNCs than `syncs`. */
  firstShortOf(syncs: number): number | undefined {
    for (let channel = 0; channel < this.shm.channels; channel++) if (this.shm.syncs(channel) < syncs) return channel
    return undefined
  }

  // Stops what still runs, waits for the channel threads, and only then closes: a descriptor's number may be anyone's
  // as soon as it is closed.
  #finish(): void {
    if (this.shm.stopped) {
      for (const { fd } of this.#connections) shutdownBoth(fd)
      this.#main?.shutdown()
    }
    const deadline = performance.now() + THREADS_END_MS
    for (let channel = 0; channel < this.shm.channels; channel++) {
      while (!this.channelEnded(channel) && performance.now() < deadline) {
        if (this.shm.stopped) this.shm.wake(channel).post()
        this.shm.coordinator.wait(LOOK_MS)
      }
    }
    for (const connection of this.#connections) closeConnection(connection)
    this.#main?.close()
  }
}

/** "channel 3" or "channels 1, 2" of the channels that `which` picks. */
export function nameChannels(count: number, which: (channel: number) => boolean): string {
  const picked = Array.from({ length: count }, (_, channel) => channel).filter(which)
  return picked.length === 1 ? describe(picked[0]!) : `channels ${picked.join(', ')}`
}
