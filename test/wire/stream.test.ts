import fc from 'fast-check'
import t from 'tap'
import { MemoryReader } from '../../src/wire/reader.js'
import {
  type Configuration,
  type ConfigurationSource,
  configurationSize,
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  decodeVmdescription,
  encodeConfiguration,
  encodeEof,
  encodeFooter,
  encodeSectionHeader,
  encodeSectionPart,
  encodeStreamHeader,
  encodeVmdescHeader,
  FOOTER_SIZE,
  SECTION,
  SECTION_PART_SIZE,
  STREAM_HEADER_SIZE,
  sectionHeaderSize,
} from '../../src/wire/stream.js'
import { badFields, encoded, everyTruncation, fromHex, NaiveWriter, patched, throwsCode } from './helpers.js'

const HEADER = fromHex('51 45 56 4d 00 00 00 03')
const CONFIGURATION = fromHex('07 00 00 00 0e 70 63 2d 69 34 34 30 66 78 2d 31 30 2e 30')
const START = fromHex('01 00 00 00 01 03 72 61 6d 00 00 00 00 00 00 00 04')
const UUID = '12345678-9abc-def0-1122-334455667788'

/** Runs a decoder over bytes, all of which it must consume. */
const over =
  <T>(decode: (reader: MemoryReader) => T) =>
  (bytes: Uint8Array): T => {
    const reader = new MemoryReader(bytes)
    const value = decode(reader)
    if (reader.remaining !== 0) throw new Error(`${reader.remaining} bytes are left`)
    return value
  }

const configure = (source: ConfigurationSource) =>
  encoded(configurationSize(source), (view, at) => {
    if (encodeConfiguration(view, at, source) !== view.byteLength) throw new Error('size and encoder differ')
  })

function naiveConfiguration({ machineType, pageBits, capabilities, uuid }: Configuration): Uint8Array {
  const writer = new NaiveWriter().be(1, 7).be(4, machineType.length).text(machineType)
  if (pageBits !== undefined) writer.be(1, 5).cstr8('configuration/target-page-bits').be(4, 1).be(4, pageBits)
  if (capabilities !== undefined) {
    writer.be(1, 5).cstr8('configuration/capabilities').be(4, 1).be(4, capabilities.length)
    for (const name of capabilities) writer.cstr8(name)
  }
  if (uuid !== undefined)
    writer
      .be(1, 5)
      .cstr8('configuration/uuid')
      .be(4, 1)
      .be(16, BigInt(`0x${uuid.replaceAll('-', '')}`))
  return writer.bytes()
}

t.test('the start of a stream of QEMU 10.0', async (t) => {
  t.same(encoded(STREAM_HEADER_SIZE, encodeStreamHeader), HEADER)
  over(decodeStreamHeader)(HEADER)
  t.same(configure({ machineType: 'pc-i440fx-10.0' }), CONFIGURATION)
  t.same(over(decodeConfiguration)(CONFIGURATION), { machineType: 'pc-i440fx-10.0' })
  const ram = { sectionId: 1, idstr: 'ram', instanceId: 0, versionId: 4 }
  t.same(
    encoded(sectionHeaderSize('ram'), (view, at) => encodeSectionHeader(view, at, SECTION.start, ram)),
    START,
  )
  t.same(over(decodeSectionHeader)(START), { type: SECTION.start, ...ram })
})

t.test('header: every truncation, each bad field', async (t) => {
  everyTruncation(t, HEADER, over(decodeStreamHeader))
  badFields(t, over(decodeStreamHeader), [
    ['magic', patched(HEADER, 0, '11223344'), 'ERR_MULTIFD_PROTOCOL', 'magic is 0x11223344, expected 0x5145564d'],
    ['version', patched(HEADER, 4, '00000002'), 'ERR_MULTIFD_PROTOCOL', 'version is 2, expected 3'],
  ])
})

t.test('configurations are what a slow codec writes', async () => {
  const text = fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' })
  fc.assert(
    fc.property(
      text,
      fc.record(
        { pageBits: fc.integer({ min: 10, max: 19 }), capabilities: fc.array(text, { maxLength: 9 }), uuid: fc.uuid() },
        { requiredKeys: [] },
      ),
      (machineType, subsections) => {
        const slow = naiveConfiguration({ machineType, ...subsections })
        const read = over(decodeConfiguration)(slow)
        return (
          Buffer.compare(configure({ machineType, subsections }), slow) === 0 &&
          Buffer.compare(naiveConfiguration(read), slow) === 0
        )
      },
    ),
  )
})

