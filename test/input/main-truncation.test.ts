// Main streams that end too early: over descriptors, in the coordinator's own loop.

import t from 'tap'
import { locateStreamEnd } from '../../src/wire/stream-end.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import { Arena } from './arena.js'
import { Seen } from './bytes.js'
import { FileFeed } from './feed.js'
import { seededRandom } from './random.js'
import { ArenaTarget, type Ending, FULL, receiveDeviceState, receiveMain, Tally } from './runs.js'
import { contextOf, type MainStream, restsOf, splitMain, type Unit } from './streams.js'

// Bytes of records that are replayed together.
const WINDOW = 512
// Records after which the rest, thousands of the same kind, are cut at every RECORD_STRIDEth byte only. That is prime
// to the nine bytes of a zero page's record, so that every byte of one has its turn.
const FIRST_RECORDS = FULL ? Number.POSITIVE_INFINITY : 200
const RECORD_STRIDE = FULL ? 1 : 23
// In a page's data and in the description, what lies between is no different.
const PAGE_STRIDE = FULL ? 1 : 1021
const STATE_STRIDE = FULL ? 1 : 5
const JSON_STRIDE = FULL ? 1 : 997
const WHOLE_RUNS = FULL ? 500 : 12
// Bytes after the one at which a stream is refused.
const AFTER_REFUSAL = 16

const feed = new FileFeed()
t.teardown(() => feed.close())

const streams = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ main }) => main.length > 0)
  .map((capture) => splitMain(capture))

/** The lengths to cut unit number `index` at, its own end not among them, longest first. */
function* cuts({ at, data, end, kind }: Unit, index: number): Generator<number> {
  for (let length = end - 1; length >= at; length--) {
    if (data !== undefined && length > data + 4 && length < end - 4) {
      if ((end - length) % PAGE_STRIDE === 0) yield length
    } else if (kind !== 'record' || index < FIRST_RECORDS || length % RECORD_STRIDE === 0) yield length
  }
}

/** Units in groups that are short, each of which can be replayed after its context. */
function* windows(units: Unit[]): Generator<Unit[]> {
  let window: Unit[] = []
  for (const unit of units) {
    // What is read right after the unit before it stays with it.
    const apart = unit.kind !== 'footer' && unit.kind !== 'early'
    if (window.length > 0 && apart && unit.end - window[0]!.at > WINDOW) {
      yield window
      window = []
    }
    window.push(unit)
  }
  if (window.length > 0) yield window
}

class MainCutter {
  readonly stream: MainStream
  readonly arena: Arena
  /** How the whole stream ends. */
  readonly full: string
  readonly #rests: Set<number>
  readonly #tally: Tally
  readonly #target: () => ArenaTarget

  constructor(stream: MainStream, tally: Tally) {
    this.stream = stream
    this.arena = new Arena(stream.blocks)
    this.#tally = tally
    this.#rests = restsOf(stream)
    this.#target = () => new ArenaTarget(this.arena.blocks, stream.machineType)
    this.full = this.#receive(stream.bytes).code
  }

  #receive(...parts: Uint8Array[]): Ending {
    if (parts.length > 0) feed.put(...parts)
    const { channels, ignoreShared } = this.stream
    return receiveMain(feed.open(), this.#target, channels, ignoreShared)
  }

  /** Receives what is in the feed: the stream's first `length` bytes, or what stands for them. */
  run(length: number, how: string): void {
    const { name, bytes, eofAt, ignoreShared, units } = this.stream
    const early = this.#rests.has(length) ? 'ERR_MULTIFD_CLOSED' : 'ERR_MULTIFD_TRUNCATED'
    const whole = length === bytes.length || (eofAt !== undefined && length === eofAt + 1)
    // What a stream ends in may be known before its end: a record or a command that is not supported.
    const allowed = this.full === 'end' ? new Set([whole ? 'end' : early]) : new Set([early, this.full])
    // A configuration that ends before its capabilities is a whole one without any.
    if (ignoreShared && length < units[1]!.end) allowed.add('ERR_MULTIFD_MACHINE')
    const what = (): string => `${name}, ${how}, ${length} of ${bytes.length} bytes`
    this.#tally.run(() => this.#receive(), allowed, what)
    if (!this.arena.nearIntact) this.#tally.problem(`${what()}: wrote outside of its blocks`)
  }

