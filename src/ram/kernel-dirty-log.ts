// The kernel dirty log: memory is write-protected, the kernel lifts the protection of a page as it is written, and
// PAGEMAP_SCAN tells which pages have lost it and protects them again in the same step.

import { Pagemap, requirePagemapScan } from '../os/pagemap.js'
import { giveWay } from '../os/thread.js'
import { requireUserfaultfd, Userfaultfd, type UserfaultfdOptions } from '../os/userfaultfd.js'
import type { RamBlock } from './block.js'
import type { DirtyBitmap } from './dirty-bitmap.js'
import type { DirtyLog } from './dirty-log.js'
import { ExplicitDirtyLog } from './explicit-dirty-log.js'

// An asynchronous one holds nobody up, the kernel neither: every user may.
const OPTIONS: UserfaultfdOptions = {
  kernelFaults: false,
  required: ['wpAsync', 'wpUnpopulated', 'wpHugetlbfsShmem'],
}

// What is unprotected at a time, some 50 µs of a processor.
const LIFT_BYTES = 2 ** 22

/**
 * Whether this kernel can tell what is written; found out once.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED with what is missing
 */
export function requireKernelDirtyLog(): void {
  requireUserfaultfd(OPTIONS)
  requirePagemapScan()
}

export class KernelDirtyLog implements DirtyLog {
  readonly #block: RamBlock
  readonly #marked: ExplicitDirtyLog
  #userfaultfd: Userfaultfd | undefined
  #pagemap: Pagemap | undefined
  // What this log has under its hand: the kernel would lift another's protection just as well.
  #registered: { address: number; length: number }[] = []

  constructor(block: RamBlock) {
    this.#block = block
    this.#marked = new ExplicitDirtyLog(block)
  }

  start(): void {
    const block = this.#block
    this.stop()
    try {
      const userfaultfd = Userfaultfd.open(OPTIONS)
      this.#userfaultfd = userfaultfd
      this.#pagemap = new Pagemap()
      block.replayPopulated((offset, length) => {
        const address = block.address + offset
        userfaultfd.register(address, length, `block '${block.idstr}'`)
        this.#registered.push({ address, length })
        userfaultfd.protect(address, length, `block '${block.idstr}'`)
      })
    } catch (error) {
      this.stop()
      throw error
    }
    this.#marked.start()
  }

  // What the program marks all the same is taken too: it may know of changes that do not come through this memory, as
  // those of a mapped file by somebody else.
  synchronise(into: DirtyBitmap): number {
    const block = this.#block
    const pagemap = this.#pagemap
    let added = this.#marked.synchronise(into)
    if (!pagemap) return added
    // What is under its hand, which is what was populated at the start.
    for (const registered of this.#registered) {
      pagemap.takeWritten(registered.address, registered.length, (address, bytes) => {
        const from = address - block.address
        const first = Math.floor(from / block.pageSize)
        added += into.setRange(first, Math.ceil((from + bytes) / block.pageSize) - first)
      })
    }
    return added
  }

  // Closing lifts all protection, in one go of ten milliseconds a GiB. A migration's end has no time to give away: where
  // both sides share a machine, the program over there waits for a processor just then. So it is lifted piece by piece.
  stop(): void {
    try {
      this.#lift()
    } catch {
      // Memory that is gone.
    }
    this.#registered = []
    this.#userfaultfd?.close()
    this.#pagemap?.close()
    this.#userfaultfd = undefined
    this.#pagemap = undefined
  }

  #lift(): void {
    for (const { address, length } of this.#registered) {
      for (let done = 0; done < length; done += LIFT_BYTES) {
        const bytes = Math.min(LIFT_BYTES, length - done)
        this.#userfaultfd!.unprotect(address + done, bytes, `block '${this.#block.idstr}'`)
        giveWay()
      }
    }
  }
}
