// What a dirty log costs: the program at each write, and the migration at each look. `node dist/bench/dirty-log.js`
//
// Every figure stands beside the same loop over memory that nobody tracks, in the same run: the first write to a page after
// a look, the look itself, and what a program that only writes loses by both.

import { RamBlock } from '../src/index.js'
import { dirtyLogOf } from '../src/ram/dirty-log.js'
import { LoneDirtyBitmap } from '../test/support/dirty-bitmap.js'

const PAGE = 4096
const SIZE = 2 ** 30
const ROUNDS = 5

function timed(action: () => void): number {
  const began = performance.now()
  action()
  return performance.now() - began
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!
}

/** Medians over the rounds of each figure, in ms. */
function rounds<T extends string>(measure: () => Record<T, number>): Record<T, number> {
  const all = Array.from({ length: ROUNDS }, measure)
  const names = Object.keys(all[0]!) as T[]
  return Object.fromEntries(names.map((name) => [name, median(all.map((one) => one[name]))])) as Record<T, number>
}

function row(name: string, ms: number, over: string, base: number, pages = SIZE / PAGE): void {
  const each = ((ms * 1e6) / pages).toFixed(0)
  console.log(
    `  ${name.padEnd(44)} ${ms.toFixed(1).padStart(8)} ms ${each.padStart(7)} ns/page   ${(ms / base).toFixed(2)} × ${over}`,
  )
}

const SECOND_MS = 1000
const LOOK_EVERY_MS = 100
const WRITES_AT_ONCE = 10_000

/** Writes a second of a program that does nothing else, at random in the first `bytes`, with a look now and then. */
function writesPerSecond(bytes: number, write: (at: number) => void, look: () => void): number {
  const began = performance.now()
  let looked = began
  let writes = 0
  for (;;) {
    for (let i = 0; i < WRITES_AT_ONCE; i++) write(4 * Math.floor((Math.random() * bytes) / 4))
    writes += WRITES_AT_ONCE
    const now = performance.now()
    if (now - began >= SECOND_MS) return (writes * 1000) / (now - began)
    if (now - looked < LOOK_EVERY_MS) continue
    look()
    looked = performance.now()
  }
}

function overall(name: string, tracked: number, plain: number): void {
  const millions = `${(tracked / 1e6).toFixed(1)} million writes/s`
  console.log(`  ${name.padEnd(44)} ${millions.padStart(27)}   ${(tracked / plain).toFixed(2)} × untracked`)
}

for (const dirtyLog of ['explicit', 'kernel'] as const) {
  const block = RamBlock.allocate({ idstr: 'heap', size: SIZE, dirtyLog, prealloc: true })
  const words = new Int32Array(block.memory!)
  const bitmap = new LoneDirtyBitmap(block.pages)
  const log = dirtyLogOf(block)
  const write = (step: number): void => {
    for (let at = 0; at < SIZE; at += step) words[at / 4]!++
  }
  const marking = (step: number): void => {
    for (let at = 0; at < SIZE; at += step) {
      words[at / 4]!++
      block.markDirty(at, 4)
    }
  }
  const change = dirtyLog === 'kernel' ? write : marking
  let sum = 0
  const look = (): number =>
    timed(() => {
      log.synchronise(bitmap)
      bitmap.drain(128, () => {})
    })
  const writeAt = (at: number): void => {
    words[at / 4]!++
  }
  const changeAt = (at: number): void => {
    words[at / 4]!++
    if (dirtyLog === 'explicit') block.markDirty(at, 4)
  }
  // What is compiled meanwhile is none of either's cost.
  for (const write of [writeAt, changeAt, writeAt, changeAt]) writesPerSecond(SIZE, write, () => {})
  const sets = { all: SIZE, some: SIZE / 16, few: SIZE / 1024 }
  const untracked = rounds(() => ({
    all: writesPerSecond(sets.all, writeAt, () => {}),
    some: writesPerSecond(sets.some, writeAt, () => {}),
    few: writesPerSecond(sets.few, writeAt, () => {}),
  }))
  const { plain, read } = rounds(() => ({
    plain: timed(() => write(PAGE)),
    read: timed(() => {
      for (let at = 0; at < words.length; at += 16) sum += words[at]!
    }),
  }))
  const start = timed(() => log.start())
  const figures = rounds(() => {
    const first = timed(() => change(PAGE))
    const again = timed(() => change(PAGE))
    const all = look()
    change(2 * PAGE)
    const half = look()
    return { first, again, all, half, clean: look() }
  })
  const tracked = rounds(() => ({
    all: writesPerSecond(sets.all, changeAt, look),
    some: writesPerSecond(sets.some, changeAt, look),
    few: writesPerSecond(sets.few, changeAt, look),
  }))
  const stop = timed(() => log.stop())
  console.log(`${dirtyLog}, ${SIZE / 2 ** 20} MiB:`)
  row('a write to each page, nothing tracked', plain, 'itself', plain)
  row('the first write to each page since the look', figures.first, 'that', plain)
  row('the second', figures.again, 'that', plain)
  row('reading all of it', read, 'itself', read)
  row('a look, nothing written', figures.clean, 'reading', read)
  row('a look, every page written', figures.all, 'reading', read)
  row('a look, every second page written', figures.half, 'reading', read)
  row('start', start, 'reading', read)
  row('stop', stop, 'reading', read)
  console.log(`  a program that writes all the time, looked at every ${LOOK_EVERY_MS} ms:`)
  for (const set of ['all', 'some', 'few'] as const) {
    overall(`  at random in ${sets[set] / 2 ** 20} MiB`, tracked[set], untracked[set])
  }
  if (sum === 1) console.log(sum)
}
