import fc from 'fast-check'
import t from 'tap'
import { viewOf } from '../../src/wire/bytes.js'
import {
  decodeIdstr,
  encodeIdstr,
  encodeSyncPacket,
  IDSTR_OFFSET,
  MULTIFD_FLAG,
  packetHeaderSize,
  pagesPerPacket,
  sameIdstr,
} from '../../src/wire/multifd-packet.js'
import { decodePacketHeader, encodePacketHeader, WholeHeader } from '../support/packet-codec.js'
import {
  badFields,
  encoded,
  everyTruncation,
  fromHex,
  NaiveWriter,
  naiveBe,
  patched,
  throwsCode,
  U64_EDGES,
} from './helpers.js'

const N = 128

function decodeInto(bytes: Uint8Array, n = N): WholeHeader {
  const header = new WholeHeader(n)
  decodePacketHeader(viewOf(bytes), 0, n, header)
  return header
}

/** What a test gives to be encoded. */
interface Fields {
  flags: number
  pagesAlloc: number
  normalPages: number
  nextPacketSize: number
  packetNum: number
  zeroPages: number
  offsets: number[]
  idstr: string
}

function naiveHeader(fields: Fields, n: number): Uint8Array {
  const writer = new NaiveWriter()
    .be(4, 0x11223344)
    .be(4, 1)
    .be(4, fields.flags)
    .be(4, fields.pagesAlloc)
    .be(4, fields.normalPages)
    .be(4, fields.nextPacketSize)
    .be(8, fields.packetNum)
    .be(4, fields.zeroPages)
    .zeros(28)
    .text(fields.idstr)
    .zeros(256 - fields.idstr.length)
  for (let i = 0; i < n; i++) writer.be(8, fields.offsets[i] ?? 0)
  return writer.bytes()
}

function fastHeader(fields: Fields, n: number): Uint8Array {
  const header = new WholeHeader(n)
  const { offsets, idstr, ...rest } = fields
  Object.assign(header, rest)
  header.offsets.fill(0xdead000)
  header.offsets.set(offsets)
  return encoded(packetHeaderSize(n), (view, at) => encodePacketHeader(view, at, header, encodeIdstr(idstr)), 16)
}

const DATA: Fields = {
  flags: 0,
  pagesAlloc: N,
  normalPages: 2,
  nextPacketSize: 8192,
  packetNum: 6,
  zeroPages: 1,
  offsets: [0x27f000, 0x201000, 0x202000],
  idstr: 'pc.ram',
}
const PACKET = naiveHeader(DATA, N)

t.test('sizes by page size', async (t) => {
  for (const [pageSize, n, size] of [
    [1024, 512, 4416],
    [4096, 128, 1344],
    [8192, 64, 832],
    [16384, 32, 576],
    [65536, 8, 384],
    [524288, 1, 328],
  ] as const) {
    t.equal(pagesPerPacket(pageSize), n)
    t.equal(packetHeaderSize(n), size)
  }
  for (const pageSize of [0, 512, 4095, 6144, 1048576, -4096, Number.NaN]) {
    throwsCode(t, () => pagesPerPacket(pageSize), 'ERR_MULTIFD_ARGUMENT', 'page size')
  }
})

t.test('a data packet of QEMU 10.0: 96 pages with data, 32 zero pages', async (t) => {
  const head = fromHex(`11 22 33 44  00 00 00 01  00 00 00 00  00 00 00 80  00 00 00 60  00 06 00 00
    00 00 00 00 00 00 00 06  00 00 00 20  00 00 00 00 ${'00'.repeat(24)} 70 63 2e 72 61 6d 00`)
  const bytes = new Uint8Array(packetHeaderSize(N))
  bytes.set(head)
  const offsets = Array.from({ length: N }, (_, i) => (N - i) * 4096)
  bytes.set(new Uint8Array(offsets.flatMap((offset) => [...new NaiveWriter().be(8, offset).out])), 320)
  const header = decodeInto(bytes)
  t.match(header, { flags: 0, pagesAlloc: 128, normalPages: 96, nextPacketSize: 393216, packetNum: 6, zeroPages: 32 })
  t.same([...header.offsets], offsets)
  t.equal(decodeIdstr(viewOf(bytes), IDSTR_OFFSET), 'pc.ram')
  t.same(
    encoded(bytes.length, (view, at) => encodePacketHeader(view, at, header, encodeIdstr('pc.ram'))),
    bytes,
  )
})

t.test('the last packets of a zstd channel of QEMU 7.2', async (t) => {
  const cases: [string, number, number, number, number][] = [
    ['00000004 00000080 00000060 00024b75 0000000000000002', 4, 96, 150389, 2],
    ['00000005 00000080 00000002 00000041 0000000000000007', 5, 2, 65, 7],
    ['00000001 00000080 00000000 00000041 0000000000000009', 1, 0, 0, 9], // the size is stale: nothing follows
    ['00000000 00000080 00000000 00000041 0000000000000009', 0, 0, 0, 9],
  ]
  for (const [text, flags, normalPages, nextPacketSize, packetNum] of cases) {
    const bytes = new Uint8Array(packetHeaderSize(N))
    bytes.set(fromHex(`11223344 00000001 ${text}`))
    t.match(decodeInto(bytes), { flags, normalPages, nextPacketSize, packetNum, zeroPages: 0 })
  }
})

