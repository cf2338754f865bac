// XBZRLE: known bytes, a slow and obvious codec side by side, run lengths at their limits, and runs that are not valid.

import fc from 'fast-check'
import t from 'tap'
import { type ByteWords, decodeXbzrle, encodeXbzrle } from '../../src/wire/xbzrle.js'
import { fromHex, throwsCode, toHex } from './helpers.js'

const RUN_MAX = 0x3fff

function byteWords(size: number): ByteWords & { bytes: Uint8Array } {
  const bytes = new Uint8Array(size)
  return { bytes, words: new Int32Array(bytes.buffer) }
}

/** The change from one page to the next, or undefined where it needs more than `room`. The old page lies at `beforeAt`. */
function encode(before: Uint8Array, after: Uint8Array, room = before.length, beforeAt = 0): Uint8Array | undefined {
  const old = byteWords(beforeAt + before.length + 8)
  // What lies around the page must not be looked at.
  old.bytes.fill(0x5a)
  old.bytes.set(before, beforeAt)
  const now = byteWords(after.length)
  now.bytes.set(after)
  const into = new Uint8Array(room + 16).fill(0xee)
  const length = encodeXbzrle(old, beforeAt, now, into, 8, room)
  const end = 8 + Math.max(0, length)
  if (length >= 0 && into.some((byte, at) => (at < 8 || at >= end) && byte !== 0xee)) {
    throw new Error('bytes around the place were written')
  }
  if (into.subarray(8 + room).some((byte) => byte !== 0xee)) throw new Error('written past its room')
  return length < 0 ? undefined : into.slice(8, end)
}

/** The same, one byte at a time, with runs as the format's description has them. */
function slowDecode(runs: Uint8Array, page: Uint8Array): Uint8Array {
  const result = [...page]
  let at = 0
  const length = (): number => {
    const low = runs[at++]!
    return low < 128 ? low : (low % 128) + 128 * runs[at++]!
  }
  let position = 0
  for (let first = true; at < runs.length; first = false) {
    const kept = length()
    const replaced = length()
    if ((kept === 0 && !first) || replaced === 0 || kept > RUN_MAX || replaced > RUN_MAX) throw new Error('not valid')
    position += kept
    for (let i = 0; i < replaced; i++) result[position++] = runs[at++]!
  }
  if (result.length !== page.length || at !== runs.length) throw new Error('left the page')
  return Uint8Array.from(result)
}

/** Every change a run of its own, one byte at a time. Undefined where a run is longer than the format can say. */
function slowEncode(before: Uint8Array, after: Uint8Array): number[] | undefined {
  const out: number[] = []
  const number = (value: number) =>
    out.push(...(value < 128 ? [value] : [(value % 128) + 128, Math.floor(value / 128)]))
  const same = (at: number) => before[at] === after[at]
  for (let at = 0; at < after.length; ) {
    const start = at
    while (at < after.length && same(at)) at++
    if (at === after.length) break
    const changed = at
    while (at < after.length && !same(at)) at++
    if (changed - start > RUN_MAX || at - changed > RUN_MAX) return undefined
    number(changed - start)
    number(at - changed)
    out.push(...after.subarray(changed, at))
  }
  return out
}

function decoded(runs: Uint8Array, before: Uint8Array): Uint8Array {
  const page = before.slice()
  decodeXbzrle(runs, page)
  return page
}

function changed(size: number, at: number, hex: string): [Uint8Array, Uint8Array] {
  const after = new Uint8Array(size)
  after.set(fromHex(hex), at)
  return [new Uint8Array(size), after]
}

t.test('known bytes', async (t) => {
  const hex = (before: Uint8Array, after: Uint8Array) => toHex(encode(before, after)!)
  t.equal(hex(...changed(4096, 16, '3e72')), '10023e72', 'as QEMU 10.0 sends it')
  t.equal(hex(...changed(4096, 0, '01')), '000101', 'the first byte')
  t.equal(hex(...changed(4096, 4095, '01')), 'ff1f0101', 'the last byte')
  t.equal(hex(...changed(4096, 127, '01')), '7f0101')
  t.equal(hex(...changed(4096, 128, '01')), '80010101')
  t.equal(hex(...changed(4096, 1, '010001')), '0103010001', 'a gap that is cheaper to send')
  t.equal(hex(...changed(4096, 1, '01000000 01')), '0101010301 01'.replace(' ', ''), 'and one that is not')
  t.equal(hex(new Uint8Array(4096), new Uint8Array(4096)), '', 'nothing changed')
})

