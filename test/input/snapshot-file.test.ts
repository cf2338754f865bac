// Snapshot files that are cut off or damaged: read without a crash, and without more memory than they are worth.

import t from 'tap'
import { readSnapshot } from '../../src/snapshot/file.js'
import { inspectSnapshot } from '../../src/snapshot/inspect.js'
import { encodeMappedRamHeader, MAPPED_RAM_HEADER_SIZE, mappedRamBitmapSize } from '../../src/wire/mapped-ram.js'
import { encodeRamSetupEntry, encodeRamWord, RAM_FLAG } from '../../src/wire/ram.js'
import { encodeFooter } from '../../src/wire/stream.js'
import { loadCapture } from '../support/captures.js'
import { eosWord, RAM_SECTION_ID, ramIntroduction, ramSection, streamHead, written } from '../support/peers/stream.js'
import { PAGE } from './arena.js'
import { concatBytes } from './bytes.js'
import { FileFeed } from './feed.js'
import { type Anatomy, damage, damageInPlace, seededRandom } from './random.js'
import { type Ending, endingOf, FULL, Tally } from './runs.js'

const STATE_STRIDE = FULL ? 1 : 7
const JSON_STRIDE = FULL ? 1 : 1499
const PAGE_STRIDE = FULL ? 4096 : 256 * 1024
const IN_PLACE_RUNS = FULL ? 20_000 : 1000
const SMALL_RUNS = FULL ? 60_000 : 3000
/** What reading a file of some 20 MB may hold at most, for a moment. */
const MEMORY_LIMIT = 512 * 2 ** 20

const FILE_CODES = new Set(['end', 'ERR_MULTIFD_SNAPSHOT', 'ERR_MULTIFD_UNSUPPORTED'])

const feed = new FileFeed()
t.teardown(() => feed.close())

const file = loadCapture('q10.0.2-mapped-ram').mappedRam!
feed.put(file)
const { blocks, deviceState } = readSnapshot(feed.path)
const ramEnd = blocks.at(-1)!.end
const stateAt = file.length - deviceState.length
const jsonAt = Buffer.from(file.buffer, file.byteOffset).indexOf('{"configuration"', stateAt)
const eofEnd = jsonAt - 5

function read(): Ending {
  try {
    inspectSnapshot(feed.path)
    return { code: 'end' }
  } catch (thrown) {
    return endingOf(thrown)
  }
}

/** Bytes in array buffers that reading holds or left behind. */
function memory(): number {
  return process.memoryUsage().arrayBuffers
}

