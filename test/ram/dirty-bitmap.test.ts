// The pages still to be sent: bits and their count, beside a set that does the same slowly.

import fc from 'fast-check'
import t from 'tap'
import { SharedBitmap } from '../../src/shm/bitmap.js'
import { LoneDirtyBitmap } from '../support/dirty-bitmap.js'

const pages = 150

/** Pages [first, first + count) of no more than there are. */
const range = fc.tuple(fc.nat(pages - 1), fc.nat(pages)).map(([first, count]) => ({
  first,
  count: Math.min(count, pages - first),
}))
const step = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), range }),
  fc.record({ kind: fc.constant('clear' as const), range }),
  fc.record({ kind: fc.constant('take' as const), range }),
  fc.record({ kind: fc.constant('all' as const), range }),
)

function drained(bitmap: LoneDirtyBitmap, longest = 7): number[] {
  const found: number[] = []
  bitmap.drain(longest, (first, count) => {
    for (let page = first; page < first + count; page++) found.push(page)
  })
  return found
}

t.test('runs are set and cleared, and counted', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const bitmap = new LoneDirtyBitmap(pages)
      const model = new Set<number>()
      for (const { kind, range } of steps) {
        const before = model.size
        const run = Array.from({ length: range.count }, (_, at) => range.first + at)
        let added = 0
        if (kind === 'clear') {
          bitmap.clearRange(range.first, range.count)
          for (const page of run) model.delete(page)
        } else if (kind === 'all') {
          bitmap.setAll()
          for (let page = 0; page < pages; page++) model.add(page)
        } else {
          for (const page of run) model.add(page)
          const log = new SharedBitmap(pages)
          log.setRange(range.first, range.count)
          added = kind === 'set' ? bitmap.setRange(range.first, range.count) : bitmap.takeFrom(log)
          if (added !== model.size - before) return false
        }
        if (bitmap.count !== model.size) return false
      }
      const expected = [...model].sort((a, b) => a - b)
      return drained(bitmap).join() === expected.join() && bitmap.count === 0
    }),
  )
  t.end()
})

t.test('a run past the end is cut', (t) => {
  const bitmap = new LoneDirtyBitmap(33)
  t.equal(bitmap.setRange(31, 100), 2)
  t.same(drained(bitmap), [31, 32])
  t.end()
})

t.test('what is discarded is never to be sent', (t) => {
  const gaps: [number, number][] = [
    [0, 3],
    [30, 40],
    [149, 1],
  ]
  const sparse = {
    replayDiscardedPages(visit: (first: number, count: number) => void): void {
      for (const [first, count] of gaps) visit(first, count)
    },
  }
  const gone = (page: number): boolean => gaps.some(([first, count]) => page >= first && page < first + count)
  const left = Array.from({ length: pages }, (_, page) => page).filter((page) => !gone(page))
  const bitmap = new LoneDirtyBitmap(pages, sparse)
  bitmap.setAll()
  t.equal(bitmap.count, left.length)
  t.same(drained(bitmap), left)
  const log = new SharedBitmap(pages)
  log.setRange(0, 50)
  t.equal(bitmap.takeFrom(log), 27, 'pages 3 to 29')
  t.equal(bitmap.takeFrom(log), 0, 'and the log is empty')
  t.equal(bitmap.count, 27)
  gaps.push([10, 5])
  log.set(3)
  t.equal(bitmap.takeFrom(log), 0, 'nothing is new')
  t.equal(bitmap.count, 22, 'what was discarded since is taken out')
  t.end()
})
