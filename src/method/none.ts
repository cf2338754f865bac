// Pages as they are: the kernel reads them from their block, and writes them into it.

import type { IoVector } from '../io/iovec.js'
import { zeroPage } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { PageRuns } from '../shm/page-runs.js'
import type { RecvMethod, SendMethod } from './method.js'

export class NoneSend implements SendMethod {
  readonly flag = 0

  prepare(runs: PageRuns, block: RamBlock, into: IoVector): number {
    if (block.populated) this.#prepareKnown(runs, block, into)
    else into.pushRuns(block, runs)
    return runs.pages * block.pageSize
  }

  close(): void {
    // There is no state.
  }

  // A file may have anything where a page is known to be zero.
  #prepareKnown(runs: PageRuns, block: RamBlock, into: IoVector): void {
    const { pageSize, populated } = block
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      for (let page = runs.first(run); page < end; ) {
        const next = populated!.next(page, false, end)
        if (next > page) into.push(block, page * pageSize, (next - page) * pageSize)
        if (next < end) into.push(zeroPage(pageSize), 0, pageSize)
        page = next + 1
      }
    }
  }
}

export class NoneRecv implements RecvMethod {
  readonly flag = 0

  expect(runs: PageRuns, block: RamBlock, _size: number, into: IoVector): void {
    into.pushRuns(block, runs)
  }

  finish(): void {
    // The pages are where they belong.
  }

  close(): void {
    // There is no state.
  }
}
