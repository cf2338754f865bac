import fc from 'fast-check'
import t from 'tap'
import { MultifdError } from '../../src/errors.js'
import { locateStreamEnd, type StreamEnd, StreamEndFinder } from '../../src/wire/stream-end.js'
import { NaiveWriter, throwsCode } from './helpers.js'

const JSON_TEXT = '{"page_size": 4096, "devices": []}'

/** Device state `data`, the footer of a section, EOF and a description. */
function stream(data: Iterable<number>, json = JSON_TEXT): Uint8Array {
  const writer = new NaiveWriter().raw(data).be(1, 0x7e).be(4, 39)
  return writer.be(1, 0).be(1, 6).be(4, json.length).text(json).bytes()
}

/** Bytes that look like the end, with a description said to be so long. */
const bait = (length: number) => new NaiveWriter().be(1, 0x7e).be(4, 1).be(1, 0).be(1, 6).be(4, length).text('{"').out

/** Everything the finder says while the bytes come in pieces. */
function feed(bytes: Uint8Array, chunk: number, finder = new StreamEndFinder()): StreamEnd[] {
  const found: StreamEnd[] = []
  for (let at = 0; at < bytes.length; at += chunk) {
    const end = finder.push(bytes.subarray(at, at + chunk))
    if (end !== undefined) found.push(end)
  }
  return found
}

function expectEnd(t: import('tap').Test, bytes: Uint8Array, name: string): void {
  const eofAt = bytes.length - JSON_TEXT.length - 6
  const expected = { eofAt, vmdescAt: eofAt + 1, end: bytes.length, vmdesc: JSON.parse(JSON_TEXT) }
  for (const chunk of [1, 2, 7, 64, bytes.length]) t.same(feed(bytes, chunk), [expected], `${name}, pieces of ${chunk}`)
  t.same(locateStreamEnd(bytes), expected, `${name}, closed`)
}

t.test('finds the end at its last byte, in pieces of any size', async (t) => {
  expectEnd(t, stream([]), 'no device state')
  expectEnd(t, stream(new Uint8Array(1000).fill(0x7e)), 'footer bytes only')
  expectEnd(t, stream([0x7e, 0, 0, 0, 1, 0, 6, 0, 0]), 'half a match before the end')
})

t.test('false matches in device data do not hide the end', async (t) => {
  expectEnd(t, stream(bait(5)), 'a short one')
  expectEnd(t, stream(bait(0x7b22_0000)), 'one that is longer than any description')
  expectEnd(t, stream(bait(10_000_000)), 'one that waits for more than will ever come')
  expectEnd(t, stream([...bait(10_000_000), ...bait(30), 1, 2, 3, ...bait(2)]), 'several')
  expectEnd(t, stream([...bait(10_000_000).slice(0, 9)]), 'one that is broken off by the end')
})

t.test('a false match that ends where the stream ends is told by its JSON', async (t) => {
  // The bait claims just as many bytes as follow.
  const after = stream([]).length
  expectEnd(t, stream(bait(2 + after)), 'same end')
})

t.test('an end that more bytes follow was none', async (t) => {
  const finder = new StreamEndFinder()
  const first = stream([])
  t.ok(finder.push(first))
  t.equal(finder.push(Uint8Array.of(1, 2, 3)), undefined)
  const end = finder.push(first)
  t.match(end, { eofAt: first.length + 3 + 5, end: 2 * first.length + 3 })
  t.equal(finder.tail.length, 2 * first.length + 3)
})

t.test('a whole description in the data is the end only while nothing follows it', async (t) => {
  const inner = stream([], '{"page_size": 1, "devices": []}')
  const bytes = stream([...inner, 0])
  t.same(
    feed(bytes, 1).map(({ end }) => end),
    [inner.length, bytes.length],
  )
  t.same(
    feed(bytes, bytes.length).map(({ end }) => end),
    [bytes.length],
  )
  t.equal(locateStreamEnd(bytes).end, bytes.length)
})

