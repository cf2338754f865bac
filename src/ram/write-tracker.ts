// Writes held up: a thread that writes to a page for the first time waits until the page's old content was saved.
//
// For background snapshots: memory is kept as it was at one instant while the program goes on (QEMU's
// ram_write_tracking).

import { MultifdError } from '../errors.js'
import { errnoName } from '../os/libc.js'
import { populateRead } from '../os/memory.js'
import { requireUserfaultfd, Userfaultfd, type UserfaultfdOptions } from '../os/userfaultfd.js'
import { SharedBitmap } from '../shm/bitmap.js'
import type { RamBlock } from './block.js'

const OPTIONS: UserfaultfdOptions = {
  kernelFaults: true,
  required: ['pagefaultFlagWp'],
  wanted: ['wpUnpopulated', 'wpHugetlbfsShmem'],
}

// A thread in a system call can not be ended.
const WAIT_MAX_MS = 100
// What one call touches, if every page has to be touched.
const TOUCH_BYTES = 2 ** 26

/** Pages whose writer waits. */
export interface HeldWrite {
  block: RamBlock
  /** The first page, and how many there are: more than one where the block's backing has huge pages. */
  page: number
  count: number
}

/**
 * Whether writes can be held up here, those of the kernel for the program too; found out once.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED with what is missing
 */
export function requireWriteTracker(): void {
  requireUserfaultfd(OPTIONS)
}

/**
 * Used by one thread, which must itself never write to the blocks, nor wait for a thread that does. Whoever is held up
 * goes on at {@link release} of its page or at {@link stop}: call that whatever happens. A worker that is terminated from
 * outside never gets to it.
 */
export class WriteTracker {
  #blocks: readonly RamBlock[] = []
  #released: SharedBitmap[] = []
  #userfaultfd: Userfaultfd | undefined
  #held: HeldWrite[] = []
  readonly #onExit = (): void => this.stop()

