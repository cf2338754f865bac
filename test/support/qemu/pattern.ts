// What a guest's memory is filled with before it starts, and the comparison of two guests' memory.
import { createCipheriv } from 'node:crypto'
import { pageSize } from './program.js'

/** Guest address of the pattern: above the program's range. */
export const patternAddress = 0x800000

const mixedPages = 2048
const runPages = 64
/** Pages of the pattern. The first half changes its kind with every page, the second with every 64 pages. */
export const patternPages = 2 * mixedPages

type Fill = (page: Buffer, index: number, random: Buffer) => void

const zero: Fill = () => {}
const noise: Fill = (page, _index, random) => random.copy(page)
const text: Fill = (page, index) => page.fill(`page ${index} of the pattern, and some text that repeats. `)
const oneByte: Fill = (page, index) =>
  page.fill(1 + (index % 255), (index * 37) % pageSize, ((index * 37) % pageSize) + 1)
const sameByte: Fill = (page) => page.fill(0xaa)
const halfNoise: Fill = (page, _index, random) => random.copy(page, 0, 0, pageSize / 2)
const lastByte: Fill = (page) => page.fill(0x80, pageSize - 1)
const ascending: Fill = (page, index) => {
  for (let at = 0; at < pageSize; at += 4) page.writeUInt32LE(index * 1024 + at / 4, at)
}

const mixed: readonly Fill[] = [zero, noise, text, oneByte, sameByte, halfNoise, lastByte, ascending]
const runs: readonly Fill[] = [noise, zero, text, zero]

let cached: Buffer | undefined

/** The pattern: the same bytes in every run. */
export function pattern(): Buffer {
  cached ??= makePattern()
  return cached
}

function makePattern(): Buffer {
  const all = Buffer.alloc(patternPages * pageSize)
  const random = createCipheriv('aes-128-ctr', Buffer.alloc(16, 'pattern'), Buffer.alloc(16)).update(all)
  for (let index = 0; index < patternPages; index++) {
    const fills = index < mixedPages ? mixed : runs
    const kind = index < mixedPages ? index : Math.floor(index / runPages)
    const at = index * pageSize
    fills[kind % fills.length]!(all.subarray(at, at + pageSize), index, random.subarray(at, at + pageSize))
  }
  return all
}

/** Says how two memory images differ, in a line; undefined when they do not. */
export function memoryDifference(expected: Uint8Array, actual: Uint8Array): string | undefined {
  if (expected.length !== actual.length) return `${expected.length} bytes expected, ${actual.length} bytes there`
  if (Buffer.compare(expected, actual) === 0) return undefined
  const pages: number[] = []
  for (let at = 0; at < expected.length; at += pageSize) {
    const equal = Buffer.compare(expected.subarray(at, at + pageSize), actual.subarray(at, at + pageSize)) === 0
    if (!equal) pages.push(at)
  }
  const first = pages[0]!
  let at = first
  while (expected[at] === actual[at]) at++
  return (
    `${pages.length} pages differ, at ${pages.slice(0, 4).map(hex).join(', ')}${pages.length > 4 ? ' …' : ''}; ` +
    `the byte at ${hex(at)} is ${hex(actual[at]!)}, not ${hex(expected[at]!)}`
  )
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}