t.test('headers are what a slow codec writes, and zeros beyond use', async (t) => {
  t.same(fastHeader(DATA, N), PACKET)
  const page = fc.nat(2 ** 41 - 1).map((k) => k * 4096)
  const edge = fc.constantFrom(...U64_EDGES)
  fc.assert(
    fc.property(
      fc.nat(N),
      fc.nat(N),
      fc.oneof(edge, fc.maxSafeNat()),
      fc.array(page, { minLength: N, maxLength: N }),
      fc.constantFrom(0, 2, 4),
      fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }).filter((name) => !name.includes('\0')),
      (normal, wish, packetNum, pages, method, idstr) => {
        const zero = Math.min(wish, N - normal)
        const nextPacketSize = method === 0 ? normal * 4096 : normal * 17
        const fields: Fields = {
          flags: method,
          pagesAlloc: N,
          normalPages: normal,
          nextPacketSize,
          packetNum,
          zeroPages: zero,
          offsets: pages.slice(0, normal + zero),
          idstr,
        }
        const slow = naiveHeader(fields, N)
        if (Buffer.compare(fastHeader(fields, N), slow) !== 0) return false
        const read = decodeInto(slow)
        const same = [8, 12, 16, 20].map((at) => Number(naiveBe(slow, at, 4)))
        const [flags, alloc, normalRead, size] = same
        return (
          read.flags === flags &&
          read.pagesAlloc === alloc &&
          read.normalPages === normalRead &&
          read.nextPacketSize === size &&
          BigInt(read.packetNum) === naiveBe(slow, 24, 8) &&
          read.zeroPages === Number(naiveBe(slow, 32, 4)) &&
          fields.offsets.every((offset, i) => read.offsets[i] === offset) &&
          decodeIdstr(viewOf(slow), IDSTR_OFFSET) === idstr
        )
      },
    ),
    { numRuns: 50 },
  )
})

t.test('a SYNC packet has no page, no name, and n in pages_alloc', async (t) => {
  for (const n of [8, 128]) {
    const bytes = encoded(packetHeaderSize(n), (view, at) => encodeSyncPacket(view, at, n, 0x1_0000_0001), 8)
    const fields = { ...DATA, flags: 1, pagesAlloc: n, normalPages: 0, nextPacketSize: 0, packetNum: 0x1_0000_0001 }
    t.same(bytes, naiveHeader({ ...fields, zeroPages: 0, offsets: [], idstr: '' }, n))
    t.match(decodeInto(bytes, n), { flags: MULTIFD_FLAG.sync, packetNum: 0x1_0000_0001, pagesAlloc: n })
  }
})

t.test('a SYNC packet of 9.2 and later has 0 in pages_alloc', async (t) => {
  const bytes = encoded(packetHeaderSize(N), (view, at) => encodeSyncPacket(view, at, N, 3))
  t.match(decodeInto(patched(bytes, 12, '00000000')), { flags: 1, pagesAlloc: 0, packetNum: 3 })
})

t.test('the largest counts that fit', async (t) => {
  t.match(decodeInto(patched(PACKET, 16, '00000000 00000000 0000000000000006 00000080')), { zeroPages: 128 })
  t.match(decodeInto(patched(PACKET, 16, '00000080 00080000 0000000000000006 00000000')), { normalPages: 128 })
  t.match(decodeInto(patched(patched(PACKET, 8, '00000002'), 20, '00100000')), { nextPacketSize: 1048576 })
})

t.test('method bits mean nothing without pages', async (t) => {
  for (const flags of ['00000008', '0000003e', '00000021']) {
    const bytes = patched(patched(PACKET, 8, flags), 16, '00000000 00000000 0000000000000006 00000000')
    t.match(decodeInto(bytes), { normalPages: 0 })
  }
})

t.test('every truncation', async (t) => everyTruncation(t, PACKET, decodeInto))