t.test('a configuration ends where no subsection follows', async (t) => {
  const reader = new MemoryReader(new Uint8Array([...CONFIGURATION, ...START]))
  t.same(decodeConfiguration(reader), { machineType: 'pc-i440fx-10.0' })
  t.equal(reader.peekU8(), SECTION.start)
})

t.test('configuration: every truncation, save where a subsection ends', async (t) => {
  const capabilities = ['x-ignore-shared', 'mapped-ram']
  const full = configure({ machineType: 'virt-9.1', subsections: { pageBits: 12, capabilities, uuid: UUID } })
  const ends = [
    configurationSize({ machineType: 'virt-9.1' }),
    configurationSize({ machineType: 'virt-9.1', subsections: { pageBits: 12 } }),
    configurationSize({ machineType: 'virt-9.1', subsections: { pageBits: 12, capabilities } }),
  ]
  everyTruncation(t, full, over(decodeConfiguration), ends)
})

t.test('configuration: each bad field', async (t) => {
  const extra = (write: (writer: NaiveWriter) => unknown) => {
    const writer = new NaiveWriter().raw(CONFIGURATION)
    write(writer)
    return writer.bytes()
  }
  const uuid = (writer: NaiveWriter) => writer.be(1, 5).cstr8('configuration/uuid').be(4, 1).zeros(16)
  const bits = (n: number) => (writer: NaiveWriter) =>
    writer.be(1, 5).cstr8('configuration/target-page-bits').be(4, 1).be(4, n)
  const capabilities = (n: number) => (writer: NaiveWriter) =>
    writer.be(1, 5).cstr8('configuration/capabilities').be(4, 1).be(4, n)
  badFields(t, over(decodeConfiguration), [
    ['type', patched(CONFIGURATION, 0, '01'), 'ERR_MULTIFD_PROTOCOL', 'starts with byte 0x1, expected 0x7'],
    ['no name', patched(CONFIGURATION, 1, '00000000'), 'ERR_MULTIFD_PROTOCOL', 'has 0 bytes'],
    ['long name', patched(CONFIGURATION, 1, '00000100'), 'ERR_MULTIFD_PROTOCOL', 'has 256 bytes, expected 1..255'],
    ['huge name', patched(CONFIGURATION, 1, 'ffffffff'), 'ERR_MULTIFD_PROTOCOL', 'has 4294967295 bytes'],
    ['unknown', extra((w) => w.be(1, 5).cstr8('configuration/x').be(4, 1)), 'ERR_MULTIFD_PROTOCOL', 'configuration/x'],
    [
      'version',
      extra((w) => w.be(1, 5).cstr8('configuration/uuid').be(4, 2)),
      'ERR_MULTIFD_PROTOCOL',
      "'configuration/uuid' has version 2",
    ],
    ['few page bits', extra(bits(9)), 'ERR_MULTIFD_PROTOCOL', 'is 9, expected 10..19'],
    ['many page bits', extra(bits(20)), 'ERR_MULTIFD_PROTOCOL', 'is 20'],
    ['many capabilities', extra(capabilities(257)), 'ERR_MULTIFD_PROTOCOL', 'is 257, expected at most 256'],
    ['empty capability', extra((w) => capabilities(1)(w).be(1, 0)), 'ERR_MULTIFD_PROTOCOL', 'capability is empty'],
    ['page bits twice', extra((w) => bits(12)(bits(12)(w))), 'ERR_MULTIFD_PROTOCOL', /target-page-bits.*twice/],
    ['capabilities twice', extra((w) => capabilities(0)(capabilities(0)(w))), 'ERR_MULTIFD_PROTOCOL', /twice/],
    ['uuid twice', extra((w) => uuid(uuid(w))), 'ERR_MULTIFD_PROTOCOL', /uuid.*twice/],
  ])
})

