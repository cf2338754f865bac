// The thread that measures a dirty rate: looks at the memory, waits, and looks again.

import type { MessagePort } from 'node:worker_threads'
import { MultifdError, type PlainError } from '../errors.js'
import { libc } from '../os/libc.js'
import { nameThread, restThread } from '../os/thread.js'
import { RamBlock, type RamBlockHandle } from '../ram/block.js'
import { DirtyBitmap } from '../ram/dirty-bitmap.js'
import { KernelDirtyLog } from '../ram/kernel-dirty-log.js'
import { PageSamples } from '../ram/page-samples.js'
import { ThreadControl } from '../shm/thread-control.js'
import { makeSharedMemory, pageKernel } from '../wasm/kernel.js'
import type { DirtyRateMode } from './dirty-rate.js'

export interface DirtyRateTask {
  control: SharedArrayBuffer
  /** Is told when it has begun. */
  port: MessagePort
  blocks: RamBlockHandle[]
  mode: DirtyRateMode
  /** ms. */
  calcTime: number
  /** A GiB. */
  samplePages: number
}

/** Bytes of pages that changed, and the time in which they did. */
interface Changed {
  bytes: number
  ms: number
}

export type DirtyRateOutcome = Changed | { stopped: true } | { error: PlainError }

export function runDirtyRate(task: DirtyRateTask): DirtyRateOutcome {
  const control = new ThreadControl(task.control)
  libc()
  control.noteLoaded()
  nameThread('mig/dirtyrate')
  try {
    const blocks = task.blocks.map((handle) => RamBlock.from(handle))
    const measure = task.mode === 'page-sampling' ? sample : track
    return measure(blocks, task, control) ?? { stopped: true }
  } catch (thrown) {
    return { error: MultifdError.from(thrown).toPlain() }
  } finally {
    restThread()
  }
}

function sample(blocks: RamBlock[], task: DirtyRateTask, control: ThreadControl): Changed | undefined {
  const samples = new PageSamples(blocks, task.samplePages)
  const began = performance.now()
  task.port.postMessage('begun')
  samples.take()
  if (!control.sleep(began + task.calcTime - performance.now())) return undefined
  // Each page is looked at again as long after its first time as all others.
  const ms = performance.now() - began
  const changed = samples.changed()
  return { bytes: samples.count === 0 ? 0 : (changed / samples.count) * samples.bytes, ms }
}

function track(blocks: RamBlock[], task: DirtyRateTask, control: ThreadControl): Changed | undefined {
  const logs = blocks.map((block) => new KernelDirtyLog(block))
  try {
    const began = middle(() => {
      for (const log of logs) log.start()
    })
    task.port.postMessage('begun')
    if (!control.sleep(began + task.calcTime - performance.now())) return undefined
    let bytes = 0
    const ended = middle(() => {
      for (const [at, block] of blocks.entries()) bytes += logs[at]!.synchronise(bitmapOf(block)) * block.pageSize
    })
    return { bytes, ms: ended - began }
  } finally {
    for (const log of logs) log.stop()
  }
}

// Protecting memory and looking at it take their time, and the program writes meanwhile: some of it counts, some not.
function middle(work: () => void): number {
  const from = performance.now()
  work()
  return (from + performance.now()) / 2
}

function bitmapOf({ pages }: RamBlock): DirtyBitmap {
  const memory = makeSharedMemory(4 * DirtyBitmap.words(pages))
  return new DirtyBitmap(pages, memory, pageKernel(memory), 0)
}
