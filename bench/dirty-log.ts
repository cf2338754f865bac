// What a dirty log costs: the program at each write, and the migration at each look. `node dist/bench/dirty-log.js`
//
// Every figure stands beside the same loop over memory that nobody tracks, in the same run.

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
  if (sum === 1) console.log(sum)
}
