// Loading is strict: what is unknown, of a wrong version, missing or out of place fails by name.

import t from 'tap'
import { type ErrorCode, MultifdError } from '../../src/errors.js'
import {
  array,
  bool,
  type Device,
  DeviceSet,
  DeviceStateLoader,
  describe,
  device,
  END_OF_LIST,
  i32,
  type LoadPhase,
  struct,
  u8,
  u16,
} from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { everyTruncation, fromHex, NaiveWriter, throwsCode, toHex } from '../wire/helpers.js'
import { loadDevices, loadOne, SECTION_ID, saveDevices, saveOne, sectionOf } from './helpers.js'

interface State {
  a: number
  x: number
  y: number
  z: number
  has: string
}
const fresh = (): State => ({ a: 0, x: 0, y: 0, z: 0, has: '' })

const description = describe<State>({
  name: 'd',
  versionId: 4,
  minimumVersionId: 2,
  fields: [u8('a'), END_OF_LIST],
  subsections: [
    describe<State>({
      name: 'd/x',
      versionId: 2,
      needed: ({ has }) => has.includes('x'),
      fields: [u16('x'), END_OF_LIST],
      subsections: [
        describe<State>({ name: 'd/x/z', needed: ({ has }) => has.includes('z'), fields: [i32('z'), END_OF_LIST] }),
      ],
    }),
    describe<State>({ name: 'd/y', needed: ({ has }) => has.includes('y'), fields: [u8('y'), END_OF_LIST] }),
  ],
})

const subsection = (name: string, version: number, payload: string) =>
  new NaiveWriter().be(1, 5).cstr8(name).be(4, version).raw(fromHex(payload)).out
const payload = (...parts: Iterable<number>[]) => Uint8Array.from(parts.flatMap((part) => [...part]))

t.test('subsections and their subsections are saved where needed, and loaded', (t) => {
  for (const has of ['', 'x', 'y', 'xy', 'xz', 'xyz']) {
    const state = { a: 9, x: 0x102, y: 3, z: -4, has }
    const saved = saveOne(description, state)
    const expected = payload(
      [9],
      has.includes('x') ? subsection('d/x', 2, '0102') : [],
      has.includes('z') ? subsection('d/x/z', 1, 'fffffffc') : [],
      has.includes('y') ? subsection('d/y', 1, '03') : [],
    )
    t.equal(toHex(saved.payload), toHex(expected), has)
    const loaded = loadOne(description, { ...fresh(), has }, saved.section)
    t.equal(loaded.x, has.includes('x') ? 0x102 : 0)
    t.equal(loaded.y, has.includes('y') ? 3 : 0)
    t.equal(loaded.z, has.includes('z') ? -4 : 0)
    t.strictSame(
      saved.entry.subsections?.map(({ vmsd_name }) => vmsd_name),
      has === '' ? undefined : ['x', 'y'].filter((part) => has.includes(part)).map((part) => `d/${part}`),
    )
  }
  t.end()
})

const load = (section: Uint8Array, phase: LoadPhase = 'full', devices: Device[] = [device(description, fresh())]) => {
  const loader = new DeviceStateLoader(new DeviceSet(devices))
  loader.loadSections(new MemoryReader(section), phase)
  loader.finish(phase)
}

