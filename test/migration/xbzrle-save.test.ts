// What XBZRLE on the source sends, record by record, against a destination that is simulated: it never misses a change.

import fc from 'fast-check'
import t from 'tap'
import { WHOLE, XbzrleSave } from '../../src/migration/xbzrle-save.js'
import { RamBlock } from '../../src/ram/block.js'
import { decodeXbzrle } from '../../src/wire/xbzrle.js'
import { allocate, PAGE } from '../support/peers/index.js'

const BLOCKS = [
  { idstr: 'heap', size: 11 * PAGE },
  { idstr: 'stack', size: 6 * PAGE },
]

/** A source's blocks, and what the destination has of them. */
class Pair {
  readonly ram = allocate(BLOCKS)
  readonly theirs = BLOCKS.map(({ size }) => new Uint8Array(size))
  readonly save: XbzrleSave
  readonly #room = new Uint8Array(2 * PAGE)

  constructor(cachePages: number) {
    this.save = new XbzrleSave(this.ram, cachePages * PAGE)
    // The first pass brings everything whole.
    this.save.beginPass(false)
    for (const [index, block] of this.ram.entries()) {
      for (let page = 0; page < block.pages; page++) this.#sendZeroOrWhole(index, page)
    }
  }

  page(index: number, page: number): Uint8Array {
    return this.ram[index]!.bytes(page * PAGE, PAGE)
  }

  #theirPage(index: number, page: number): Uint8Array {
    return this.theirs[index]!.subarray(page * PAGE, (page + 1) * PAGE)
  }

  #sendZeroOrWhole(index: number, page: number): void {
    if (this.ram[index]!.isZeroPage(page)) {
      this.save.becomesZero(index, page)
      this.#theirPage(index, page).fill(0)
    } else this.#theirPage(index, page).set(this.page(index, page))
  }

  /** What sending a page comes to. The destination has it afterwards, as far as the record brings it there. */
  send(index: number, page: number): 'zero' | 'whole' | 'unchanged' | 'encoded' {
    const block = this.ram[index]!
    if (block.isZeroPage(page)) {
      this.#sendZeroOrWhole(index, page)
      return 'zero'
    }
    this.#room.fill(0xee)
    const length = this.save.encode(index, block, page, this.#room, 8)
    if (length === WHOLE) {
      const { whole, wholeOffset } = this.save
      const copy = 'bytes' in whole && typeof whole.bytes !== 'function' ? (whole.bytes as Uint8Array) : undefined
      const bytes = copy?.subarray(wholeOffset, wholeOffset + PAGE) ?? block.bytes(wholeOffset, PAGE)
      this.#theirPage(index, page).set(bytes)
      return 'whole'
    }
    if (length === 0) return 'unchanged'
    decodeXbzrle(this.#room.subarray(8, 8 + length), this.#theirPage(index, page))
    return 'encoded'
  }

  /** Whether the destination has what the source has. */
  get same(): boolean {
    return this.ram.every((block, index) => Buffer.compare(block.bytes(), this.theirs[index]!) === 0)
  }
}

t.test('the first time whole, then its change, nothing when nothing changed, whole when all changed', async (t) => {
  const pair = new Pair(32)
  const { save } = pair
  const page = pair.page(0, 3)
  page.fill(7)
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'whole', 'the cache did not have it')
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'unchanged')
  page[100] = 8
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'encoded')
  t.equal(save.passPages, 1)
  t.strictSame(save.rates, { cacheMissRate: 0, encodingRate: PAGE / (3 + 3) }, '100 kept, 1 replaced, and its byte')
  for (let at = 0; at < PAGE; at++) page[at] = at * 7
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'whole', 'the change is larger than the page')
  page[0]!++
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'encoded', 'against what went whole')
  page.fill(0)
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'zero')
  page[5] = 1
  save.beginPass(false)
  t.equal(pair.send(0, 3), 'encoded', 'against zero')
  t.ok(pair.same)
  t.strictSame(save.takeCounts(), { pages: 3, bytes: 3 * 6, cacheMiss: 1, overflow: 1 })
  t.strictSame(save.takeCounts(), { pages: 0, bytes: 0, cacheMiss: 0, overflow: 0 }, 'taken once')
})

