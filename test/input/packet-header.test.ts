// Any packet header against a checker that is slow and obvious: the receiver accepts exactly the valid ones.

import fc from 'fast-check'
import t from 'tap'
import { encodeSyncPacket } from '../../src/wire/multifd-packet.js'
import { Arena, PAGE } from './arena.js'
import { FileFeed } from './feed.js'
import { seedOf } from './random.js'
import { FULL, receiveChannel, Tally } from './runs.js'
import { HEADER_SIZE } from './streams.js'

const RUNS = FULL ? 100_000 : 4000
const PAGES = 128
const BLOCKS = [
  { idstr: 'pc.ram', size: 64 * PAGE },
  { idstr: 'pc.bios', size: PAGE },
  { idstr: 'x'.repeat(255), size: 3 * PAGE },
]

/** A header as a peer may write it. */
interface WildHeader {
  magic: number
  version: number
  flags: number
  pagesAlloc: number
  normalPages: number
  zeroPages: number
  /** What is added to the right length of the payload. */
  sizeError: number
  packetNum: bigint
  idstr: string
  offsets: bigint[]
  reserved: number
}

const word = fc.oneof(
  fc.constantFrom(0, 1, 127, 128, 129, 4096, 0x7fffffff, 0x80000000, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
)

/** Mostly the one value, and sometimes another. */
function mostly<T>(weight: number, usual: fc.Arbitrary<T>, other: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ weight, arbitrary: usual }, { weight: 1, arbitrary: other })
}

const page = fc.integer({ min: 0, max: 63 }).map((n) => BigInt(n * PAGE))
const anyOffset = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(64n, 65n, 2n ** 20n, 2n ** 32n, 2n ** 41n, 2n ** 51n, 2n ** 52n - 1n).map((n) => n * 4096n),
  fc.integer({ min: 0, max: 65 * PAGE }).map(BigInt),
)

const header: fc.Arbitrary<WildHeader> = fc.record({
  magic: mostly(40, fc.constant(0x11223344), word),
  version: mostly(40, fc.constant(1), word),
  flags: mostly(20, fc.constantFrom(0, 0, 0, 1), fc.oneof(fc.integer({ min: 0, max: 0xff }), word)),
  pagesAlloc: mostly(20, fc.constant(PAGES), word),
  normalPages: mostly(20, fc.integer({ min: 0, max: 4 }), fc.oneof(fc.integer({ min: 0, max: 130 }), word)),
  zeroPages: mostly(20, fc.integer({ min: 0, max: 4 }), fc.oneof(fc.integer({ min: 0, max: 130 }), word)),
  sizeError: mostly(40, fc.constant(0), fc.constantFrom(-1, 1, -4096, 4096, 2 ** 31)),
  packetNum: mostly(40, fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  idstr: mostly(
    10,
    fc.constant('pc.ram'),
    fc.constantFrom('pc.bios', 'x'.repeat(255), 'x'.repeat(256), 'pc.rom', '', 'pc.ra'),
  ),
  offsets: fc.array(mostly(60, page, anyOffset), { minLength: 8, maxLength: PAGES }),
  reserved: fc.integer({ min: 0, max: 0xff }),
})

/** Why a header is bad, or undefined for a good one: the format's rules, one after the other. */
function faultOf(wild: WildHeader): string | undefined {
  const { magic, version, flags, pagesAlloc, normalPages, zeroPages, sizeError, packetNum, idstr, offsets } = wild
  if (magic !== 0x11223344) return 'magic'
  if (version !== 1) return 'version'
  if (flags > 0x7f) return 'unknown flag'
  if (flags >= 0x40) return 'device state'
  if (pagesAlloc > PAGES) return 'more slots than there are'
  if (normalPages + zeroPages > pagesAlloc) return 'more pages than slots'
  if (packetNum >= 2n ** 53n) return 'a number that a double does not hold'
  if (normalPages + zeroPages === 0) return undefined
  if (flags > 1) return 'compressed'
  if (normalPages > 0 && sizeError !== 0) return 'length of the payload'
  const block = BLOCKS.find((known) => known.idstr === idstr)
  if (!block) return 'unknown block'
  const used = slots(offsets).slice(0, normalPages + zeroPages)
  if (used.some((offset) => offset % 4096n !== 0n)) return 'not a page'
  if (used.some((offset) => offset + 4096n > BigInt(block.size))) return 'beyond the block'
  return undefined
}

function slots(offsets: bigint[]): bigint[] {
  return Array.from({ length: PAGES }, (_, i) => offsets[i % offsets.length]!)
}

function write(wild: WildHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, wild.magic)
  view.setUint32(4, wild.version)
  view.setUint32(8, wild.flags)
  view.setUint32(12, wild.pagesAlloc)
  view.setUint32(16, wild.normalPages)
  view.setUint32(20, wild.normalPages * PAGE + wild.sizeError)
  view.setBigUint64(24, wild.packetNum)
  view.setUint32(32, wild.zeroPages)
  bytes.fill(wild.reserved, 36, 64)
  bytes.set(Buffer.from(wild.idstr, 'latin1'), 64)
  for (const [i, offset] of slots(wild.offsets).entries()) view.setBigUint64(320 + 8 * i, offset)
  return bytes
}

