import fc from 'fast-check'
import t from 'tap'
import { viewOf } from '../../src/wire/bytes.js'
import {
  decodeMappedRamHeader,
  encodeMappedRamHeader,
  hasPage,
  layoutMappedRam,
  MAPPED_RAM_HEADER_SIZE,
  type MappedRamHeader,
  mappedRamBitmapSize,
  markPage,
  placeMappedRam,
} from '../../src/wire/mapped-ram.js'
import { badFields, encoded, everyTruncation, fromHex, NaiveWriter, patched, throwsCode } from './helpers.js'

const HEADER = fromHex('00 00 00 01 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 8e 00 00 00 00 00 10 00 00')
const decode = (bytes: Uint8Array) => decodeMappedRamHeader(viewOf(bytes), 0)

t.test('the header of the first block of a file of QEMU 10.0', async (t) => {
  const header = { pageSize: 4096, bitmapOffset: 142, pagesOffset: 0x100000 }
  t.same(decode(HEADER), header)
  t.same(
    encoded(MAPPED_RAM_HEADER_SIZE, (view, at) => encodeMappedRamHeader(view, at, header)),
    HEADER,
  )
  const place = { bitmapOffset: 142, bitmapSize: 512, pagesOffset: 0x100000, end: 0x1100000 }
  t.same(layoutMappedRam(114, 16777216, 4096), place)
  t.same(placeMappedRam(header, 114, 16777216, 4096), { pageSize: 4096, ...place })
})

t.test('headers are what a slow codec writes', async () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.maxSafeNat(), fc.nat(50), (bitmapOffset, pagesOffset, bits) => {
      const header = { pageSize: 2 ** bits, bitmapOffset, pagesOffset }
      const slow = new NaiveWriter().be(4, 1).be(8, header.pageSize).be(8, bitmapOffset).be(8, pagesOffset).bytes()
      const fast = encoded(MAPPED_RAM_HEADER_SIZE, (view, at) => encodeMappedRamHeader(view, at, header))
      return Buffer.compare(fast, slow) === 0 && JSON.stringify(decode(slow)) === JSON.stringify(header)
    }),
  )
})

t.test('every truncation', async (t) => everyTruncation(t, HEADER, decode))

t.test('each bad field', async (t) =>
  badFields(t, decode, [
    ['version', patched(HEADER, 0, '00000002'), 'ERR_MULTIFD_PROTOCOL', 'version 2, expected 1'],
    ['no page size', patched(HEADER, 4, '0000000000000000'), 'ERR_MULTIFD_PROTOCOL', 'page size is 0'],
    ['odd page size', patched(HEADER, 4, '0000000000001001'), 'ERR_MULTIFD_PROTOCOL', 'page size is 4097'],
    ['huge page size', patched(HEADER, 4, '8000000000000000'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    ['huge bitmap offset', patched(HEADER, 12, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    ['huge pages offset', patched(HEADER, 20, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
  ]),
)

t.test('a place that can not be', async (t) => {
  const fine: MappedRamHeader = { pageSize: 4096, bitmapOffset: 142, pagesOffset: 0x100000 }
  const cases: [Partial<MappedRamHeader>, number, string][] = [
    [{ pageSize: 8192 }, 16777216, 'page size is 8192, expected 4096'],
    [{ bitmapOffset: 141 }, 16777216, 'bitmap_offset is 0x8d, expected 0x8e'],
    [{ bitmapOffset: 2 ** 52 }, 16777216, 'bitmap_offset'],
    [{ pagesOffset: 0x100001 }, 16777216, 'pages_offset is 0x100001, expected a multiple of 4096'],
    [{ pagesOffset: 0 }, 16777216, 'pages_offset is 0x0, expected at least 0x28e'],
    [{ pagesOffset: 4096 }, 2 ** 30, 'expected at least 0x808e'],
    [{ pagesOffset: 2 ** 53 - 4096 }, 8192, 'pages end at'],
  ]
  for (const [change, usedLength, words] of cases) {
    const run = () => placeMappedRam({ ...fine, ...change }, 114, usedLength, 4096)
    throwsCode(t, run, 'ERR_MULTIFD_PROTOCOL', words)
  }
})

t.test('readers do not rely on the alignment of writers', async (t) => {
  t.match(placeMappedRam({ pageSize: 4096, bitmapOffset: 142, pagesOffset: 4096 }, 114, 65536, 4096), { end: 69632 })
})

t.test('a bitmap has whole words', async (t) => {
  for (const [pages, size] of [
    [1, 8],
    [64, 8],
    [65, 16],
    [2 ** 32, 2 ** 29],
  ] as const) {
    t.equal(mappedRamBitmapSize(pages * 4096, 4096), size)
  }
})

t.test('what is laid out is accepted', async () => {
  fc.assert(
    fc.property(fc.nat(2 ** 40), fc.integer({ min: 1, max: 2 ** 30 }), (position, pages) => {
      const layout = layoutMappedRam(position, pages * 4096, 4096)
      const place = placeMappedRam({ pageSize: 4096, ...layout }, position, pages * 4096, 4096)
      return place.end === layout.end && place.pagesOffset % 0x100000 === 0
    }),
  )
})

t.test('page k is bit k & 7 of byte k >> 3', async (t) => {
  const bitmap = new Uint8Array(8)
  for (const page of [0, 7, 8, 63]) markPage(bitmap, page, true)
  t.same(bitmap, fromHex('81 01 00 00 00 00 00 80'))
  t.same(
    Array.from({ length: 64 }, (_, page) => page).filter((page) => hasPage(bitmap, page)),
    [0, 7, 8, 63],
  )
  markPage(bitmap, 7, false)
  t.notOk(hasPage(bitmap, 7))
  t.ok(hasPage(bitmap, 0))
  t.notOk(hasPage(bitmap, 1000), 'beyond the bitmap')
})
