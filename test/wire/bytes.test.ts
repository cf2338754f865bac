import fc from 'fast-check'
import t from 'tap'
import {
  bytesToText,
  formatUuid,
  isPowerOfTwo,
  parseUuid,
  readCstr8,
  readU64,
  viewOf,
  writeCstr8,
  writeU64,
} from '../../src/wire/bytes.js'
import { encoded, everyTruncation, fromHex, NaiveWriter, naiveBe, throwsCode, toHex, U64_EDGES } from './helpers.js'

const UUID = '12345678-9abc-def0-1122-334455667788'

t.test('64-bit fields are what a BigInt codec writes and reads', async (t) => {
  const check = (n: number) => {
    const bytes = encoded(8, (view, at) => writeU64(view, at, n), 3)
    return (
      toHex(bytes) === toHex(new NaiveWriter().be(8, n).bytes()) &&
      readU64(viewOf(bytes), 0) === n &&
      naiveBe(bytes, 0, 8) === BigInt(n)
    )
  }
  for (const n of U64_EDGES) t.ok(check(n), `${n}`)
  fc.assert(fc.property(fc.maxSafeNat(), check))
})

t.test('64-bit fields above 2^53 - 1 are refused', async (t) => {
  for (const [text, shown] of [
    ['0020000000000000', '0x20000000000000,'],
    ['0020000000000001', '0x20000000000001,'],
    ['ffffffffffffffff', '0xffffffffffffffff,'],
  ] as const) {
    throwsCode(t, () => readU64(viewOf(fromHex(text)), 0), 'ERR_MULTIFD_PROTOCOL', shown)
  }
  for (const n of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
    throwsCode(t, () => writeU64(viewOf(new Uint8Array(8)), 0, n), 'ERR_MULTIFD_ARGUMENT', `${n}`)
  }
})

t.test('64-bit fields at the end of the input are truncated', async (t) => {
  everyTruncation(t, new Uint8Array(8), (bytes) => readU64(viewOf(bytes), 0))
})

t.test('counted strings go there and back', async (t) => {
  for (const text of ['', 'ram', '\0\x7f\x80\xff', 'x'.repeat(255)]) {
    const bytes = encoded(1 + text.length, (view, at) => t.equal(writeCstr8(view, at, text), at + 1 + text.length), 5)
    t.same(bytes, new NaiveWriter().cstr8(text).bytes())
    t.equal(readCstr8(viewOf(bytes), 0), text)
  }
  everyTruncation(t, fromHex('03 72616d'), (bytes) => readCstr8(viewOf(bytes), 0))
})

t.test('counted strings of 256 bytes, or outside latin1, are refused', async (t) => {
  const view = viewOf(new Uint8Array(300))
  throwsCode(t, () => writeCstr8(view, 0, 'x'.repeat(256)), 'ERR_MULTIFD_ARGUMENT', '256')
  throwsCode(t, () => writeCstr8(view, 0, 'naïve €'), 'ERR_MULTIFD_ARGUMENT', 'latin1')
})

t.test('long texts are put together whole', async (t) => {
  const bytes = Uint8Array.from({ length: 20_000 }, (_, i) => i)
  t.equal(bytesToText(viewOf(bytes), 0, bytes.length), Buffer.from(bytes).toString('latin1'))
  throwsCode(t, () => bytesToText(viewOf(bytes), 1, bytes.length), 'ERR_MULTIFD_TRUNCATED', 'text')
})

t.test('uuids are their bytes from left to right', async (t) => {
  const bytes = fromHex('123456789abcdef01122334455667788')
  t.same(parseUuid(UUID), bytes)
  t.same(parseUuid(UUID.toUpperCase()), bytes)
  t.equal(formatUuid(viewOf(bytes), 0), UUID)
  everyTruncation(t, bytes, (cut) => formatUuid(viewOf(cut), 0))
  for (const text of ['', UUID.slice(1), `${UUID}0`, UUID.replace('1', 'g'), UUID.replaceAll('-', '')]) {
    throwsCode(t, () => parseUuid(text), 'ERR_MULTIFD_ARGUMENT', 'no uuid')
  }
})

t.test('powers of two', async (t) => {
  for (const n of [1, 2, 4096, 2 ** 31, 2 ** 32, 2 ** 52]) t.ok(isPowerOfTwo(n), `${n}`)
  for (const n of [0, -2, 3, 6, 0.5, 4097, 2 ** 32 + 1, 2 ** 53 - 1, Number.NaN]) t.notOk(isPowerOfTwo(n), `${n}`)
})