t.test('a snapshot that is cut off, at every byte of its structure and at places in pages, is not whole', async (t) => {
  const tally = new Tally()
  // What lies between the pages of one block and those of the next.
  const structure = [{ from: 0, to: blocks[0]!.bitmapOffset + blocks[0]!.bitmapSize + 8 }]
  for (const [i, { bitmapOffset, bitmapSize }] of blocks.entries()) {
    if (i > 0) structure.push({ from: blocks[i - 1]!.end - 8, to: bitmapOffset + bitmapSize + 8 })
  }
  structure.push({ from: ramEnd - 8, to: stateAt + 64 }, { from: eofEnd - 64, to: jsonAt + 64 })
  structure.push({ from: file.length - 64, to: file.length })
  const lengths = new Set<number>()
  for (const { from, to } of structure) for (let length = from; length <= to; length++) lengths.add(length)
  for (let length = 0; length < ramEnd; length += PAGE_STRIDE) lengths.add(length)
  for (let length = stateAt; length < eofEnd; length += STATE_STRIDE) lengths.add(length)
  for (let length = jsonAt; length < file.length; length += JSON_STRIDE) lengths.add(length)
  feed.put(file)
  for (const length of [...lengths].sort((a, b) => b - a)) {
    feed.cut(length)
    const expected = length === file.length || length === eofEnd ? 'end' : 'ERR_MULTIFD_SNAPSHOT'
    tally.run(read, expected, () => `${length} of ${file.length} bytes`)
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
})

t.test(`${IN_PLACE_RUNS} snapshots of 20 MB with damaged headers, bitmaps, sections and descriptions`, async (t) => {
  const random = seededRandom(t)
  const tally = new Tally()
  // The structure without the pages, as one string of bytes.
  const regions = blocks.map(({ bitmapOffset, bitmapSize }, i) => {
    return { from: i === 0 ? 0 : blocks[i - 1]!.end, to: bitmapOffset + bitmapSize }
  })
  regions.push({ from: ramEnd, to: file.length })
  const structure = concatBytes(...regions.map(({ from, to }) => file.subarray(from, to)))
  const anatomy: Anatomy = { fields: [], units: [] }
  let at = 0
  for (const [i, { from, to }] of regions.entries()) {
    const block = blocks[i]
    if (block) anatomy.fields.push(...blockFields(at + block.bitmapOffset - from))
    else for (let field = at; field < at + 100; field += 5) anatomy.fields.push({ at: field, size: 4 })
    at += to - from
  }
  for (let field = 0; field < 60; field += 4) anatomy.fields.push({ at: field, size: 4 })
  feed.put(file)
  const patch = (bytes: Uint8Array): void => {
    let done = 0
    for (const { from, to } of regions) {
      feed.patch(from, bytes.subarray(done, done + to - from))
      done += to - from
    }
  }
  let most = 0
  while (tally.runs < IN_PLACE_RUNS) {
    const { bytes, what } = damageInPlace(structure, anatomy, random)
    patch(bytes)
    tally.run(read, FILE_CODES, () => what)
    most = Math.max(most, memory())
  }
  t.comment(`${tally.summary}; at most ${(most / 2 ** 20).toFixed(0)} MiB`)
  t.same(tally.problems, [])
  t.ok(most < MEMORY_LIMIT, 'no huge allocation')
})

/** The fields of a block's entry and header, by where its bitmap begins. */
function blockFields(bitmapAt: number): Anatomy['fields'] {
  const header = bitmapAt - MAPPED_RAM_HEADER_SIZE
  const fields: Anatomy['fields'] = [{ at: header, size: 4 }]
  for (const at of [header - 8, header - 8, header + 4, header + 12, header + 20, header + 20, bitmapAt]) {
    fields.push({ at, size: 8 })
  }
  return fields
}

/** A snapshot with small blocks whose pages lie as close as the format lets them. */
function smallSnapshot(tail: Uint8Array): { bytes: Uint8Array; anatomy: Anatomy } {
  const shapes = [
    { idstr: 'pc.ram', usedLength: 70 * PAGE },
    { idstr: 'pc.bios', usedLength: 2 * PAGE },
  ]
  const total = shapes.reduce((sum, { usedLength }) => sum + usedLength, 0)
  const parts: Uint8Array[] = [
    streamHead('pc-i440fx-10.0', { capabilities: ['mapped-ram'] }),
    ramIntroduction(),
    written((view, at) => encodeRamWord(view, at, total, RAM_FLAG.memSize)),
  ]
  const anatomy: Anatomy = { fields: [], units: [] }
  let length = parts.reduce((sum, part) => sum + part.length, 0)
  const add = (part: Uint8Array): void => {
    anatomy.units.push({ at: length, end: length + part.length })
    parts.push(part)
    length += part.length
  }
  for (let at = 0; at < length; at += 4) anatomy.fields.push({ at, size: 4 })
  for (const shape of shapes) {
    add(written((view, at) => encodeRamSetupEntry(view, at, shape)))
    const bitmapOffset = length + MAPPED_RAM_HEADER_SIZE
    const bitmap = new Uint8Array(mappedRamBitmapSize(shape.usedLength, PAGE)).fill(0x55)
    const pagesOffset = Math.ceil((bitmapOffset + bitmap.length) / PAGE) * PAGE
    const header = { pageSize: PAGE, bitmapOffset, pagesOffset }
    add(written((view, at) => encodeMappedRamHeader(view, at, header)))
    anatomy.fields.push(...blockFields(bitmapOffset))
    add(concatBytes(bitmap, new Uint8Array(pagesOffset - bitmapOffset - bitmap.length)))
    add(new Uint8Array(shape.usedLength))
  }
  for (const part of [
    eosWord(),
    footer(),
    ramSection('part', [], 'per-section'),
    ramSection('end', [], 'per-section'),
  ]) {
    anatomy.fields.push({ at: length, size: 1 }, { at: length + 1, size: 4 })
    add(part)
  }
  add(tail)
  return { bytes: concatBytes(...parts), anatomy }
}

function footer(): Uint8Array {
  return written((view, at) => encodeFooter(view, at, RAM_SECTION_ID))
}

t.test(`${SMALL_RUNS} small snapshots, damaged and with parts missing, doubled and exchanged`, async (t) => {
  const random = seededRandom(t)
  const tally = new Tally()
  const tails = [deviceState, deviceState.subarray(0, eofEnd - stateAt), deviceState.subarray(eofEnd - stateAt - 1)]
  const snapshots = tails.map((tail) => smallSnapshot(tail))
  for (const { bytes } of snapshots.slice(0, 2)) {
    feed.put(bytes)
    t.equal(read().code, 'end', 'undamaged')
  }
  let most = 0
  while (tally.runs < SMALL_RUNS) {
    // The description is long and of one kind.
    const { bytes, anatomy } = snapshots[random.below(6) === 0 ? 0 : 1 + random.below(2)]!
    const { bytes: damaged, what } = damage(bytes, anatomy, random)
    feed.put(damaged)
    tally.run(read, FILE_CODES, () => what)
    most = Math.max(most, memory())
  }
  t.comment(`${tally.summary}; at most ${(most / 2 ** 20).toFixed(0)} MiB`)
  t.same(tally.problems, [])
  t.ok(most < MEMORY_LIMIT, 'no huge allocation')
})

t.test('a description that is another JSON is taken or refused, and does no more harm', async (t) => {
  const random = seededRandom(t)
  const tally = new Tally()
  const state = deviceState.subarray(0, eofEnd - stateAt)
  const json = Buffer.from(deviceState.subarray(jsonAt - stateAt)).toString('latin1')
  const changes: (readonly [RegExp, string])[] = [
    [/"size": \d+/g, '"size": 9007199254740991'],
    [/"size": \d+/g, '"size": -1'],
    [/"size": \d+/g, '"size": 1e308'],
    [/"array_len": \d+/g, '"array_len": 4294967295'],
    [/"fields": \[/g, '"fields": [null, '],
    [/"fields": \[/g, '"fields": {}, "x": ['],
    [/"devices": \[/g, '"devices": [[], '],
    [/"instance_id": 0/g, '"instance_id": "0"'],
    [/"version": \d+/g, '"version": null'],
    [/"name"/g, '"__proto__"'],
    [/"subsections": \[/g, '"subsections": [{"vmsd_name": 5}, '],
    [/\{/g, `${'['.repeat(100_000)}`],
  ]
  for (const [pattern, to] of changes) {
    const count = json.match(pattern)?.length ?? 0
    for (let i = 0; i < Math.min(count, 12); i++) {
      let left = random.below(count)
      const changed = Buffer.from(
        json.replace(pattern, (found) => (left-- === 0 ? to : found)),
        'latin1',
      )
      const head = Buffer.alloc(5)
      head[0] = 6
      head.writeUInt32BE(changed.length, 1)
      feed.put(smallSnapshot(concatBytes(state, head, changed)).bytes)
      tally.run(read, FILE_CODES, () => `${pattern} ${to.slice(0, 40)}`)
    }
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
})