  /**
   * Holds writes to the blocks up from now on: all of them, or what is populated of a sparse one, whose map must stand
   * still until {@link stop}. The program should be stopped meanwhile, so that the blocks are of one instant.
   *
   * @throws MultifdError ERR_MULTIFD_UNSUPPORTED when kernel or rights are lacking, or for a file of a disk, whose pages
   * can not be held; ERR_MULTIFD_STATE when something else tracks the memory. Nothing is held up then
   */
  start(blocks: readonly RamBlock[]): void {
    this.stop()
    // A process that exits waits for its threads, and they would wait here.
    process.once('exit', this.#onExit)
    try {
      const userfaultfd = Userfaultfd.open(OPTIONS)
      this.#userfaultfd = userfaultfd
      this.#blocks = blocks
      this.#released = blocks.map(({ pages }) => new SharedBitmap(pages))
      for (const block of blocks) this.#check(block, userfaultfd)
      this.#eachRange((block, address, length) => userfaultfd.register(address, length, `block '${block.idstr}'`))
      this.#eachRange((block, address, length) => {
        if (!coversUntouched(block, userfaultfd)) touch(block, address, length)
      })
      // Last, and nothing else in between: this is the instant.
      this.#eachRange((block, address, length) => userfaultfd.protect(address, length, `block '${block.idstr}'`))
    } catch (error) {
      this.stop()
      throw error
    }
  }

  /**
   * Waits for a write that is held up, at most `timeoutMs` (and at most 100 ms): save these pages and release them. The
   * same pages can come twice when two threads write to them.
   *
   * @throws MultifdError ERR_MULTIFD_STATE before `start`
   */
  next(timeoutMs: number): HeldWrite | undefined {
    const userfaultfd = this.#open()
    for (;;) {
      const held = this.#held.shift()
      if (!held) break
      // Released since it was read: whoever waited was woken by that.
      if (!this.#isReleased(held)) return held
    }
    userfaultfd.readFaults(Math.min(Math.max(timeoutMs, 0), WAIT_MAX_MS), (address) => this.#note(address))
    while (this.#held.length > 0 && this.#isReleased(this.#held[0]!)) this.#held.shift()
    return this.#held.shift()
  }

  /**
   * Lets writes to pages [page, page + count) through, and those who waited for that go on. Whole pages of the block's
   * backing.
   *
   * @throws MultifdError ERR_MULTIFD_STATE, ERR_MULTIFD_ARGUMENT
   */
  release(block: RamBlock, page: number, count = 1): void {
    const userfaultfd = this.#open()
    const index = this.#blocks.indexOf(block)
    const unit = block.backing.unit / block.pageSize
    if (
      index < 0 ||
      !(page >= 0 && count >= 0 && page + count <= block.pages) ||
      (unit > 1 && (page % unit || count % unit))
    ) {
      throw new MultifdError(
        'ERR_MULTIFD_ARGUMENT',
        `block '${block.idstr}': pages [${page}, +${count}) are not tracked`,
      )
    }
    if (count === 0) return
    this.#released[index]!.setRange(page, count)
    const [from, to] = [page * block.pageSize, (page + count) * block.pageSize]
    // What is discarded was never registered.
    block.replayPopulated((offset, length) => {
      const start = Math.max(from, offset)
      const end = Math.min(to, offset + length)
      if (start < end) userfaultfd.unprotect(block.address + start, end - start, `block '${block.idstr}'`)
    })
  }

  /** Lets everyone go on, and tracks nothing any more. Idempotent. */
  stop(): void {
    process.off('exit', this.#onExit)
    this.#userfaultfd?.close()
    this.#userfaultfd = undefined
    this.#blocks = []
    this.#held = []
  }

  #open(): Userfaultfd {
    if (this.#userfaultfd) return this.#userfaultfd
    throw new MultifdError('ERR_MULTIFD_STATE', 'the write tracker is not started')
  }

  #check(block: RamBlock, userfaultfd: Userfaultfd): void {
    const { kind } = block.backing
    if (kind === 'memory') return
    const unsupported = (why: string): MultifdError =>
      new MultifdError('ERR_MULTIFD_UNSUPPORTED', `block '${block.idstr}': writes can not be held up: ${why}`)
    if (kind === 'file') throw unsupported('its file is on a disk; memory, tmpfs and huge pages can be')
    if (userfaultfd.has('wpHugetlbfsShmem')) return
    throw unsupported("this kernel's userfaultfd has no UFFD_FEATURE_WP_HUGETLBFS_SHMEM (Linux 5.19)")
  }

  #eachRange(visit: (block: RamBlock, address: number, length: number) => void): void {
    for (const block of this.#blocks) {
      block.replayPopulated((offset, length) => visit(block, block.address + offset, length))
    }
  }

  #note(address: number): void {
    const block = this.#blocks.find((one) => address >= one.address && address < one.address + one.size)
    if (!block) return
    const unit = Math.max(block.backing.unit, block.pageSize)
    const offset = address - block.address
    this.#held.push({ block, page: (offset - (offset % unit)) / block.pageSize, count: unit / block.pageSize })
  }

  #isReleased({ block, page }: HeldWrite): boolean {
    return this.#released[this.#blocks.indexOf(block)]!.has(page)
  }
}

function coversUntouched({ backing }: RamBlock, userfaultfd: Userfaultfd): boolean {
  return backing.kind === 'memory' ? userfaultfd.has('wpUnpopulated') : userfaultfd.has('wpHugetlbfsShmem')
}

// Protection lies on pages that are there: the zero page, where there is nothing yet.
function touch(block: RamBlock, address: number, length: number): void {
  for (let done = 0; done < length; done += TOUCH_BYTES) {
    const number = populateRead(address + done, Math.min(TOUCH_BYTES, length - done))
    if (number === 0) continue
    const message = `block '${block.idstr}': the kernel can not map all of it: ${errnoName(number)}`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message, { errno: number, errnoName: errnoName(number) })
  }
}
