// A background snapshot: a program's memory as it is at one moment, into a file, while the program goes on.

import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { MultifdError, oneLine } from '../errors.js'
import { type Logger, noLogger } from '../log.js'
import { ProgramSave, programDevices } from '../migration/program-state.js'
import { PROGRAM_MACHINE_TYPE } from '../migration/source.js'
import { closeDescriptor } from '../os/socket.js'
import type { RamBlock } from '../ram/block.js'
import { BlockGuard } from '../ram/block-guard.js'
import { logFree } from '../ram/log-use.js'
import { requireWriteTracker } from '../ram/write-tracker.js'
import { FaultPoints } from '../shm/fault-points.js'
import { SaveControl } from '../shm/save-control.js'
import type { Device } from '../vmstate/device.js'
import { type DeviceSet, nameOf } from '../vmstate/device-set.js'
import { VIRTIO_MEM_EARLY_SUFFIX } from '../wire/virtio-mem.js'
import type { BackgroundMessage, BackgroundPages, BackgroundTask } from './background.js'
import { removePartial } from './target.js'

export interface SaveSnapshotOptions {
  /** The blocks to save. Sparse ones keep their maps as they are meanwhile. */
  ram: RamBlock[]
  /** Devices whose state at that moment goes into the file: saved once the program stands still. */
  devices?: Iterable<Device>
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
  /** Fault points that are armed, for tests: see docs/faults.md. */
  faults?: FaultPoints
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
 * writes can not be held up, or an early device, whose end nothing in a file tells; ERR_MULTIFD_FILE, also for a full disk;
 * ERR_MULTIFD_STATE when the program could not be stopped, or something else tracks its memory; ERR_MULTIFD_DEVICE, naming
 * it, when a device can not be saved; ERR_MULTIFD_ARGUMENT; ERR_MULTIFD_ABORTED. Whatever happens, nobody is held up
 * afterwards, the memory is as the program left it, and no part of a file stays
 */
export async function saveSnapshot(options: SaveSnapshotOptions): Promise<SavedSnapshot> {
  const { ram, signal } = options
  check(ram)
  const devices = programDevices(ram, options.devices)
  checkEarly(devices)
  requireWriteTracker()
  const free = logFree(ram)
  if (free) await free
  if (signal?.aborted) throw aborted(signal)
  const guard = new BlockGuard(ram, { tracked: true })
  try {
    return await save(options, new ProgramSave(devices, ram[0]!.pageSize), guard)
  } finally {
    guard.release()
  }
}

async function save(options: SaveSnapshotOptions, state: ProgramSave, guard: BlockGuard): Promise<SavedSnapshot> {
  const { signal, logger = noLogger } = options
  const began = performance.now()
  const thread = new SaveThread(options, state.extras.beforeRam)
  const abort = (): void => thread.control.stop()
  signal?.addEventListener('abort', abort, { once: true })
  try {
    await thread.expect('ready')
    const downtime = await standStill(options, thread, () => {
      guard.checkSame()
      return state.finish()
    })
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
}

function checkEarly({ devices }: DeviceSet): void {
  const early = devices.find((device) => device.early && !device.idstr.endsWith(VIRTIO_MEM_EARLY_SUFFIX))
  if (!early) return
  const message = `device ${nameOf(early)} is saved before RAM, and nothing in a snapshot tells where it ends`
  throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message)
}

function aborted(signal: AbortSignal): MultifdError {
  return new MultifdError('ERR_MULTIFD_ABORTED', 'the snapshot was cancelled', { cause: signal.reason })
}

// Returns for how long.
async function standStill(
  options: SaveSnapshotOptions,
  thread: SaveThread,
  saveDevices: () => Uint8Array,
): Promise<number> {
  const stopped = performance.now()
  try {
    await halt(options)
    // Before memory is protected: what a device writes there as it is saved is of that moment.
    thread.begin(saveDevices())
    await thread.expect('started')
    return performance.now() - stopped
  } finally {
    if (options.stop) await options.resume?.()
  }
}

async function halt({ stop }: SaveSnapshotOptions): Promise<void> {
  try {
    await stop?.()
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_STATE', `the program could not be stopped: ${oneLine(cause)}`, { cause })
  }
}

class SaveThread {
  readonly control = new SaveControl()
  /** Resolves when nothing of the thread is left. */
  readonly ended: Promise<void>
  // Whether it has said how it ended.
  #outcome = false
  #waiting: { resolve(message: BackgroundMessage): void } | undefined
  readonly #heard: BackgroundMessage[] = []
  readonly #port: MessagePort

  constructor({ ram, path, machineType = PROGRAM_MACHINE_TYPE, faults }: SaveSnapshotOptions, beforeRam: Uint8Array) {
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const blocks = ram.map(({ handle }) => handle)
    const { buffer: control } = this.control
    const armed = faults ?? FaultPoints.fromEnvironment('snapshot')
    armed?.checkSide('snapshot')
    const task: BackgroundTask = {
      ...{ control, port: port2, path, machineType, blocks, beforeRam },
      ...(armed && { faults: armed.words }),
    }
    const worker = new Worker(new URL('../../workers/snapshot.js', import.meta.url), {
      workerData: task,
      transferList: [port2],
      execArgv: [],
      // What it has open when it dies is closed here, and only once.
      trackUnmanagedFds: false,
    })
    // A process that exits waits for its threads, and those that wait for ours would never end.
    const onExit = (): void => {
      this.control.stop()
      this.control.waitGone(EXIT_MS)
    }
    process.once('exit', onExit)
    port1.on('message', (message: BackgroundMessage) => this.#hear(message))
    let cause: unknown
    worker.once('error', (error) => {
      cause = error
    })
    this.ended = new Promise<void>((resolve) => worker.once('exit', () => resolve())).then(() => {
      process.off('exit', onExit)
      // A thread that died can let nobody go by itself.
      for (const fd of this.control.descriptors().list()) closeDescriptor(fd)
      for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) this.#hear(last.message)
      port1.close()
      if (this.#outcome) return
      removePartial(path)
      const error = new MultifdError('ERR_MULTIFD_INTERNAL', 'the thread of the snapshot died', { cause })
      this.#hear({ type: 'failed', error: error.toPlain() })
    })
  }

  /** The program stands still: its memory is to be held now. Pairs with the thread's wait for `begin`. */
  begin(deviceState: Uint8Array): void {
    this.#port.postMessage(deviceState)
    this.control.begin.post()
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
    this.#outcome ||= message.type === 'saved' || message.type === 'failed'
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting) waiting.resolve(message)
    else this.#heard.push(message)
  }
}
