// Sends pages of a snapshot from where the kernel caches the file: no page of it is mapped, and none is copied on the way.

import type { Channel } from '../io/channel.js'
import { IoVector } from '../io/iovec.js'
import { zeroPage } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { PageRuns } from '../shm/page-runs.js'

export class FilePages {
  readonly #channel: Channel
  readonly #vector = new IoVector(1)
  #unsupported = false

  constructor(channel: Channel) {
    this.#channel = channel
  }

  /** Whether a block's pages can go this way. */
  takes(block: RamBlock): boolean {
    return block.pagesInFile !== undefined && !this.#unsupported && this.#channel.features.has('sendFile')
  }

  /** Writes pages of a block that {@link takes} said yes to, in order. */
  write(runs: PageRuns, block: RamBlock): void {
    const populated = block.populated!
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      for (let page = runs.first(run); page < end; ) {
        const hole = populated.next(page, false, end)
        if (hole > page) this.#writePopulated(block, page, hole - page)
        page = populated.next(hole, true, end)
        // The file may have anything where a page is known to be zero.
        for (let zero = hole; zero < page; zero++) this.#write(zeroPage(block.pageSize), 0, block.pageSize)
      }
    }
  }

  #writePopulated(block: RamBlock, first: number, count: number): void {
    const { pageSize } = block
    const { fd, offset } = block.pagesInFile!
    const at = first * pageSize
    if (this.#channel.writeFile(fd, offset + at, count * pageSize)) return
    this.#unsupported = true
    this.#write(block, at, count * pageSize)
  }

  #write(range: { address: number; size: number }, offset: number, length: number): void {
    this.#vector.reset()
    this.#vector.push(range, offset, length)
    this.#channel.writeFull(this.#vector)
  }
}