t.test('each fault has its code and its place', (t) => {
  const good = saveOne(description, { ...fresh(), has: 'xyz' }).section
  const early = describe({ name: 'early', early: true, fields: [u8('a'), END_OF_LIST] })
  const earlySection = sectionOf('early', 1, Uint8Array.of(1))
  const other = describe({ name: 'other', fields: [u8('a'), END_OF_LIST] })
  const sub = (...parts: Iterable<number>[]) => sectionOf('d', 4, payload([9], ...parts))
  const x = subsection('d/x', 2, '0102')
  const faults: [name: string, action: () => unknown, code: ErrorCode, words: RegExp][] = [
    [
      'an unknown section',
      () => load(sectionOf('e', 1, Uint8Array.of())),
      'ERR_MULTIFD_DEVICE',
      /section 'e' 0: this side has no such device/,
    ],
    [
      'an unknown instance',
      () => load(Uint8Array.from(good.with(14 - 4, 1))),
      'ERR_MULTIFD_DEVICE',
      /section 'd' 1: this side has no such device/,
    ],
    [
      'a newer version',
      () => load(sectionOf('d', 5, Uint8Array.of(9))),
      'ERR_MULTIFD_DEVICE',
      /section 'd' 0: version 5 is newer than 4/,
    ],
    [
      'an older version',
      () => load(sectionOf('d', 1, Uint8Array.of(9))),
      'ERR_MULTIFD_DEVICE',
      /version 1 is older than 2/,
    ],
    [
      'no footer',
      () => load(payload(sectionOf('d', 4, Uint8Array.of(9), false), good)),
      'ERR_MULTIFD_PROTOCOL',
      /section 'd' 0: footer of section 7 starts with byte 0x4/,
    ],
    [
      'a field too many',
      () => load(sectionOf('d', 4, Uint8Array.of(9, 9))),
      'ERR_MULTIFD_PROTOCOL',
      /section 'd' 0: footer of section 7 starts with byte 0x9/,
    ],
    [
      "another's footer",
      () => load(Uint8Array.from(sectionOf('d', 4, Uint8Array.of(9)).with(-1, 8))),
      'ERR_MULTIFD_PROTOCOL',
      /footer names section 8, expected 7/,
    ],
    ['a section twice', () => load(payload(good, good)), 'ERR_MULTIFD_DEVICE', /section 'd' 0: section comes twice/],
    [
      'a section that is missing',
      () => load(good, 'full', [device(description, fresh()), device(other, { a: 0 })]),
      'ERR_MULTIFD_DEVICE',
      /has sent no section 'other' 0/,
    ],
    [
      'an early section that is missing',
      () => load(new Uint8Array(), 'early', [device(early, { a: 0 })]),
      'ERR_MULTIFD_DEVICE',
      /no section 'early' 0/,
    ],
    [
      'an early section too late',
      () => load(earlySection, 'full', [device(early, { a: 0 })]),
      'ERR_MULTIFD_DEVICE',
      /section 'early' 0: section comes after the pages/,
    ],
    [
      'a section too early',
      () => load(good, 'early'),
      'ERR_MULTIFD_DEVICE',
      /section 'd' 0: section comes before the pages/,
    ],
    [
      'a section id used twice',
      () =>
        load(payload(good, sectionOf('other', 1, Uint8Array.of(1))), 'full', [
          device(description, fresh()),
          device(other, { a: 0 }),
        ]),
      'ERR_MULTIFD_PROTOCOL',
      /section 'other' 0: section id 7 belongs to another section/,
    ],
    [
      'an unknown subsection',
      () => load(sub(subsection('d/q', 1, ''))),
      'ERR_MULTIFD_PROTOCOL',
      /section 'd' 0: 'd' has no subsection 'd\/q' here/,
    ],
    [
      'a subsection of a subsection in the wrong place',
      () => load(sub(subsection('d/x/z', 1, '00000000'))),
      'ERR_MULTIFD_PROTOCOL',
      /'d' has no subsection 'd\/x\/z'/,
    ],
    [
      'a subsection twice',
      () => load(sub(x, x)),
      'ERR_MULTIFD_PROTOCOL',
      /section 'd' 0: subsection 'd\/x' comes twice/,
    ],
    [
      'a newer subsection',
      () => load(sub(subsection('d/x', 3, '0102'))),
      'ERR_MULTIFD_DEVICE',
      /section 'd' 0, d\/x: version 3 is newer than 2/,
    ],
    [
      'an older subsection',
      () => load(sub(subsection('d/x', 1, '0102'))),
      'ERR_MULTIFD_DEVICE',
      /d\/x: version 1 is older than 2/,
    ],
    [
      "another device's subsection",
      () => load(sub(subsection('e/x', 1, '00'))),
      'ERR_MULTIFD_PROTOCOL',
      /footer of section 7 starts with byte 0x5/,
    ],
    [
      'a subsection of its own name',
      () => load(sub(subsection('d', 1, '00'))),
      'ERR_MULTIFD_PROTOCOL',
      /footer of section 7 starts with byte 0x5/,
    ],
  ]
  for (const [name, action, code, words] of faults) throwsCode(t, action, code, words, name)
  t.end()
})