t.test('each bad field', async (t) =>
  badFields(t, decodeInto, [
    ['magic', patched(PACKET, 0, '11223345'), 'ERR_MULTIFD_PROTOCOL', 'magic is 0x11223345'],
    ['version', patched(PACKET, 4, '00000000'), 'ERR_MULTIFD_PROTOCOL', 'version is 0'],
    ['unknown flag', patched(PACKET, 8, '00000080'), 'ERR_MULTIFD_PROTOCOL', 'flags are 0x80'],
    ['unknown high flag', patched(PACKET, 8, '80000000'), 'ERR_MULTIFD_PROTOCOL', /flags are .*, known are 0x7f/],
    ['device state', patched(PACKET, 8, '00000040'), 'ERR_MULTIFD_UNSUPPORTED', 'device state'],
    ['short device state', patched(PACKET, 8, '00000040').slice(0, 12), 'ERR_MULTIFD_UNSUPPORTED', 'device state'],
    ['qpl', patched(PACKET, 8, '00000008'), 'ERR_MULTIFD_UNSUPPORTED', 'qpl'],
    ['uadk', patched(PACKET, 8, '00000010'), 'ERR_MULTIFD_UNSUPPORTED', 'uadk'],
    ['qatzip', patched(PACKET, 8, '00000020'), 'ERR_MULTIFD_UNSUPPORTED', 'qatzip'],
    ['two methods', patched(PACKET, 8, '00000006'), 'ERR_MULTIFD_PROTOCOL', 'methods 0x6'],
    [
      'pages_alloc',
      patched(PACKET, 12, '00000081'),
      'ERR_MULTIFD_PROTOCOL',
      'pages_alloc is 129, expected at most 128',
    ],
    ['normal_pages', patched(PACKET, 16, '00000081'), 'ERR_MULTIFD_PROTOCOL', 'normal_pages is 129'],
    ['normal_pages over alloc', patched(PACKET, 12, '00000001'), 'ERR_MULTIFD_PROTOCOL', 'normal_pages is 2'],
    ['huge normal_pages', patched(PACKET, 16, 'ffffffff'), 'ERR_MULTIFD_PROTOCOL', 'normal_pages is 4294967295'],
    ['zero_pages', patched(PACKET, 32, '0000007f'), 'ERR_MULTIFD_PROTOCOL', 'zero_pages is 127, expected at most 126'],
    ['huge zero_pages', patched(PACKET, 32, 'ffffffff'), 'ERR_MULTIFD_PROTOCOL', 'zero_pages is 4294967295'],
    ['size of none', patched(PACKET, 20, '00002001'), 'ERR_MULTIFD_PROTOCOL', 'is 8193, expected 8192'],
    ['no chunk', patched(patched(PACKET, 8, '00000002'), 20, '00000000'), 'ERR_MULTIFD_PROTOCOL', 'is 0, expected 1..'],
    ['big chunk', patched(patched(PACKET, 8, '00000004'), 20, '00100001'), 'ERR_MULTIFD_PROTOCOL', 'is 1048577'],
    ['packet_num', patched(PACKET, 24, '0020000000000000'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    [
      'unaligned offset',
      patched(PACKET, 320, '0000000000001001'),
      'ERR_MULTIFD_PROTOCOL',
      'offset 0 is 0x1001, expected a multiple of 4096',
    ],
    ['unaligned zero page', patched(PACKET, 336, '0000000000000800'), 'ERR_MULTIFD_PROTOCOL', 'offset 2'],
    ['huge offset', patched(PACKET, 328, 'fffffffffffff000'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
  ]),
)

t.test('alignment goes by the page size of the layout', async (t) => {
  const n = pagesPerPacket(65536)
  const fields = { ...DATA, pagesAlloc: n, normalPages: 1, nextPacketSize: 65536, zeroPages: 0 }
  t.match(decodeInto(naiveHeader({ ...fields, offsets: [65536] }, n), n), { normalPages: 1 })
  throwsCode(t, () => decodeInto(naiveHeader({ ...fields, offsets: [4096] }, n), n), 'ERR_MULTIFD_PROTOCOL', '65536')
})

t.test('block names', async (t) => {
  for (const name of ['a', 'pc.ram', '0000:00:02.0/vmem0', 'x'.repeat(255)]) {
    const idstr = encodeIdstr(name)
    t.equal(idstr.length, 256)
    t.equal(decodeIdstr(viewOf(idstr), 0), name)
    t.ok(sameIdstr(viewOf(idstr), 0, encodeIdstr(name)))
    t.notOk(sameIdstr(viewOf(idstr), 0, encodeIdstr('other')))
  }
  t.notOk(sameIdstr(viewOf(encodeIdstr('pc.ram')), 0, encodeIdstr('pc.ram2')))
  for (const name of ['', 'x'.repeat(256), 'a\0b', '€']) {
    throwsCode(t, () => encodeIdstr(name), 'ERR_MULTIFD_ARGUMENT', 'block name')
  }
})

t.test('leftovers after the NUL of a name are not looked at', async (t) => {
  const idstr = encodeIdstr('pc.ram')
  idstr.fill(0x41, 7)
  t.equal(decodeIdstr(viewOf(idstr), 0), 'pc.ram')
  t.ok(sameIdstr(viewOf(idstr), 0, encodeIdstr('pc.ram')))
})

t.test('a name without its NUL is refused, one that is cut off truncated', async (t) => {
  const unterminated = new Uint8Array(256).fill(0x41)
  throwsCode(t, () => decodeIdstr(viewOf(unterminated), 0), 'ERR_MULTIFD_PROTOCOL', 'no NUL')
  t.notOk(sameIdstr(viewOf(unterminated), 0, encodeIdstr('A')))
  everyTruncation(t, encodeIdstr('pc.ram'), (bytes) => decodeIdstr(viewOf(bytes), 0))
})
