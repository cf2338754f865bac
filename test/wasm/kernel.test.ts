// The page kernel beside slow and obvious code, on random values and at its edges.

import fc from 'fast-check'
import t from 'tap'
import { makeSharedMemory, pageKernel } from '../../src/wasm/kernel.js'
import {
  decodePacketFields,
  encodeSyncPacket,
  MULTIFD_FLAG,
  PacketHeader,
  packetHeaderSize,
} from '../../src/wire/multifd-packet.js'

const memory = makeSharedMemory(65536)
const kernel = pageKernel(memory)
const view = new DataView(memory.buffer)
const words = new Uint32Array(memory.buffer)
const [RUNS, OFFSETS, VECTOR] = [0, 8192, 32768]
const BASE = 2 ** 46 + 4096

const shift = fc.constantFrom(10, 12, 16)
const run = fc.tuple(fc.nat(2 ** 22), fc.integer({ min: 1, max: 9 }))
const runs = fc.array(run, { maxLength: 40 })

function put(list: [number, number][]): void {
  for (const [i, [first, count]] of list.entries()) words.set([first, count], (RUNS + 8 * i) / 4)
}

function pagesOf(list: [number, number][]): number[] {
  return list.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i))
}

/** Runs of pages as they follow on each other. */
function runsOf(pages: number[]): [number, number][] {
  const found: [number, number][] = []
  for (const page of pages) {
    const last = found.at(-1)
    if (last && last[0] + last[1] === page) last[1]++
    else found.push([page, 1])
  }
  return found
}

t.test('offsets are written as the wire has them, and end where they say', async () => {
  fc.assert(
    fc.property(runs, shift, (list, shift) => {
      put(list)
      const end = kernel.writeOffsets(RUNS, list.length, shift, OFFSETS)
      const pages = pagesOf(list)
      return (
        end === OFFSETS + 8 * pages.length &&
        pages.every((page, i) => view.getBigUint64(OFFSETS + 8 * i) === BigInt(page) << BigInt(shift))
      )
    }),
  )
})

t.test('offsets are read into runs, in their order', async () => {
  fc.assert(
    fc.property(runs, shift, (list, shift) => {
      const pages = pagesOf(list)
      for (const [i, page] of pages.entries()) view.setBigUint64(OFFSETS + 8 * i, BigInt(page) << BigInt(shift))
      const found = kernel.readOffsets(OFFSETS, pages.length, shift, 2 ** 23, RUNS)
      const expected = runsOf(pages)
      return (
        found === expected.length &&
        expected.every(
          ([first, count], i) => words[RUNS / 4 + 2 * i] === first && words[RUNS / 4 + 2 * i + 1] === count,
        )
      )
    }),
  )
})

t.test('an offset between pages, or past the block, is told by its index', async (t) => {
  const offsets = [0n, 4096n, 8192n]
  const read = (bad: bigint, index: number, pages = 4): number => {
    for (const [i, offset] of offsets.entries()) view.setBigUint64(OFFSETS + 8 * i, i === index ? bad : offset)
    return kernel.readOffsets(OFFSETS, 3, 12, pages, RUNS)
  }
  for (const index of [0, 1, 2]) {
    for (const bad of [1n, 4095n, 2n ** 63n + 8n, 2n ** 64n - 1n]) t.equal(read(bad, index), -1 - 2 * index, `${bad}`)
    for (const bad of [4n * 4096n, 2n ** 32n, 2n ** 44n, 2n ** 63n, 2n ** 64n - 4096n]) {
      t.equal(read(bad, index), -2 - 2 * index, `${bad}`)
    }
    t.equal(read(3n * 4096n, index) > 0, true, 'the last page')
  }
  t.equal(read(0n, 0, 0), -2, 'a block without pages')
})

t.test('a scatter-gather list has every run at its address', async () => {
  fc.assert(
    fc.property(runs, shift, (list, shift) => {
      put(list)
      const bytes = kernel.vectorOf(RUNS, list.length, shift, BASE, 2 ** 23, VECTOR)
      return (
        bytes === pagesOf(list).length * 2 ** shift &&
        list.every(
          ([first, count], i) =>
            view.getBigUint64(VECTOR + 16 * i, true) === BigInt(BASE) + (BigInt(first) << BigInt(shift)) &&
            view.getBigUint64(VECTOR + 16 * i + 8, true) === BigInt(count) << BigInt(shift),
        )
      )
    }),
  )
})