t.test('subsections may come in another order than they are described in', (t) => {
  const section = sectionOf('d', 4, payload([9], subsection('d/y', 1, '03'), subsection('d/x', 2, '0102')))
  t.match(loadOne(description, fresh(), section), { a: 9, x: 0x102, y: 3 })
  t.end()
})

t.test('every truncation is found, with the place where it is', (t) => {
  const { section } = saveOne(description, { a: 9, x: 1, y: 2, z: 3, has: 'xyz' })
  const start = 1 + 4 + 2 + 4 + 4
  everyTruncation(t, section.subarray(1), (bytes) => load(Uint8Array.of(4, ...bytes)))
  for (let length = start; length < section.length; length++) {
    throwsCode(t, () => load(section.slice(0, length)), 'ERR_MULTIFD_TRUNCATED', /^section 'd' 0(, [axyzd/.]+)?: /)
  }
  t.end()
})

t.test('elements without fields keep their subsections apart', (t) => {
  interface Item {
    x: number
    on: boolean
  }
  const item = describe<Item>({
    name: 'item',
    fields: [END_OF_LIST],
    subsections: [describe<Item>({ name: 'item/x', needed: ({ on }) => on, fields: [u8('x'), END_OF_LIST] })],
  })
  const items = describe({ name: 'd', fields: [array(struct('items', item), 3), END_OF_LIST] })
  const state = { items: [1, 2, 3].map((x) => ({ x, on: true })) }
  const { section } = saveOne(items, state)
  t.strictSame(loadOne(items, { items: [0, 0, 0].map((x) => ({ x, on: true })) }, section), state)
  t.end()
})

t.test('data that looks like a subsection is data', (t) => {
  const inner = describe({ name: 'in', fields: [u8('a'), END_OF_LIST] })
  const outer = describe({ name: 'out', fields: [struct('s', inner), u8('b'), u8('c'), u8('d'), END_OF_LIST] })
  // Behind the structure come 05, a length and less than the name.
  for (const hex of ['01050303', '01050369', '01050500', '01050203', '010505ff']) {
    const section = sectionOf('out', 1, fromHex(hex))
    t.match(loadOne(outer, { s: { a: 0 }, b: 0, c: 0, d: 0 }, section), { s: { a: 1 }, b: 5 }, hex)
  }
  t.end()
})

t.test('a name that was looked at is read again, across the footer too', (t) => {
  const inner = describe({ name: 'i', fields: [END_OF_LIST] })
  const outer = describe({ name: 'o', fields: [struct('s', inner), u8('b'), END_OF_LIST] })
  const two = [device(outer, { s: {}, b: 0 }), device(outer, { s: {}, b: 0 })]
  const saved = saveDevices([device(outer, { s: {}, b: 5 }), device(outer, { s: {}, b: 5 })])
  loadDevices(two, saved)
  t.same(
    two.map(({ state }) => (state as { b: number }).b),
    [5, 5],
  )
  t.end()
})

t.test('hooks are called in order, and around the fields', (t) => {
  const calls: string[] = []
  const hooks = (name: string) => ({
    preSave: (state: { a: number }) => calls.push(`${name} preSave ${state.a}`),
    postSave: (state: { a: number }) => calls.push(`${name} postSave ${state.a}`),
    preLoad: (state: { a: number }) => calls.push(`${name} preLoad ${state.a}`),
    postLoad: (state: { a: number }, version: number) => calls.push(`${name} postLoad ${state.a} of ${version}`),
  })
  const hooked = describe<{ a: number }>({
    name: 'd',
    versionId: 3,
    fields: [u8('a'), END_OF_LIST],
    subsections: [describe<{ a: number }>({ name: 'd/s', versionId: 2, fields: [END_OF_LIST], ...hooks('s') })],
    ...hooks('d'),
  })
  const { section } = saveOne(hooked, { a: 5 })
  t.strictSame(calls.splice(0), ['d preSave 5', 's preSave 5', 's postSave 5', 'd postSave 5'])
  loadOne(hooked, { a: 1 }, section)
  t.strictSame(calls, ['d preLoad 1', 's preLoad 5', 's postLoad 5 of 2', 'd postLoad 5 of 3'])
  t.end()
})

