import fc from 'fast-check'
import t from 'tap'
import { encodeMappedRamHeader, layoutMappedRam } from '../../src/wire/mapped-ram.js'
import {
  checkRamFlags,
  decodeBlockName,
  decodeRamSetup,
  encodeRamRecord,
  encodeRamSetup,
  encodeRamSetupEntry,
  encodeRamWord,
  RAM_FLAG,
  type RamSetupEntry,
  type RamSetupOptions,
  type RamWord,
  ramSetupEntrySize,
  ramSetupSize,
  splitRamWord,
} from '../../src/wire/ram.js'
import { type ByteReader, MemoryReader } from '../../src/wire/reader.js'
import { badFields, encoded, everyTruncation, fromHex, NaiveWriter, patched, throwsCode } from './helpers.js'

const PLAIN: RamSetupOptions = { ignoreShared: false, mappedRam: false }
const LIST: RamSetupEntry[] = [
  { idstr: 'pc.ram', usedLength: 16777216 },
  { idstr: '/rom@etc/acpi/tables', usedLength: 131072 },
]
const TOTAL = 16777216 + 131072

const word = (offset: number, flags: number) => encoded(8, (view, at) => encodeRamWord(view, at, offset, flags))

function split(word: number, pageSize = 4096): RamWord {
  const into = { offset: -1, flags: -1 }
  splitRamWord(word, pageSize, into)
  return into
}

t.test('the words of a stream of QEMU 10.0', async (t) => {
  t.same(word(0x1052000, RAM_FLAG.memSize), fromHex('00 00 00 00 01 05 20 04'))
  t.same(word(0, RAM_FLAG.flush), fromHex('00 00 00 00 00 00 02 00'))
  t.same(word(0, RAM_FLAG.eos), fromHex('00 00 00 00 00 00 00 10'))
  t.same(word(0x10000, RAM_FLAG.xbzrle | RAM_FLAG.continue), fromHex('00 00 00 00 00 01 00 60'))
})

t.test('page records of plain precopy: a name, then CONTINUE', async (t) => {
  const named = encoded(15, (view, at) => encodeRamRecord(view, at, 0, RAM_FLAG.zero, 'pc.ram'))
  t.same(named, fromHex('00 00 00 00 00 00 00 02 06 70 63 2e 72 61 6d'))
  const next = encoded(8, (view, at) => encodeRamRecord(view, at, 0x1000, RAM_FLAG.zero, undefined))
  t.same(next, fromHex('00 00 00 00 00 00 10 22'))
})

t.test('words come apart as BigInts say', async (t) => {
  const check = (word: number, pageSize: number) => {
    const { offset, flags } = split(word, pageSize)
    const mask = BigInt(pageSize - 1)
    return BigInt(flags) === (BigInt(word) & mask) && BigInt(offset) === (BigInt(word) & ~mask)
  }
  for (const n of [0, 0xffffffff, 0x80000000, 0x1_0000_0000, 2 ** 52 + 0x208, Number.MAX_SAFE_INTEGER]) {
    for (const pageSize of [1024, 4096, 65536]) t.ok(check(n, pageSize), `${n} with pages of ${pageSize}`)
  }
  fc.assert(fc.property(fc.maxSafeNat(), fc.constantFrom(1024, 4096, 65536), check))
})

t.test('words are what a slow codec writes', async () => {
  fc.assert(
    fc.property(fc.nat(2 ** 41 - 1), fc.nat(0xfff), (page, flags) => {
      const slow = new NaiveWriter().be(8, (BigInt(page) << 12n) | BigInt(flags)).bytes()
      return Buffer.compare(word(page * 4096, flags), slow) === 0
    }),
  )
})

t.test('of all flags, exactly the known records pass', async (t) => {
  const { zero, memSize, page, eos, xbzrle, flush, hook, compressPage } = RAM_FLAG
  const pages: number[] = [zero, page, xbzrle]
  const fine = [memSize, eos, flush, ...pages, ...pages.map((flag) => flag | RAM_FLAG.continue)]
  const named = [hook, compressPage, hook | RAM_FLAG.continue, compressPage | RAM_FLAG.continue]
  const passed: number[] = []
  const unsupported: number[] = []
  for (let flags = 0; flags < 4096; flags++) {
    try {
      const kind = checkRamFlags(flags)
      if (kind !== (flags & ~RAM_FLAG.continue)) t.fail(`${flags} gave ${kind}`)
      passed.push(flags)
    } catch (error) {
      const { code } = error as { code: string }
      if (code === 'ERR_MULTIFD_UNSUPPORTED') unsupported.push(flags)
      else if (code !== 'ERR_MULTIFD_PROTOCOL') t.fail(`${flags} gave ${code}`)
    }
  }
  const ascending = (a: number, b: number) => a - b
  t.same(passed, fine.sort(ascending))
  t.same(unsupported, named.sort(ascending))
  throwsCode(t, () => checkRamFlags(hook), 'ERR_MULTIFD_UNSUPPORTED', 'RDMA')
  throwsCode(t, () => checkRamFlags(compressPage), 'ERR_MULTIFD_UNSUPPORTED', 'COMPRESS_PAGE')
  throwsCode(t, () => checkRamFlags(eos | RAM_FLAG.continue), 'ERR_MULTIFD_PROTOCOL', 'CONTINUE')
  throwsCode(t, () => checkRamFlags(0), 'ERR_MULTIFD_PROTOCOL', 'flags are 0x0')
})

