// Huge pages that several threads receive into: each is touched once, and nobody waits for good.

import t from 'tap'
import { RamBlock } from '../../src/ram/block.js'
import { FirstTouch } from '../../src/shm/first-touch.js'
import { PageRuns } from '../../src/shm/page-runs.js'

const PAGE = 4096
const HUGE = 2 ** 21
const TOUCHING = 1
const TOUCHED = 2

function runs(...list: [first: number, count: number][]): PageRuns {
  const made = PageRuns.alone(list.length)
  for (const [first, count] of list) made.push(first, count)
  return made
}

t.test('the huge pages of the runs are touched, wherever the block begins in one, and no other', async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 8 * HUGE })
  const touch = new FirstTouch(block)
  const states = new Int32Array(touch.states)
  const lead = (block.address % HUGE) / PAGE
  t.equal(states.length, lead === 0 ? 8 : 9)
  touch.before(runs([0, 1], [2 * 512 - lead, 513]))
  const touched = [...states.keys()].filter((i) => states[i] === TOUCHED)
  t.same(touched, [0, 2, 3])
  t.ok([...states].every((state) => state !== TOUCHING))
  t.ok(block.residentBytes(0, PAGE) > 0, 'the memory is there')
  t.equal(Buffer.from(block.bytes()).indexOf(1), -1, 'and zero')
})

t.test('the last page of a block lies in its last huge page', async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 3 * HUGE + PAGE })
  const touch = new FirstTouch(block)
  touch.before(runs([block.pages - 1, 1]))
  t.equal(new Int32Array(touch.states).at(-1), TOUCHED)
})

t.test('another thread sees what was touched; one that never ends its touch holds nobody for long', async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: 2 * HUGE })
  const one = new FirstTouch(block)
  const other = new FirstTouch(RamBlock.from(block.handle), one.states)
  one.before(runs([0, 1]))
  t.equal(new Int32Array(other.states)[0], TOUCHED)
  const states = new Int32Array(one.states)
  states[0] = TOUCHING
  const began = performance.now()
  other.before(runs([0, 1]))
  t.ok(performance.now() - began >= 15, 'it waits')
  t.equal(states[0], TOUCHING, "and leaves the other's work to the other")
})
