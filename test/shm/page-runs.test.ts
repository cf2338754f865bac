// A batch's pages, read in a packet's worth at a time.

import fc from 'fast-check'
import t from 'tap'
import { PageRuns, PartReader } from '../../src/shm/page-runs.js'

function pagesOf(runs: PageRuns): number[] {
  const pages: number[] = []
  for (let run = 0; run < runs.count; run++) {
    for (let i = 0; i < runs.length(run); i++) pages.push(runs.first(run) + i)
  }
  return pages
}

t.test('the parts of a list are its pages, in order, and as many as asked for but for the last', async (t) => {
  const list = fc.array(fc.record({ gap: fc.nat({ max: 3 }), pages: fc.integer({ min: 1, max: 40 }) }), {
    maxLength: 30,
  })
  const holds = fc.property(list, fc.integer({ min: 1, max: 50 }), (runs, most) => {
    const whole = PageRuns.alone(30)
    let page = 0
    for (const { gap, pages } of runs) {
      whole.push(page + gap, pages)
      page += gap + pages
    }
    const reader = new PartReader()
    // What was read before leaves nothing behind.
    reader.start(whole)
    reader.read(PageRuns.alone(60), 7)
    reader.start(whole)
    const part = PageRuns.alone(60)
    const read: number[] = []
    for (let left = whole.pages; left > 0; left -= part.pages) {
      reader.read(part, most)
      if (part.pages !== Math.min(most, left) || pagesOf(part).length !== part.pages) return false
      read.push(...pagesOf(part))
    }
    return read.join() === pagesOf(whole).join()
  })
  t.doesNotThrow(() => fc.assert(holds, { numRuns: 2000 }))
})