const setup = (blocks: readonly RamSetupEntry[]) =>
  encoded(ramSetupSize(blocks), (view, at) => {
    if (encodeRamSetup(view, at, blocks) !== view.byteLength) throw new Error('size and encoder differ')
  })

const decode =
  (options: RamSetupOptions = PLAIN, total = TOTAL) =>
  (bytes: Uint8Array) => {
    const reader = new MemoryReader(bytes)
    const blocks = decodeRamSetup(reader, total, options)
    if (reader.remaining !== 0) throw new Error(`${reader.remaining} bytes are left`)
    return blocks
  }

t.test('the set-up list goes there and back, and is what a slow codec writes', async (t) => {
  const bytes = setup(LIST)
  const slow = new NaiveWriter().be(8, TOTAL | 4)
  for (const { idstr, usedLength } of LIST) slow.cstr8(idstr).be(8, usedLength)
  t.same(bytes, slow.bytes())
  t.same(split(new MemoryReader(bytes).u64()), { offset: TOTAL, flags: RAM_FLAG.memSize })
  t.same(decode()(bytes.slice(8)), LIST)
})

t.test('lists of random blocks', async () => {
  const block = fc.record({
    idstr: fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' }).filter((name) => !name.includes('\0')),
    usedLength: fc.integer({ min: 1, max: 2 ** 28 }).map((pages) => pages * 4096),
    guestAddress: fc.maxSafeNat(),
  })
  const blocks = fc.uniqueArray(block, { maxLength: 6, selector: ({ idstr }) => idstr })
  fc.assert(
    fc.property(blocks, (list) => {
      const total = list.reduce((sum, { usedLength }) => sum + usedLength, 0)
      const slow = new NaiveWriter().be(8, BigInt(total) | 4n)
      for (const { idstr, usedLength, guestAddress } of list) slow.cstr8(idstr).be(8, usedLength).be(8, guestAddress)
      const bytes = setup(list)
      const read = decode({ ignoreShared: true, mappedRam: false }, total)(bytes.slice(8))
      return Buffer.compare(bytes, slow.bytes()) === 0 && JSON.stringify(read) === JSON.stringify(list)
    }),
  )
})

t.test('entries with the page size of their backing, for all blocks or by name', async (t) => {
  const huge = [{ idstr: 'huge', usedLength: 2097152, pageSize: 2097152, guestAddress: 0x1_0000_0000 }]
  const bytes = setup([...huge, { idstr: 'small', usedLength: 4096, guestAddress: 0 }])
  const options = { ignoreShared: true, mappedRam: false, postcopyPageSize: (idstr: string) => idstr === 'huge' }
  t.same(decode(options, 2101248)(bytes.slice(8)), [...huge, { idstr: 'small', usedLength: 4096, guestAddress: 0 }])
  const all = { ...options, postcopyPageSize: true }
  t.same(decode(all, 2097152)(setup(huge).slice(8)), huge)
  const odd = patched(setup(huge).slice(8), 13, '0000000000200001')
  throwsCode(t, () => decode(all, 2097152)(odd), 'ERR_MULTIFD_PROTOCOL', "page size of 'huge' is 2097153")
})

t.test('no memory is no block', async (t) => t.same(decode(PLAIN, 0)(new Uint8Array(0)), []))

t.test('lengths go by the page size of the target', async (t) => {
  const list = setup([{ idstr: 'mem', usedLength: 65536 }]).slice(8)
  t.match(decode({ ...PLAIN, pageSize: 65536 }, 65536)(list), [{ usedLength: 65536 }])
  throwsCode(t, () => decode({ ...PLAIN, pageSize: 131072 }, 131072)(list), 'ERR_MULTIFD_PROTOCOL', 'used length')
})

t.test('set-up list: every truncation', async (t) => {
  everyTruncation(t, setup(LIST).slice(8), decode())
  const addressed = LIST.map((block) => ({ ...block, pageSize: 4096, guestAddress: 0 }))
  everyTruncation(
    t,
    setup(addressed).slice(8),
    decode({ ignoreShared: true, mappedRam: false, postcopyPageSize: true }),
  )
})