t.test('a page without a place goes whole, and one that is not used any more gives its place up', async (t) => {
  const pair = new Pair(4)
  const { save } = pair
  const change = (...pages: number[]) => {
    save.beginPass(false)
    return pages.map((page) => {
      pair.page(0, page)[9]!++
      return pair.send(0, page)
    })
  }
  t.strictSame(change(1, 5), ['whole', 'whole'], 'both belong to one place')
  t.strictSame(change(1, 5), ['encoded', 'whole'], 'which the first keeps')
  t.strictSame(change(5, 1), ['whole', 'encoded'], 'also when the other comes earlier')
  t.strictSame(change(5), ['whole'], 'and when it was used in the pass before')
  t.strictSame(change(5), ['whole'], 'then it is taken')
  t.strictSame(change(1, 5), ['whole', 'encoded'])
  t.ok(pair.same)
})

t.test('the last pass keeps nothing new', async (t) => {
  const pair = new Pair(32)
  pair.page(0, 0).fill(1)
  pair.page(0, 1).fill(1)
  pair.save.beginPass(false)
  t.equal(pair.send(0, 0), 'whole')
  pair.page(0, 0)[0] = 2
  pair.save.beginPass(true)
  t.equal(pair.send(0, 0), 'encoded', 'what it has is of use')
  t.equal(pair.send(0, 1), 'whole')
  t.equal(pair.save.whole, pair.ram[0], 'and what it has not goes from where it lies')
})

const operations = fc.array(
  fc.array(
    fc.record({
      block: fc.nat(1),
      page: fc.nat(10),
      kind: fc.constantFrom('byte', 'few', 'all', 'zero', 'none'),
      value: fc.nat(255),
      at: fc.nat(PAGE - 1),
    }),
    { maxLength: 24 },
  ),
  { minLength: 1, maxLength: 12 },
)

t.test('whatever a program does, the destination has it after every pass', async () => {
  fc.assert(
    fc.property(operations, fc.constantFrom(1, 2, 4, 8, 32), (passes, cachePages) => {
      const pair = new Pair(cachePages)
      return passes.every((changes, number) => {
        const dirty = new Set<string>()
        for (const { block, page: wanted, kind, value, at } of changes) {
          const page = wanted % pair.ram[block]!.pages
          const bytes = pair.page(block, page)
          if (kind === 'byte') bytes[at] = value
          else if (kind === 'few') for (let i = at; i < Math.min(PAGE, at + 200); i += 3) bytes[i] = value + i
          else if (kind === 'all') for (let i = 0; i < PAGE; i++) bytes[i] = value + i * 3
          else if (kind === 'zero') bytes.fill(0)
          dirty.add(`${block} ${page}`)
        }
        pair.save.beginPass(number === passes.length - 1)
        for (const place of dirty) {
          const [block, page] = place.split(' ').map(Number)
          pair.send(block!, page!)
        }
        return pair.same
      })
    }),
    { numRuns: 150 },
  )
})

t.test('a block of larger pages', async (t) => {
  const dir = t.testdir()
  for (const pageSize of [16384, 65536]) {
    const block = RamBlock.mapFile({ idstr: 'pc.ram', path: `${dir}/${pageSize}`, size: 4 * pageSize, pageSize })
    const save = new XbzrleSave([block], pageSize)
    const into = new Uint8Array(pageSize)
    const page = block.bytes(pageSize, pageSize)
    save.beginPass(false)
    save.beginPass(false)
    page.fill(1)
    t.equal(save.encode(0, block, 1, into, 0), WHOLE)
    page[pageSize - 1] = 2
    save.beginPass(false)
    const length = save.encode(0, block, 1, into, 0)
    t.ok(length > 0 && length < 32, `${length} bytes`)
    const theirs = new Uint8Array(pageSize).fill(1)
    decodeXbzrle(into.subarray(0, length), theirs)
    t.equal(Buffer.compare(theirs, page), 0)
    block.close()
  }
})