t.test('a configuration that can not be encoded', async (t) => {
  const bad: ConfigurationSource[] = [
    { machineType: '' },
    { machineType: 'x'.repeat(256) },
    { machineType: 'none', subsections: { uuid: 'none' } },
    { machineType: 'none', subsections: { capabilities: ['x'.repeat(256)] } },
  ]
  for (const source of bad) throwsCode(t, () => configure(source), 'ERR_MULTIFD_ARGUMENT', /./)
})

t.test('section heads are what a slow codec writes', async () => {
  const word = fc.oneof(fc.constantFrom(0, 1, 0xfffffffe), fc.nat(0xfffffffe))
  const name = fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' })
  fc.assert(
    fc.property(word, word, word, name, fc.boolean(), (sectionId, instanceId, versionId, idstr, full) => {
      const type = full ? SECTION.full : SECTION.start
      const introduction = { sectionId, idstr, instanceId, versionId }
      const fast = encoded(sectionHeaderSize(idstr), (view, at) => encodeSectionHeader(view, at, type, introduction))
      const slow = new NaiveWriter()
        .be(1, type)
        .be(4, sectionId)
        .cstr8(idstr)
        .be(4, instanceId)
        .be(4, versionId)
        .bytes()
      const read = over(decodeSectionHeader)(slow)
      return Buffer.compare(fast, slow) === 0 && JSON.stringify(read) === JSON.stringify({ type, ...introduction })
    }),
  )
})

t.test('PART and END have only an id', async (t) => {
  for (const type of [SECTION.part, SECTION.end] as const) {
    const bytes = encoded(SECTION_PART_SIZE, (view, at) => encodeSectionPart(view, at, type, 0xffffffff))
    t.same(bytes, new NaiveWriter().be(1, type).be(4, 0xffffffff).bytes())
    t.same(over(decodeSectionHeader)(bytes), { type, sectionId: 0xffffffff })
    everyTruncation(t, bytes, over(decodeSectionHeader))
  }
})

t.test('section heads: every truncation, each bad field', async (t) => {
  everyTruncation(t, START, over(decodeSectionHeader))
  badFields(t, over(decodeSectionHeader), [
    ['EOF', fromHex('00'), 'ERR_MULTIFD_PROTOCOL', 'section type is 0x0'],
    ['unknown type', patched(START, 0, '09'), 'ERR_MULTIFD_PROTOCOL', 'section type is 0x9'],
    ['no idstr', patched(START, 5, '00'), 'ERR_MULTIFD_PROTOCOL', 'idstr is empty'],
    ['instance', patched(START, 9, 'ffffffff'), 'ERR_MULTIFD_PROTOCOL', "instance id of 'ram' is 0xffffffff"],
  ])
})

t.test('footers', async (t) => {
  const footer = fromHex('7e 00 00 00 27')
  t.same(
    encoded(FOOTER_SIZE, (view, at) => encodeFooter(view, at, 0x27)),
    footer,
  )
  over((reader) => decodeFooter(reader, 0x27))(footer)
  everyTruncation(
    t,
    footer,
    over((reader) => decodeFooter(reader, 0x27)),
  )
  badFields(
    t,
    over((reader) => decodeFooter(reader, 0x27)),
    [
      ['type', patched(footer, 0, '7d'), 'ERR_MULTIFD_PROTOCOL', 'footer of section 39 starts with byte 0x7d'],
      ['id', patched(footer, 1, '00000026'), 'ERR_MULTIFD_PROTOCOL', 'names section 38, expected 39'],
    ],
  )
})

t.test('EOF and the description', async (t) => {
  const json = new TextEncoder().encode('{"page_size": 4096, "devices": []}')
  const bytes = encoded(6 + json.length, (view, at) => {
    const next = encodeVmdescHeader(view, encodeEof(view, at), json.length)
    new Uint8Array(view.buffer).set(json, next)
  })
  t.same(bytes, new NaiveWriter().be(1, 0).be(1, 6).be(4, json.length).raw(json).bytes())
  t.same(over(decodeVmdescription)(bytes.slice(1)), json)
  everyTruncation(t, bytes.slice(1), over(decodeVmdescription))
  badFields(t, over(decodeVmdescription), [
    ['type', patched(bytes.slice(1), 0, '05'), 'ERR_MULTIFD_PROTOCOL', 'starts with byte 0x5, expected 0x6'],
    ['length', fromHex('06 04000001'), 'ERR_MULTIFD_PROTOCOL', '67108865 bytes'],
  ])
})