t.test('postSave is called when saving fails, and the first failure is told', (t) => {
  let cleaned = 0
  const failing = describe<{ a: number }>({
    name: 'd',
    fields: [u8('a'), END_OF_LIST],
    postSave: () => {
      cleaned++
      throw new Error('second')
    },
  })
  throwsCode(t, () => saveOne(failing, { a: 256 }), 'ERR_MULTIFD_DEVICE', /device 'd' 0, a: 256 is no uint8/)
  throwsCode(t, () => saveOne(failing, { a: 1 }), 'ERR_MULTIFD_DEVICE', /postSave of 'd' failed: second/)
  t.equal(cleaned, 2)
  t.end()
})

t.test("a function of the program's that fails is named, with its error as the cause", (t) => {
  const cause = new TypeError('no\n  such thing')
  const fail = () => {
    throw cause
  }
  const failing = (hooks: object) => describe<{ a: number }>({ name: 'd', fields: [u8('a'), END_OF_LIST], ...hooks })
  const section = sectionOf('d', 1, Uint8Array.of(1))
  for (const hook of ['preLoad', 'postLoad']) {
    try {
      loadOne(failing({ [hook]: fail }), { a: 0 }, section)
      t.fail(hook)
    } catch (error) {
      t.match(error, {
        code: 'ERR_MULTIFD_DEVICE',
        message: `section 'd' 0: ${hook} of 'd' failed: no such thing`,
        cause,
      })
    }
  }
  for (const hook of ['preSave', 'postSave', 'needed']) {
    throwsCode(t, () => saveOne(failing({ [hook]: fail }), { a: 0 }), 'ERR_MULTIFD_DEVICE', `${hook} of 'd' failed`)
  }
  const asynchronous = async () => {}
  throwsCode(
    t,
    () => loadOne(failing({ postLoad: asynchronous }), { a: 0 }, section),
    'ERR_MULTIFD_DEVICE',
    /is asynchronous/,
  )
  throwsCode(t, () => saveOne(failing({ needed: () => 1 }), { a: 0 }), 'ERR_MULTIFD_DEVICE', /needed of 'd' says 1/)
  const tested = describe({ name: 'd', fields: [u8('a', { test: fail as () => boolean }), END_OF_LIST] })
  throwsCode(t, () => loadOne(tested, { a: 0 }, section), 'ERR_MULTIFD_DEVICE', /test of 'a' failed/)
  const setter = {
    get a() {
      return 0
    },
    set a(_value: number) {
      throw cause
    },
  }
  throwsCode(t, () => loadOne(failing({}), setter, section), 'ERR_MULTIFD_DEVICE', /section 'd' 0, a: no such thing/)
  t.end()
})

t.test('what the transport throws stays what it was', (t) => {
  const stalled = new MultifdError('ERR_MULTIFD_TIMEOUT', 'nothing came for too long', { channel: 'main' })
  class Stalled extends MemoryReader {
    override u8(): number {
      throw stalled
    }
  }
  const flag = describe({ name: 'd', fields: [bool('b'), END_OF_LIST] })
  const loader = new DeviceStateLoader(new DeviceSet([device(flag, { b: false })]))
  const header = { sectionId: SECTION_ID, idstr: 'd', instanceId: 0, versionId: 1 }
  t.throws(() => loader.loadSection(header, new Stalled(new Uint8Array(1)), 'full'), stalled)
  t.end()
})
