// What the threads of both sides share: their place in the registry, their waits, and how they end.

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { MultifdError, type PlainError } from '../errors.js'
import type { WaitHook } from '../io/channel.js'
import type { Connection } from '../io/connection.js'
import { describe } from '../io/descriptor-channel.js'
import { type LogTask, ThreadLog } from '../log.js'
import { breakCalls, mendCalls } from '../os/broken-calls.js'
import { libc } from '../os/libc.js'
import { nameThread, restThread } from '../os/thread.js'
import { CHANNEL, CHANNEL_STATE } from '../shm/layout.js'
import { MigrationShm, type ShmHandle } from '../shm/migration-shm.js'

/** What every channel thread is started with. */
export interface ChannelTask {
  shm: ShmHandle
  /** The channel's number. */
  channel: number
  /** Where the coordinator's hand-overs come from, each followed by a post of the channel's semaphore. */
  port: MessagePort
  /** Longest time that a transfer may rest once it has begun. */
  stallTimeoutMs: number
  log?: LogTask
}

/** How a thread ended: with the migration's first error, or without one to tell. */
export interface ThreadOutcome {
  error?: PlainError
}

/** Thrown to leave a loop when another thread's failure, or the caller, stopped the migration. Never told. */
export class Stopped extends Error {}

/**
 * Runs a channel's loop from registration to deregistration: saved at its start, deleted at its end, and the first
 * failure of all threads claimed and told.
 */
export function runChannelThread(
  task: ChannelTask,
  name: string,
  loop: (shm: MigrationShm, log: ThreadLog) => void,
): ThreadOutcome {
  const shm = new MigrationShm(task.shm)
  const log = new ThreadLog(task.log)
  const { channel } = task
  noteLoaded(task.shm)
  try {
    const threadId = nameThread(name)
    shm.setChannelWord(channel, CHANNEL.tid, threadId)
    shm.setChannelWord(channel, CHANNEL.state, CHANNEL_STATE.running)
    log.debug({ threadId }, 'the thread runs')
    loop(shm, log)
    log.debug({}, 'the channel is at its end')
    return {}
  } catch (thrown) {
    if (thrown instanceof Stopped) return {}
    if (!shm.claimFailure(channel)) return {}
    return { error: MultifdError.from(thrown).onChannel(channel).toPlain() }
  } finally {
    mendCalls()
    if (shm.failedPlace !== undefined) shm.stop()
    shm.setChannelWord(channel, CHANNEL.state, CHANNEL_STATE.ended)
    shm.setChannelWord(channel, CHANNEL.tid, 0)
    // The coordinator's end goes with it. An open one stays on the heaps of both threads for as long as these live.
    task.port.close()
    restThread()
    shm.coordinator.post()
  }
}

/**
 * For a task's beginning, when everything is loaded: from here on the thread can be ended at any time. One that is ended
 * while it loads native code takes the process down with SIGABRT. Pairs with the wait at exit in threads.ts.
 */
export function noteLoaded(shm: ShmHandle): void {
  try {
    libc()
  } catch {
    // Whoever needs it first says what is missing.
  }
  new MigrationShm(shm).noteLoaded()
}

/** Breaks this thread's calls by the fault points that are armed, until its task ends. */
export function breakThread(shm: MigrationShm, side: 'source' | 'destination', { tls }: Connection): void {
  if (shm.faults) breakCalls(`${side} channel`, shm.faults, tls !== undefined)
}

/** Waits for the coordinator's next hand-over. */
export function waitHandOver<T>(shm: MigrationShm, task: ChannelTask): T {
  const wake = shm.wake(task.channel)
  while (!wake.wait(1000)) if (shm.stopped) throw new Stopped()
  if (shm.stopped) throw new Stopped()
  return takeHandOver<T>(task)!
}

/** The coordinator's next hand-over if it is there already. */
export function takeHandOver<T>(task: ChannelTask): T | undefined {
  return receiveMessageOnPort(task.port)?.message as T | undefined
}

/** Ends a channel's waits when the migration stops, or when a transfer rests for too long inside something. */
export function channelWait(shm: MigrationShm, channel: number, stallTimeoutMs: number): WaitHook {
  return (waitedMs, inside) => {
    if (shm.stopped) throw new Stopped()
    if (inside && stallTimeoutMs > 0 && waitedMs > stallTimeoutMs) {
      const message = `${describe(channel)}: stalled, no byte moved for ${stallTimeoutMs} ms`
      throw new MultifdError('ERR_MULTIFD_TIMEOUT', message, { channel })
    }
  }
}