  /** Cuts inside the stream's units, of which those after the set-up are replayed in windows after their context. */
  cutUnits(seen: Seen): void {
    const { bytes, setupEnd, units } = this.stream
    let index = 0
    for (const window of windows(units)) {
      const first = window[0]!
      const inSetup = first.at < setupEnd
      const before = inSetup
        ? [bytes.subarray(0, first.at)]
        : [bytes.subarray(0, setupEnd), contextOf(this.stream, window)]
      const content = bytes.subarray(first.at, window.at(-1)!.end)
      if (seen.add(...before, content)) this.#cutWindow(before, content, window, index)
      index += window.length
      // A set-up that is refused is refused before every other window as well.
      if (inSetup && this.#receive(...before, content).code === this.full) break
    }
  }

  #cutWindow(before: Uint8Array[], content: Uint8Array, window: Unit[], index: number): void {
    const start = window[0]!.at
    const limit = start + this.#refusedAt(before, content) + AFTER_REFUSAL
    const shift = before.reduce((sum, { length }) => sum + length, 0) - start
    feed.put(...before, content)
    for (let i = window.length - 1; i >= 0; i--) {
      for (const length of cuts(window[i]!, index + i)) {
        if (length > limit) continue
        feed.cut(length + shift)
        this.run(length, 'in a window')
      }
    }
    if (!this.arena.intact) this.#tally.problem(`${this.stream.name}: wrote far outside of its blocks`)
  }

  // The bytes of the content with which it is refused for what it is, and not for being cut.
  #refusedAt(before: Uint8Array[], content: Uint8Array): number {
    const refused = (length: number): boolean =>
      this.#receive(...before, content.subarray(0, length)).code === this.full
    if (this.full === 'end' || !refused(content.length)) return content.length
    let low = 0
    let high = content.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (refused(middle)) high = middle
      else low = middle + 1
    }
    return low
  }
}

const everyByte = FULL ? 'every byte' : `every byte of the first ${FIRST_RECORDS} records, every ${RECORD_STRIDE}rd of`
const everyPage = FULL ? '' : ` the others, every ${PAGE_STRIDE}th of a page`

t.test(`main streams cut up to the end of RAM: ${everyByte}${everyPage}`, async (t) => {
  const tally = new Tally()
  const seen = new Seen()
  for (const stream of streams) new MainCutter(stream, tally).cutUnits(seen)
  t.comment(tally.summary)
  t.same(tally.problems, [])
})

t.test('main streams cut after RAM: no place in device state looks like its end, at any byte', async (t) => {
  const ends: string[] = []
  let lengths = 0
  for (const { name, bytes, ramEnd, eofAt = 0 } of streams) {
    for (let length = ramEnd + 1; length <= eofAt; length++, lengths++) {
      try {
        locateStreamEnd(bytes.subarray(ramEnd, length))
        ends.push(`${name}, ${length} bytes`)
      } catch {
        // As it should be.
      }
    }
  }
  t.comment(`${lengths} lengths`)
  t.same(ends, [])
})

t.test(`main streams cut after RAM, over descriptors: device state at every ${STATE_STRIDE}th byte`, async (t) => {
  const tally = new Tally()
  const seen = new Seen()
  for (const { name, bytes, ramEnd, eofAt, ramSectionId } of streams) {
    const tail = bytes.subarray(ramEnd)
    if (eofAt === undefined || !seen.add(tail)) continue
    feed.put(tail)
    const eofEnd = eofAt - ramEnd + 1
    for (let length = tail.length; length >= 0; length--) {
      const inState = length > 64 && length < eofEnd - 16
      const inJson = length > eofEnd + 16 && length < tail.length - 16
      if ((inState && length % STATE_STRIDE !== 0) || (inJson && length % JSON_STRIDE !== 0)) continue
      feed.cut(length)
      const allowed = length === tail.length || length === eofEnd ? 'end' : 'ERR_MULTIFD_TRUNCATED'
      tally.run(
        () => receiveDeviceState(feed.open(), ramSectionId),
        allowed,
        () => `${name}, ${length} bytes after RAM`,
      )
    }
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
})

t.test(
  `main streams cut at ${WHOLE_RUNS} places each, received from their start, end as in their windows`,
  async (t) => {
    const tally = new Tally()
    const random = seededRandom(t)
    for (const stream of streams) {
      const cutter = new MainCutter(stream, tally)
      t.comment(`${stream.name} as a whole: ${cutter.full}`)
      const lengths = Array.from({ length: WHOLE_RUNS }, () => random.below(stream.bytes.length + 1))
      feed.put(stream.bytes)
      for (const length of lengths.sort((a, b) => b - a)) {
        feed.cut(length)
        cutter.run(length, 'from its start')
      }
      t.ok(cutter.arena.intact, `${stream.name}: nothing written outside of its blocks`)
    }
    t.comment(tally.summary)
    t.same(tally.problems, [])
  },
)