t.test('lengths of runs at their limits, in pages of every size', async (t) => {
  for (const size of [1024, 4096, 16384, 65536]) {
    for (const kept of [
      0,
      1,
      2,
      126,
      127,
      128,
      RUN_MAX - 1,
      RUN_MAX,
      RUN_MAX + 1,
      RUN_MAX + 2,
      2 * RUN_MAX + 1,
      0x8000,
    ]) {
      for (const replaced of [1, 2, 127, 128, 129, RUN_MAX - 1, RUN_MAX, RUN_MAX + 1, RUN_MAX + 2]) {
        if (kept + replaced > size) continue
        const before = new Uint8Array(size)
        const after = new Uint8Array(size).fill(1, kept, kept + replaced)
        const runs = encode(before, after, size)
        const fits = replaced <= RUN_MAX && replaced + 2 * Math.ceil(kept / RUN_MAX + 1) + 8 <= size
        if (fits) t.ok(runs, `${kept} kept and ${replaced} replaced of ${size}`)
        if (replaced > RUN_MAX) t.notOk(runs, `no run has ${replaced}`)
        if (!runs) continue
        t.equal(Buffer.compare(slowDecode(runs, before), after), 0)
        t.equal(Buffer.compare(decoded(runs, before), after), 0)
      }
    }
  }
})

const SIZES = [1024, 4096, 16384, 65536]
/** A page and what became of it: a few, many or all bytes changed, in places that lie apart or together. */
const change = fc
  .record({
    size: fc.constantFrom(...SIZES),
    seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    edits: fc.array(
      fc.record({ at: fc.nat(65535), length: fc.oneof(fc.nat(8), fc.nat(300), fc.nat(65536)), step: fc.nat(6) }),
      { maxLength: 12 },
    ),
  })
  .map(({ size, seed, edits }) => {
    let state = seed
    const random = () => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return state >>> 16
    }
    const before = Uint8Array.from({ length: size }, () => random() & 3)
    const after = before.slice()
    for (const { at, length, step } of edits) {
      for (let i = at % size; i < Math.min(size, (at % size) + length); i += 1 + step) after[i] = random() & 255
    }
    return { before, after }
  })

t.test('whatever changes comes out again, by our decoder and by the slow one', async () => {
  fc.assert(
    fc.property(change, fc.nat(3), ({ before, after }, beforeAt) => {
      const runs = encode(before, after, before.length, 4 * beforeAt)
      const slow = slowEncode(before, after)
      // A run that takes a gap in may need one byte more for its length.
      const more = before.length / 128
      if (!runs) return slow === undefined || slow.length + more > before.length
      if (slow && runs.length > slow.length + more) return false
      if (Buffer.compare(slowDecode(runs, before), after) !== 0) return false
      if (slow && Buffer.compare(decoded(Uint8Array.from(slow), before), after) !== 0) return false
      return Buffer.compare(decoded(runs, before), after) === 0
    }),
    { numRuns: 400 },
  )
})

t.test('it takes the room that it needs, and no less', async () => {
  fc.assert(
    fc.property(change, ({ before, after }) => {
      const runs = encode(before, after)
      if (!runs || runs.length === 0) return true
      const exact = encode(before, after, runs.length)
      return (
        exact !== undefined && Buffer.compare(exact, runs) === 0 && encode(before, after, runs.length - 1) === undefined
      )
    }),
    { numRuns: 200 },
  )
})

t.test('runs that are not valid are refused, and the page stays as it is', async (t) => {
  const bad: [string, string, RegExp][] = [
    ['a change outside of the page', `ff1f020101`, /reaches byte 4097 of a page of 4096/],
    ['nothing replaced', '0100', /replaces 0 bytes/],
    ['nothing kept between two runs', '010101000101', /keeps 0 bytes after the start/],
    ['a length of three bytes', '8080 01 0101'.replaceAll(' ', ''), /above 16383/],
    ['a length cut short', '80', /end inside a length/],
    ['no second length', '01', /end inside a length/],
    ['bytes cut short', '01030101', /end inside their bytes/],
    ['a good run, then a bad one', '0101770100', /replaces 0 bytes/],
  ]
  for (const [name, hex, says] of bad) {
    const page = new Uint8Array(4096).fill(0x11)
    throwsCode(t, () => decodeXbzrle(fromHex(hex), page), 'ERR_MULTIFD_PROTOCOL', says, name)
    t.ok(
      page.every((byte) => byte === 0x11),
      `${name}: nothing was written`,
    )
  }
})

t.test('runs cut anywhere are refused, or end with a whole run', async (t) => {
  const before = new Uint8Array(4096)
  const after = before.slice().fill(7, 100, 400).fill(8, 1000, 1002)
  const runs = encode(before, after)!
  const whole = new Set([0, 2 - 1 + 2 + 300, runs.length])
  for (let length = 0; length <= runs.length; length++) {
    const cut = runs.subarray(0, length)
    if (whole.has(length)) t.doesNotThrow(() => decoded(cut, before), `${length} bytes are whole runs`)
    else throwsCode(t, () => decoded(cut, before), 'ERR_MULTIFD_PROTOCOL', /end inside/, `${length} bytes`)
  }
})
