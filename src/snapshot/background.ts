// The thread of a background snapshot: memory as it was at one moment goes into a file while the program writes to it.
//
// From the moment on, the first write to each page waits until the page is in the file. Pages are saved in order, and
// between two pieces those whose writers wait.

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import { MultifdError, type PlainError } from '../errors.js'
import { breakCalls, mendCalls } from '../os/broken-calls.js'
import { noteDescriptors } from '../os/descriptors.js'
import { nameThread } from '../os/thread.js'
import { RamBlock, type RamBlockHandle } from '../ram/block.js'
import type { FileLoadBlock } from '../ram/file-load-block.js'
import { WriteTracker } from '../ram/write-tracker.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { FaultPoints } from '../shm/fault-points.js'
import { SaveControl } from '../shm/save-control.js'
import { SnapshotTarget } from './target.js'

export interface BackgroundTask {
  control: SharedArrayBuffer
  port: MessagePort
  path: string
  machineType: string
  blocks: RamBlockHandle[]
  /** The maps of sparse blocks, which come before the RAM in the file. */
  beforeRam: Uint8Array
  /** Of the fault points, where any is armed. */
  faults?: Int32Array<SharedArrayBuffer>
}

/** What the thread says. Each but the last asks for something: to stop the program, and to let it go on. */
export type BackgroundMessage =
  | { type: 'ready' }
  | { type: 'started' }
  | { type: 'saved'; pages: BackgroundPages }
  | { type: 'failed'; error: PlainError }

export interface BackgroundPages {
  /** With data, and zero. */
  normal: number
  duplicate: number
  /** Saved out of turn, for a writer that waited. */
  held: number
}

// Longest that a writer waits for others' pages: what one write to the file takes.
const PIECE_BYTES = 512 * 1024
const LOOK_MS = 100
const RAM_SECTION = 0
const NOTHING = new Uint8Array()

export function runBackgroundSave(task: BackgroundTask): void {
  const control = new SaveControl(task.control)
  const say = (message: BackgroundMessage): void => task.port.postMessage(message)
  nameThread('mig/snapshot')
  noteDescriptors(control.descriptors())
  let target: SnapshotTarget | undefined
  let save: BackgroundSave | undefined
  if (task.faults) breakCalls('snapshot', new FaultPoints(task.faults), false)
  try {
    target = new SnapshotTarget(task.path, task.machineType)
    save = new BackgroundSave(task, target, control)
    say({ type: 'ready' })
    const deviceState = save.start()
    say({ type: 'started' })
    const pages = save.run()
    target.complete({ afterRam: NOTHING, switchoverStart: false, deviceState })
    say({ type: 'saved', pages })
  } catch (thrown) {
    mendCalls()
    // Whatever else there is to do: nobody waits any more.
    save?.stop()
    say({ type: 'failed', error: MultifdError.from(thrown).toPlain() })
  } finally {
    target?.close()
    task.port.close()
  }
}

interface SavedBlock {
  block: RamBlock
  load: FileLoadBlock
  saved: SharedBitmap
}

class BackgroundSave {
  readonly #control: SaveControl
  readonly #port: MessagePort
  readonly #blocks: SavedBlock[]
  readonly #tracker = new WriteTracker()
  #held = 0
  #discarded = 0

  constructor(
    { blocks: handles, machineType, beforeRam, port }: BackgroundTask,
    target: SnapshotTarget,
    control: SaveControl,
  ) {
    const blocks = handles.map((handle) => RamBlock.from(handle))
    const loads = target.setUp({
      configuration: { machineType },
      blocks: blocks.map(({ idstr, size }) => ({ idstr, usedLength: size })),
      pageSize: blocks[0]!.pageSize,
      ramSectionId: RAM_SECTION,
      beforeRam,
      uuid: undefined,
    })
    this.#control = control
    this.#port = port
    this.#blocks = blocks.map((block, index) => ({ block, load: loads[index]!, saved: new SharedBitmap(block.pages) }))
  }

  /** Waits for the program to stand still, and holds its writes up from then on. Returns its devices' state. */
  start(): Uint8Array {
    while (!this.#control.begin.wait(LOOK_MS));
    this.#checkStopped()
    const deviceState = receiveMessageOnPort(this.#port)!.message as Uint8Array
    this.#tracker.start(this.#blocks.map(({ block }) => block))
    this.#control.noteHolding(true)
    // What is discarded is zero in the file, and nobody's to save.
    for (const { block, saved } of this.#blocks) {
      block.replayDiscardedPages((first, count) => {
        saved.setRange(first, count)
        this.#discarded += count
      })
    }
    return deviceState
  }

  run(): BackgroundPages {
    for (const one of this.#blocks) {
      const { block, saved } = one
      const most = Math.max(PIECE_BYTES, block.backing.unit) / block.pageSize
      for (let page = saved.next(0, false); page < block.pages; page = saved.next(page, false)) {
        this.#save(one, page, saved.next(page, true, Math.min(page + most, block.pages)) - page)
        this.#saveHeld()
        this.#checkStopped()
      }
    }
    this.stop()
    const all = this.#blocks.reduce((sum, { block }) => sum + block.pages, 0)
    const normal = this.#blocks.reduce((sum, { load }) => sum + load.populated.count(), 0)
    return { normal, duplicate: all - normal - this.#discarded, held: this.#held }
  }

  /** Idempotent. */
  stop(): void {
    this.#tracker.stop()
    this.#control.noteHolding(false)
  }

  #saveHeld(): void {
    for (let write = this.#tracker.next(0); write; write = this.#tracker.next(0)) {
      const { block, page, count } = write
      this.#save(this.#blocks.find((one) => one.block === block)!, page, count)
      this.#held += count
    }
  }

  #save({ block, load, saved }: SavedBlock, page: number, count: number): void {
    load.storeFrom(block, page, count)
    saved.setRange(page, count)
    this.#tracker.release(block, page, count)
  }

  #checkStopped(): void {
    if (this.#control.stopped) throw new MultifdError('ERR_MULTIFD_ABORTED', 'the snapshot was cancelled')
  }
}
