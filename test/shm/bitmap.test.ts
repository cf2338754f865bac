// The bitmap of a block's pages: searches that end, and whether it is full.

import fc from 'fast-check'
import t from 'tap'
import { CHUNK_WORDS, SharedBitmap } from '../../src/shm/bitmap.js'

t.test('a search ends where it is told to, as the slow one does', async () => {
  const sets = fc.record({
    pages: fc.integer({ min: 1, max: 200 }),
    set: fc.array(fc.nat({ max: 199 }), { maxLength: 60 }),
    from: fc.nat({ max: 199 }),
    length: fc.nat({ max: 199 }),
    value: fc.boolean(),
  })
  fc.assert(
    fc.property(sets, ({ pages, set, from: start, length, value }) => {
      const bitmap = new SharedBitmap(pages)
      for (const page of set) if (page < pages) bitmap.set(page)
      const from = start % pages
      const end = Math.min(from + length, pages)
      let slow = from
      while (slow < end && bitmap.has(slow) !== value) slow++
      return bitmap.next(from, value, end) === slow && bitmap.next(from, value) >= slow
    }),
    { numRuns: 2000 },
  )
})

t.test('a stretch of words is clear when no bit of it is set, and everything can be cleared', async (t) => {
  const pages = 32 * CHUNK_WORDS * 2 + 100
  const bitmap = new SharedBitmap(pages)
  const clear = (): boolean[] => [0, CHUNK_WORDS, 2 * CHUNK_WORDS].map((at) => bitmap.isClear(at))
  t.same(clear(), [true, true, true])
  for (const [page, expected] of [
    [0, [false, true, true]],
    [32 * CHUNK_WORDS - 1, [false, true, true]],
    [32 * CHUNK_WORDS, [true, false, true]],
    [pages - 1, [true, true, false]],
  ] as const) {
    bitmap.set(page)
    t.same(clear(), expected, `page ${page}`)
    bitmap.clearAll()
    t.equal(bitmap.count(), 0)
  }
})

t.test('a bitmap is full when every page is set, whatever lies behind the last', async (t) => {
  for (const pages of [1, 7, 8, 31, 64, 65, 4096 * 8, 4096 * 8 + 1, 100_003]) {
    const bitmap = new SharedBitmap(pages)
    t.notOk(bitmap.full)
    bitmap.setRange(0, pages)
    t.ok(bitmap.full, `${pages} pages`)
    for (const page of [0, pages - 1, pages >> 1]) {
      bitmap.clear(page)
      t.notOk(bitmap.full, `${pages} pages without page ${page}`)
      bitmap.set(page)
    }
  }
})