t.test('any data before the end', async (t) => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => [...bytes]),
    fc.integer({ min: 0, max: 300 }).map(bait),
    fc.constantFrom([0x7e], [0x7e, 0, 0, 0, 1], [0x7e, 0, 0, 0, 1, 0, 6], bait(0xffffffff), bait(5000)),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), fc.integer({ min: 1, max: 50 }), (pieces, chunk) => {
      const bytes = stream(pieces.flat())
      const found = feed(bytes, chunk)
      return found.length === 1 && found[0]?.end === bytes.length && locateStreamEnd(bytes).eofAt === found[0].eofAt
    }),
  )
  t.pass()
})

t.test('the tail keeps every byte, beyond the first buffer', async (t) => {
  const data = Uint8Array.from({ length: 700_000 }, (_, i) => i * 31)
  const finder = new StreamEndFinder()
  const bytes = stream(data)
  t.equal(feed(bytes, 1448, finder).length, 1)
  t.ok(Buffer.compare(finder.tail, bytes) === 0)
})

t.test('feeding byte by byte does not look at the same bytes again', async (t) => {
  // A quadratic search would take minutes here: 2 MB of footers, in pieces.
  const finder = new StreamEndFinder()
  const piece = new Uint8Array(64).fill(0x7e)
  const start = process.hrtime.bigint()
  for (let i = 0; i < 32_768; i++) finder.push(piece)
  const seconds = Number(process.hrtime.bigint() - start) / 1e9
  t.ok(seconds < 10, `${seconds} s`)
})

t.test('limits', async (t) => {
  const finder = new StreamEndFinder(100)
  t.equal(finder.push(new Uint8Array(100)), undefined)
  throwsCode(t, () => finder.push(new Uint8Array(1)), 'ERR_MULTIFD_PROTOCOL', '101 bytes and no end')
  const baited = new Uint8Array(Array.from({ length: 65 }, () => bait(1_000_000)).flat())
  throwsCode(t, () => new StreamEndFinder().push(baited), 'ERR_MULTIFD_PROTOCOL', 'more than 64 places')
  t.same(
    feed(stream(Array.from({ length: 65 }, () => bait(5)).flat()), 10_000).length,
    1,
    'those that are over do not count',
  )
})

t.test('a closed stream without a description ends in a footer and EOF', async (t) => {
  const bytes = new NaiveWriter().be(1, 4).be(4, 3).zeros(5).be(1, 0x7e).be(4, 3).be(1, 0).bytes()
  t.same(locateStreamEnd(bytes), { eofAt: 15, vmdescAt: undefined, end: 16, vmdesc: undefined })
  t.same(feed(bytes, 1), [], 'while it is open there is no telling')
})

t.test('device data that looks like a footer and EOF, and is of no section, is no end', async (t) => {
  const bytes = new NaiveWriter().be(1, 4).be(4, 3).zeros(5).be(1, 0x7e).be(4, 0x71f3e800).be(1, 0).bytes()
  throwsCode(t, () => locateStreamEnd(bytes), 'ERR_MULTIFD_TRUNCATED', 'inside device state')
})

t.test('more places that look like the end than can be by chance are refused, and not tried one by one', async (t) => {
  const marks = 20_000
  const bytes = new NaiveWriter()
  for (let left = marks; left > 0; left--) {
    bytes
      .be(1, 0x7e)
      .be(4, 0)
      .be(1, 0)
      .be(1, 6)
      .be(4, 13 * left - 11)
      .text('{"')
  }
  throwsCode(t, () => locateStreamEnd(bytes.bytes()), 'ERR_MULTIFD_PROTOCOL', 'places that look like its end')
})

t.test('a closed stream that ends elsewhere is truncated', async (t) => {
  const bytes = stream([1, 2, 3])
  for (let length = 0; length < bytes.length; length++) {
    if (length === 9) continue // just after the EOF byte
    throwsCode(t, () => locateStreamEnd(bytes.subarray(0, length)), 'ERR_MULTIFD_TRUNCATED', 'inside device state')
  }
  throwsCode(t, () => locateStreamEnd(stream([], '{"page_size": 1}')), 'ERR_MULTIFD_TRUNCATED', 'inside')
})

t.test('a defect in parsing is not taken for a false match', async (t) => {
  const parse = JSON.parse
  JSON.parse = () => ({
    get page_size() {
      throw new TypeError('a defect')
    },
  })
  try {
    locateStreamEnd(stream([]))
    t.fail('did not throw')
  } catch (error) {
    t.notOk(error instanceof MultifdError)
  } finally {
    JSON.parse = parse
  }
})