t.test('set-up list: each bad field', async (t) => {
  const list = setup(LIST).slice(8)
  const twice = setup([LIST[0]!, LIST[0]!]).slice(8)
  badFields(t, decode(), [
    ['empty name', patched(list, 0, '00'), 'ERR_MULTIFD_PROTOCOL', 'name of a RAM block is empty'],
    ['NUL in a name', patched(list, 3, '00'), 'ERR_MULTIFD_PROTOCOL', 'NUL'],
    ['zero length', patched(list, 7, '0000000000000000'), 'ERR_MULTIFD_PROTOCOL', "'pc.ram' is 0"],
    [
      'odd length',
      patched(list, 7, '0000000000001001'),
      'ERR_MULTIFD_PROTOCOL',
      'is 4097, expected a multiple of 4096',
    ],
    ['long length', patched(list, 7, '0000000001021000'), 'ERR_MULTIFD_PROTOCOL', 'is 16912384'],
    ['huge length', patched(list, 7, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    ['over the total', patched(list, 36, '0000000000021000'), 'ERR_MULTIFD_PROTOCOL', 'from 4096 to 131072'],
  ])
  badFields(t, decode(PLAIN, 2 * 16777216), [['twice', twice, 'ERR_MULTIFD_PROTOCOL', "'pc.ram' is listed twice"]])
})

t.test('1024 blocks are taken, 1025 are not', async (t) => {
  const list = Array.from({ length: 1025 }, (_, i) => ({ idstr: `block ${i}`, usedLength: 4096 }))
  t.equal(decode(PLAIN, 1024 * 4096)(setup(list.slice(0, 1024)).slice(8)).length, 1024)
  throwsCode(t, () => decode(PLAIN, 1025 * 4096)(setup(list).slice(8)), 'ERR_MULTIFD_PROTOCOL', 'more than 1024')
})

t.test('an empty name is not encoded', async (t) => {
  throwsCode(t, () => setup([{ idstr: '', usedLength: 4096 }]), 'ERR_MULTIFD_ARGUMENT', 'empty')
})

t.test('names of page records', async (t) => {
  t.equal(decodeBlockName(new MemoryReader(fromHex('06 70632e72616d'))), 'pc.ram')
  everyTruncation(t, fromHex('06 70632e72616d'), (bytes) => decodeBlockName(new MemoryReader(bytes)))
})

/** A mapped-ram file's set-up list as it lies from `position` on. */
function mappedFile(position: number, pageSize = 4096): { bytes: Uint8Array; places: unknown[] } {
  const file = new Uint8Array(4 * 1024 * 1024)
  const view = new DataView(file.buffer)
  const places: unknown[] = []
  let at = position
  for (const block of [
    { idstr: 'a', usedLength: 65536 },
    { idstr: 'b', usedLength: 4096 },
  ]) {
    at = encodeRamSetupEntry(view, at, block)
    const layout = layoutMappedRam(at, block.usedLength, pageSize)
    encodeMappedRamHeader(view, at, { pageSize, ...layout })
    places.push({ ...block, mappedRam: { pageSize, ...layout } })
    at = layout.end
  }
  return { bytes: file.subarray(position, at), places }
}

t.test('with mapped-ram, passes over the area of each block', async (t) => {
  const { bytes, places } = mappedFile(100)
  const options = { ignoreShared: false, mappedRam: true }
  const reader = new MemoryReader(bytes, 100)
  t.same(decodeRamSetup(reader, 69632, options), places)
  t.equal(reader.remaining, 0)
  t.equal(ramSetupEntrySize({ idstr: 'a', usedLength: 65536 }), 10)
  const slow = new MemoryReader(bytes, 100)
  const noSkip: ByteReader = {
    u8: () => slow.u8(),
    u16: () => slow.u16(),
    u32: () => slow.u32(),
    u64: () => slow.u64(),
    text: (length) => slow.text(length),
    cstr8: () => slow.cstr8(),
    bytes: (length) => slow.bytes(length),
    peekU8: () => slow.peekU8(),
    get position() {
      return slow.position
    },
  }
  t.same(decodeRamSetup(noSkip, 69632, options), places)
  for (const length of [0, 5, 10, 37, 38, 1000, bytes.length - 1]) {
    const cut = new MemoryReader(bytes.subarray(0, length), 100)
    throwsCode(t, () => decodeRamSetup(cut, 69632, options), 'ERR_MULTIFD_TRUNCATED', 'ends inside')
  }
  const elsewhere = new MemoryReader(bytes, 101)
  throwsCode(t, () => decodeRamSetup(elsewhere, 69632, options), 'ERR_MULTIFD_PROTOCOL', 'bitmap_offset')
})

t.test('with mapped-ram and x-ignore-shared, an ignored block has no area', async (t) => {
  const bytes = new Uint8Array(1 + 1 + 8 + 8 + 28)
  const view = new DataView(bytes.buffer)
  const next = encodeRamSetupEntry(view, 0, { idstr: 'a', usedLength: 4096, guestAddress: 0x1000 })
  encodeMappedRamHeader(view, next, { pageSize: 4096, bitmapOffset: 0, pagesOffset: 0 })
  const options = { ignoreShared: true, mappedRam: true }
  t.same(decode(options, 4096)(bytes), [{ idstr: 'a', usedLength: 4096, guestAddress: 0x1000 }])
})