t.test('no list is made of a run that does not lie in the block', async (t) => {
  const make = (list: [number, number][], pages: number): number => {
    put(list)
    return kernel.vectorOf(RUNS, list.length, 12, BASE, pages, VECTOR)
  }
  t.equal(make([[7, 1]], 8), 4096)
  t.equal(make([[8, 1]], 8), -1)
  t.equal(make([[7, 2]], 8), -1)
  t.equal(make([[0, 0]], 8), -1, 'nor of an empty one')
  t.equal(make([[2 ** 32 - 1, 2 ** 32 - 1]], 2 ** 20), -1)
  const second: [number, number] = [8, 1]
  t.equal(make([[0, 8], second], 8), -1, 'nor where the second is the one')
  t.equal(make([[2 ** 32 - 2, 1]], 2 ** 32), 4096, 'a block of 16 TiB')
})

t.test('pages are parted by a mask, and join what stands at the ends of the lists', async () => {
  const [NORMAL, ZERO] = [64, 16384]
  const look = fc.record({
    first: fc.nat(5000),
    count: fc.integer({ min: 1, max: 32 }),
    zeros: fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.constantFrom(0, 2 ** 32 - 1, 1, 2 ** 31)),
    follows: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(look, { minLength: 1, maxLength: 20 }), (looks) => {
      for (const list of [NORMAL, ZERO]) words.fill(0, list / 4 - 2, list / 4)
      const expected: [number[], number[]] = [[], []]
      let next = 0
      for (const { first, count, zeros, follows } of looks) {
        const from = follows ? next : first
        kernel.splitPages(from, count, zeros, NORMAL, ZERO)
        for (let i = 0; i < count; i++) expected[(zeros >>> i) & 1]!.push(from + i)
        next = from + count
      }
      return [NORMAL, ZERO].every((list, i) => {
        const [runs = 0, pages = 0] = words.subarray(list / 4 - 2, list / 4)
        const found = Array.from({ length: runs }, (_, run): [number, number] => {
          return [words[list / 4 + 2 * run]!, words[list / 4 + 2 * run + 1]!]
        })
        const slow = runsOf(expected[i]!)
        return pages === expected[i]!.length && JSON.stringify(found) === JSON.stringify(slow)
      })
    }),
  )
})

t.test('zero pages are found, wherever the one byte lies', async (t) => {
  const block = makeSharedMemory(2 ** 21)
  const bytes = new Uint8Array(block.buffer)
  const { zeroPages } = pageKernel(block)
  t.equal(zeroPages(0, 32, 12), -1, 'fresh memory')
  t.equal(zeroPages(3, 5, 12), 0b11111)
  for (let at = 0; at < 4096; at++) {
    bytes[2 * 4096 + at] = 0x80
    if (zeroPages(1, 3, 12) !== 0b101) t.fail(`a byte at ${at} of a page is not seen`)
    bytes[2 * 4096 + at] = 0
  }
  for (const shift of [10, 12, 16]) {
    const pages = bytes.length >> shift
    for (const page of [0, 1, pages - 1]) {
      bytes[((page + 1) << shift) - 1] = 1
      t.equal(zeroPages(page, 1, shift), 0)
      if (page > 0) t.equal(zeroPages(page - 1, 2, shift), 1)
      bytes[((page + 1) << shift) - 1] = 0
    }
  }
})

t.test('a SYNC is one where the decoder finds one alone, whatever word of it is changed', async (t) => {
  const capacity = 128
  const header = new DataView(memory.buffer, OFFSETS, packetHeaderSize(capacity))
  const fields = new PacketHeader(capacity)
  const decoded = (): boolean => {
    try {
      decodePacketFields(header, 0, capacity, fields)
      return fields.flags === MULTIFD_FLAG.sync && fields.normalPages + fields.zeroPages === 0
    } catch {
      return false
    }
  }
  const found = { sync: 0, other: 0 }
  fc.assert(
    fc.property(
      fc.nat(capacity),
      fc.maxSafeNat(),
      fc.option(fc.tuple(fc.nat(15), fc.oneof(fc.nat(300), fc.nat(2 ** 32 - 1)))),
      (alloc, number, change) => {
        encodeSyncPacket(header, 0, capacity, number)
        header.setUint32(12, alloc)
        if (change) header.setUint32(4 * change[0], change[1])
        const isSync = kernel.isSync(OFFSETS, capacity) !== 0
        found[isSync ? 'sync' : 'other']++
        return isSync === decoded()
      },
    ),
    { numRuns: 3000 },
  )
  t.ok(found.sync > 100 && found.other > 100, JSON.stringify(found))
})