t.test(`${RUNS} headers are accepted if they are valid, and only then`, async (t) => {
  const feed = new FileFeed()
  t.teardown(() => feed.close())
  const arena = new Arena(BLOCKS)
  const blocks = arena.load()
  const sync = new Uint8Array(HEADER_SIZE)
  encodeSyncPacket(new DataView(sync.buffer), 0, PAGES, 0)
  const payload = new Uint8Array(PAGES * PAGE)
  const tally = new Tally()
  const faults = new Map<string, number>()

  const property = fc.property(header, fc.integer({ min: 1, max: 255 }), (wild, content) => {
    const fault = faultOf(wild)
    faults.set(fault ?? 'none', (faults.get(fault ?? 'none') ?? 0) + 1)
    const data = payload.fill(content).subarray(0, fault === undefined ? wild.normalPages * PAGE : payload.length)
    feed.put(sync, write(wild), data, sync)
    const refusals = new Set(['ERR_MULTIFD_PROTOCOL', 'ERR_MULTIFD_BLOCK', 'ERR_MULTIFD_UNSUPPORTED'])
    const what = (): string => `${fault ?? 'valid'}: ${fc.stringify(wild)}`
    tally.run(() => receiveChannel(feed.open(), blocks), fault === undefined ? 'end' : refusals, what)
    if (!arena.intact) tally.problem(`${what()}: wrote outside of its blocks`)
    if (fault === undefined && !arrived(wild, content)) tally.problem(`${what()}: pages are not in their place`)
    return tally.problems.length === 0
  })

  /** Whether each page that only one slot names has what was sent. */
  function arrived({ normalPages, zeroPages, idstr, offsets }: WildHeader, content: number): boolean {
    const block = arena.blocks.find((known) => known.idstr === idstr)
    const used = slots(offsets).slice(0, normalPages + zeroPages)
    return used.every((offset, i) => {
      if (used.indexOf(offset) !== used.lastIndexOf(offset)) return true
      const bytes = block!.bytes(Number(offset), PAGE)
      return bytes.every((byte) => byte === (i < normalPages ? content : 0))
    })
  }

  const { failed, counterexample } = fc.check(property, { numRuns: RUNS, seed: seedOf(t) })
  t.comment(tally.summary)
  t.comment([...faults].map(([fault, count]) => `${fault} ${count}`).join(', '))
  t.notOk(failed, failed ? `${tally.problems[0]}; smallest ${fc.stringify(counterexample)}` : 'as the checker says')
  for (const fault of ['none', 'beyond the block', 'not a page', 'more pages than slots', 'unknown block']) {
    t.ok((faults.get(fault) ?? 0) > 20, `enough headers with the fault: ${fault}`)
  }
})
