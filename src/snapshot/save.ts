// A background snapshot: a program's memory as it is at one moment, into a file, while the program goes on.

import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { MultifdError } from '../errors.js'
import { type Logger, noLogger } from '../log.js'
import { ProgramSave } from '../migration/program-state.js'
import { PROGRAM_MACHINE_TYPE } from '../migration/source.js'
import { closeDescriptor } from '../os/socket.js'
import type { RamBlock } from '../ram/block.js'
import { requireWriteTracker } from '../ram/write-tracker.js'
import { SaveControl } from '../shm/save-control.js'
import { oneLine } from '../vmstate/context.js'
import { DeviceSet } from '../vmstate/device-set.js'
import type { BackgroundMessage, BackgroundPages, BackgroundTask } from './background.js'

export interface SaveSnapshotOptions {
  /** The blocks to save. */
  ram: RamBlock[]
  /** The file; an existing one is replaced once everything is in it. */
  path: string
  /** Brings the program to a halt: after this resolves, no block changes until {@link resume}. That moment is saved. */
  stop?(): void | Promise<void>
  /** Lets it go on, milliseconds later. Called whenever `stop` was, whatever came of it. */
  resume?(): void | Promise<void>
  /** Default `multifd`. */
  machineType?: string
  /** Cancels: the file is removed, and the program goes on. */
  signal?: AbortSignal
  logger?: Logger
}

/** Times in ms. */
export interface SavedSnapshot {
  totalTime: number
  /** From the call of `stop` to that of `resume`. */
  downtime: number
  /** Pages: with data, zero, and those saved out of turn because a write to them waited. */
  pages: BackgroundPages
}

// Longest wait of a process that exits for its thread to let everybody go; it needs the time of one write to the file.
const EXIT_MS = 5000

/**
 * Saves blocks as they are at one moment, the one between `stop` and `resume`, into a mapped-ram file. The program goes on
 * meanwhile: its first write to a page that is not in the file yet waits until it is. Until everything is there the file is
 * named `<path>.partial`.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED when kernel or rights are lacking, or for a block on a disk's file, whose
 * writes can not be held up; ERR_MULTIFD_FILE, also for a full disk; ERR_MULTIFD_STATE when the program could not be
 * stopped, or something else tracks its memory; ERR_MULTIFD_ARGUMENT; ERR_MULTIFD_ABORTED. Whatever happens, nobody is held
 * up afterwards, the memory is as the program left it, and no part of a file stays
 */
export async function saveSnapshot(options: SaveSnapshotOptions): Promise<SavedSnapshot> {
  const { ram, logger = noLogger, signal } = options
  check(ram)
  requireWriteTracker()
  if (signal?.aborted) throw aborted(signal)
  const began = performance.now()
  const thread = new SaveThread(options)
  const abort = (): void => thread.control.stop()
  signal?.addEventListener('abort', abort, { once: true })
  try {
    await thread.expect('ready')
    const downtime = await standStill(options, thread)
    const { pages } = await thread.expect('saved')
    logger.info({ path: options.path, ...pages }, 'the snapshot is saved')
    return { totalTime: performance.now() - began, downtime, pages }
  } catch (error) {
    thread.control.stop()
    throw signal?.aborted ? aborted(signal) : error
  } finally {
    signal?.removeEventListener('abort', abort)
    await thread.ended
  }
}

function check(ram: RamBlock[]): void {
  const wrong = (text: string): MultifdError => new MultifdError('ERR_MULTIFD_ARGUMENT', text)
  if (ram.length === 0) throw wrong('there is no RAM block to save')
  if (new Set(ram.map(({ idstr }) => idstr)).size < ram.length) throw wrong('two RAM blocks have one name')
  if (ram.some(({ pageSize }) => pageSize !== ram[0]!.pageSize))
    throw wrong('the RAM blocks have pages of different sizes')
  for (const block of ram) block.checkSame()
}

function aborted(signal: AbortSignal): MultifdError {
  return new MultifdError('ERR_MULTIFD_ABORTED', 'the snapshot was cancelled', { cause: signal.reason })
}

// Returns for how long.
async function standStill(options: SaveSnapshotOptions, thread: SaveThread): Promise<number> {
  const stopped = performance.now()
  try {
    await halt(options)
    thread.control.begin.post()
    await thread.expect('started')
    return performance.now() - stopped
  } finally {
    if (options.stop) await options.resume?.()
  }
}

async function halt({ ram, stop }: SaveSnapshotOptions): Promise<void> {
  try {
    await stop?.()
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_STATE', `the program could not be stopped: ${oneLine(cause)}`, { cause })
  }
  for (const block of ram) block.checkSame()
}

class SaveThread {
  readonly control = new SaveControl()
  /** Resolves when nothing of the thread is left. */
  readonly ended: Promise<void>
  #waiting: { resolve(message: BackgroundMessage): void } | undefined
  readonly #heard: BackgroundMessage[] = []

  constructor({ ram, path, machineType = PROGRAM_MACHINE_TYPE }: SaveSnapshotOptions) {
    const { port1, port2 } = new MessageChannel()
    const deviceState = new ProgramSave(new DeviceSet([]), ram[0]!.pageSize).finish()
    const blocks = ram.map(({ handle }) => handle)
    const { buffer: control } = this.control
    const task: BackgroundTask = { control, port: port2, path, machineType, blocks, deviceState }
    const worker = new Worker(new URL('../../workers/snapshot.js', import.meta.url), {
      workerData: task,
      transferList: [port2],
      execArgv: [],
    })
    // A process that exits waits for its threads, and those that wait for ours would never end.
    const onExit = (): void => {
      this.control.stop()
      this.control.waitGone(EXIT_MS)
    }
    process.once('exit', onExit)
    port1.on('message', (message: BackgroundMessage) => this.#hear(message))
    this.ended = new Promise<unknown>((resolve) => {
      worker.once('error', resolve)
      worker.once('exit', () => resolve(undefined))
    }).then((cause) => {
      process.off('exit', onExit)
      // A thread that died can let nobody go by itself.
      const { holding } = this.control
      if (holding !== undefined) closeDescriptor(holding)
      for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) this.#hear(last.message)
      port1.close()
      const error = new MultifdError('ERR_MULTIFD_INTERNAL', 'the thread of the snapshot died', { cause })
      this.#hear({ type: 'failed', error: error.toPlain() })
    })
  }

  /** The thread's next message. @throws MultifdError its error when it has failed instead */
  async expect<T extends BackgroundMessage['type']>(type: T): Promise<Extract<BackgroundMessage, { type: T }>> {
    const message =
      this.#heard.shift() ??
      (await new Promise<BackgroundMessage>((resolve) => {
        this.#waiting = { resolve }
      }))
    if (message.type === 'failed') throw MultifdError.fromPlain(message.error)
    if (message.type !== type) throw new MultifdError('ERR_MULTIFD_INTERNAL', `'${message.type}' instead of '${type}'`)
    return message as Extract<BackgroundMessage, { type: T }>
  }

  #hear(message: BackgroundMessage): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting) waiting.resolve(message)
    else this.#heard.push(message)
  }
}
