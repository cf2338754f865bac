// A bitmap of pages still to be sent, in memory of its own instead of a migration's.

import { DirtyBitmap, type DiscardedPages } from '../../src/ram/dirty-bitmap.js'
import { PageRuns, runWords } from '../../src/shm/page-runs.js'
import { makeSharedMemory, pageKernel } from '../../src/wasm/kernel.js'

export class LoneDirtyBitmap extends DirtyBitmap {
  readonly #runs: PageRuns

  constructor(pages: number, sparse?: DiscardedPages) {
    const runsAt = 4 * DirtyBitmap.words(pages)
    const memory = makeSharedMemory(runsAt + 4 * runWords(pages))
    super(pages, memory, pageKernel(memory), 0, sparse)
    this.#runs = new PageRuns(memory.buffer, runsAt, pages)
  }

  /** Calls `visit` with every run of set pages in order, none longer than `longest`, and clears them. */
  drain(longest: number, visit: (first: number, count: number) => void): void {
    const runs = this.#runs
    for (let word = 0; !this.isEnd(word); ) {
      runs.reset()
      word = this.take(word, longest, runs)
      for (let run = 0; run < runs.count; run++) visit(runs.first(run), runs.length(run))
    }
  }
}
