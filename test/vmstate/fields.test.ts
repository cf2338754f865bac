// Every kind of field: its bytes, its entry in the description, and what it refuses.

import t from 'tap'
import {
  array,
  bitmap,
  bool,
  buffer,
  type Description,
  describe,
  END_OF_LIST,
  type Field,
  i8,
  i16,
  i32,
  i64,
  pointer,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  validate,
  varArray,
  withTmp,
} from '../../src/vmstate/index.js'
import { fromHex, throwsCode, toHex } from '../wire/helpers.js'
import { loadOne, saveOne, sectionOf } from './helpers.js'

const one = (field: Field<never>) =>
  describe({ name: 'd', fields: [field, END_OF_LIST] }) as Description<object, object>
const point = describe({ name: 'point', fields: [u8('x'), i8('y'), END_OF_LIST] })
const text = describe({ name: 'text', fields: [varArray(u8('length'), u8('data')), END_OF_LIST] })

interface Case {
  name: string
  field: Field<never>
  /** As saved, and as loaded from nothing. */
  value: unknown
  hex: string
  entry: object[]
  /** What the loading side has before. */
  before?: object
}

const entry = (type: string, size: number, more: object = {}) => [{ name: 'f', ...more, type, size }]
const xy = {
  vmsd_name: 'point',
  version: 1,
  fields: [
    { name: 'x', type: 'uint8', size: 1 },
    { name: 'y', type: 'int8', size: 1 },
  ],
}

const cases: Case[] = [
  { name: 'u8', field: u8('f'), value: 255, hex: 'ff', entry: entry('uint8', 1) },
  { name: 'u16', field: u16('f'), value: 0xfedc, hex: 'fedc', entry: entry('uint16', 2) },
  { name: 'u32', field: u32('f'), value: 0xfedcba98, hex: 'fedcba98', entry: entry('uint32', 4) },
  { name: 'u64', field: u64('f'), value: 2n ** 64n - 2n, hex: 'fffffffffffffffe', entry: entry('uint64', 8) },
  { name: 'i8', field: i8('f'), value: -128, hex: '80', entry: entry('int8', 1) },
  { name: 'i16', field: i16('f'), value: -2, hex: 'fffe', entry: entry('int16', 2) },
  { name: 'i32', field: i32('f'), value: -(2 ** 31), hex: '80000000', entry: entry('int32', 4) },
  { name: 'i64', field: i64('f'), value: -(2n ** 63n), hex: '8000000000000000', entry: entry('int64', 8) },
  { name: 'timer', field: timer('f'), value: -1n, hex: 'ffffffffffffffff', entry: entry('timer', 8) },
  {
    name: 'timer as a number',
    field: timer('f', { as: 'number' }),
    value: -1,
    hex: 'ffffffffffffffff',
    entry: entry('timer', 8),
  },
  {
    name: 'u64 as a number',
    field: u64('f', { as: 'number' }),
    value: Number.MAX_SAFE_INTEGER,
    hex: '001fffffffffffff',
    entry: entry('uint64', 8),
  },
  {
    name: 'i64 as a number',
    field: i64('f', { as: 'number' }),
    value: Number.MIN_SAFE_INTEGER,
    hex: 'ffe0000000000001',
    entry: entry('int64', 8),
  },
  { name: 'bool', field: bool('f'), value: true, hex: '01', entry: entry('bool', 1) },
  {
    name: 'u16 that must be equal',
    field: u16('f', { equal: true }),
    value: 7,
    hex: '0007',
    entry: entry('uint16 equal', 2),
    before: { f: 7 },
  },
  { name: 'buffer', field: buffer('f', 3), value: fromHex('010203'), hex: '010203', entry: entry('buffer', 3) },
  {
    name: 'buffer of another type',
    field: buffer('f', 2, { type: 'pci config' }),
    value: fromHex('8680'),
    hex: '8680',
    entry: entry('pci config', 2),
  },
  {
    name: 'buffer whose size the state has',
    field: buffer('f', (state: { n: number }) => state.n),
    value: fromHex('0102'),
    hex: '0102',
    entry: entry('buffer', 2),
    before: { n: 2 },
  },
  {
    name: 'bitmap of less than a word',
    field: bitmap('f', { bits: 10 }),
    value: fromHex('8102'),
    hex: '0000000000000281',
    entry: entry('bitmap', 8),
  },
  {
    name: 'bitmap of two words',
    field: bitmap('f', { bits: 72 }),
    value: fromHex('010000000000008003'),
    hex: '8000000000000001 0000000000000003',
    entry: entry('bitmap', 16),
  },
  {
    name: 'bitmap of nothing',
    field: bitmap('f', { bits: 0 }),
    value: fromHex(''),
    hex: '',
    entry: entry('bitmap', 0),
  },
  {
    name: 'array',
    field: array(u16('f'), 3),
    value: [1, 2, 65535],
    hex: '00010002ffff',
    entry: entry('uint16', 2, { array_len: 3 }),
  },
  { name: 'array of one', field: array(u8('f'), 1), value: [9], hex: '09', entry: entry('uint8', 1) },
  { name: 'array of none', field: array(u8('f'), 0), value: [], hex: '', entry: [] },
  {
    name: 'array that counts itself',
    field: varArray(u16('n'), u8('f')),
    value: [4, 5],
    hex: '00020405',
    entry: [{ name: 'n', type: 'uint16', size: 2 }, ...entry('uint8', 1, { array_len: 2 })],
  },
  {
    name: 'array that the state counts',
    field: varArray((state: { n: number }) => state.n, bool('f')),
    value: [true, false],
    hex: '0100',
    entry: entry('bool', 1, { array_len: 2 }),
    before: { n: 2 },
  },
  {
    name: 'struct',
    field: struct('f', point),
    value: { x: 1, y: -1 },
    hex: '01ff',
    entry: [{ name: 'f', type: 'struct', struct: xy, size: 2 }],
  },
  {
    name: 'struct of another version',
    field: struct(
      'f',
      describe({ name: 'v', versionId: 3, minimumVersionId: 1, fields: [u8('a', { version: 2 }), END_OF_LIST] }),
      {
        structVersion: 1,
      },
    ),
    value: {},
    hex: '',
    entry: [{ name: 'f', type: 'vstruct', struct: { vmsd_name: 'v', version: 1, fields: [] }, size: 0 }],
  },
  {
    name: 'array of structs of one size: described once',
    field: array(struct('f', point), 2),
    value: [
      { x: 1, y: 2 },
      { x: 3, y: 4 },
    ],
    hex: '01020304',
    entry: [{ name: 'f', array_len: 2, type: 'struct', struct: xy, size: 2 }],
  },
  {
    name: 'array of structs of different size: described one by one',
    field: array(struct('f', text), 2),
    value: [{ data: [1] }, { data: [2, 3] }],
    hex: '0101020203',
    entry: [1, 2].map((length, index) => ({
      name: 'f',
      index,
      type: 'struct',
      struct: {
        vmsd_name: 'text',
        version: 1,
        fields: [
          { name: 'length', type: 'uint8', size: 1 },
          { name: 'data', ...(length > 1 ? { array_len: length } : {}), type: 'uint8', size: 1 },
        ],
      },
      size: 1 + length,
    })),
  },
  {
    name: 'pointer to a struct',
    field: pointer(struct('f', point)),
    value: { x: 1, y: 2 },
    hex: '310102',
    entry: [{ name: 'f', type: 'pointer', struct: xy, size: 3 }],
  },
  { name: 'null pointer', field: pointer(u32('f')), value: null, hex: '30', entry: entry('nullptr', 1) },
  {
    name: 'array of pointers, unmarked',
    field: array(pointer(u8('f'), { marked: false }), 3),
    value: [null, 5, null],
    hex: '300530',
    entry: [
      { name: 'f', index: 0, type: 'nullptr', size: 1 },
      { name: 'f', index: 1, type: 'uint8', size: 1 },
      { name: 'f', index: 2, type: 'nullptr', size: 1 },
    ],
    before: { f: [null, 1, null] },
  },
  {
    name: 'varying array of pointers',
    field: varArray(u8('n'), pointer(struct('f', point))),
    value: [{ x: 1, y: 2 }, null],
    hex: '0231010230',
    entry: [
      { name: 'n', type: 'uint8', size: 1 },
      { name: 'f', index: 0, type: 'pointer', struct: xy, size: 3 },
      { name: 'f', index: 1, type: 'nullptr', size: 1 },
    ],
  },
  {
    name: 'another property',
    field: u8('fcr_vmstate', { key: 'f' }),
    value: 3,
    hex: '03',
    entry: [{ name: 'fcr_vmstate', type: 'uint8', size: 1 }],
  },
]

for (const { name, field, value, hex, entry, before = {} } of cases) {
  t.test(name, (t) => {
    const description = one(field)
    const { section, payload, entry: described } = saveOne(description, { ...before, f: value })
    t.equal(toHex(payload), hex.replaceAll(' ', ''))
    t.strictSame(described.fields, entry)
    const loaded = loadOne(description, { ...before }, section) as { f: unknown }
    t.strictSame(loaded.f, value)
    t.end()
  })
}

t.test('values that do not fit are refused where they are', (t) => {
  const refused: [Field<never>, unknown, RegExp][] = [
    [u8('f'), 256, /f: 256 is no uint8, expected 0\.\.255/],
    [u8('f'), -1, /-1 is no uint8/],
    [u8('f'), 1.5, /1\.5 is no uint8/],
    [u8('f'), undefined, /undefined is no uint8/],
    [u8('f'), 1n, /1n is no uint8/],
    [i8('f'), 128, /128 is no int8, expected -128\.\.127/],
    [u16('f'), 65536, /no uint16/],
    [i16('f'), -32769, /no int16/],
    [u32('f'), 2 ** 32, /no uint32/],
    [i32('f'), 2 ** 31, /no int32/],
    [u64('f'), 1, /1 is no uint64, expected a bigint/],
    [u64('f'), -1n, /-1n is no uint64/],
    [u64('f'), 2n ** 64n, /no uint64/],
    [i64('f'), 2n ** 63n, /no int64/],
    [timer('f'), 'soon', /soon is no timer/],
    [u64('f', { as: 'number' }), -1, /-1 is no uint64 as a number/],
    [i64('f', { as: 'number' }), 2 ** 53, /is no int64 as a number/],
    [bool('f'), 1, /1 is no bool/],
    [buffer('f', 2), new Uint8Array(3), /has 3 bytes, expected 2/],
    [buffer('f', 2), [1, 2], /an array is no Uint8Array/],
    [buffer('f', () => -1), new Uint8Array(), /the state gives it -1 bytes/],
    [buffer('f', () => 2 ** 40), new Uint8Array(), /expected 0\.\.67108864/],
    [bitmap('f', { bits: 10 }), fromHex('0004'), /a bit is set behind the last of 10/],
    [bitmap('f', { bits: 10 }), fromHex('00'), /has 1 bytes, expected 2/],
    [array(u8('f'), 2), [1], /f: has 1 elements, expected 2/],
    [array(u8('f'), 2), [1, 256], /f\[1\]: 256 is no uint8/],
    [array(u8('f'), 2), 'no', /no is no array/],
    [varArray(u8('n'), u8('f')), new Uint8Array(256), /f\.n: 256 is no uint8/],
    [varArray(u32('n'), u8('f'), { max: 3 }), [1, 2, 3, 4], /has 4 elements, expected at most 3/],
    [varArray(() => 3, u8('f')), [1], /has 1 elements, expected 3/],
    [struct('f', point), null, /null is no object/],
    [
      array(struct('f', point), 2),
      [
        { x: 1, y: 1 },
        { x: 1, y: 128 },
      ],
      /f\[1\]\.y: 128 is no int8/,
    ],
    [validate('f is even', (state: { f: number }) => state.f % 2 === 0), 3, /check 'f is even' does not hold/],
  ]
  for (const [field, f, words] of refused) {
    throwsCode(t, () => saveOne(one(field), { f }), 'ERR_MULTIFD_DEVICE', words, String(words))
  }
  t.end()
})

t.test('bytes that are no such value are refused where they are', (t) => {
  const refused: [Field<never>, string, 'ERR_MULTIFD_PROTOCOL' | 'ERR_MULTIFD_DEVICE', RegExp, object?][] = [
    [bool('f'), '02', 'ERR_MULTIFD_PROTOCOL', /section 'd' 0, f: bool is 2, expected 0 or 1/],
    [u64('f', { as: 'number' }), '0020000000000000', 'ERR_MULTIFD_PROTOCOL', /f: 9007199254740992 does not fit/],
    [i64('f', { as: 'number' }), '8000000000000000', 'ERR_MULTIFD_PROTOCOL', /does not fit a number/],
    [u8('f', { equal: true }), '08', 'ERR_MULTIFD_DEVICE', /f: 8 came, expected 7 as here/, { f: 7 }],
    [u64('f', { equal: true }), '0000000000000008', 'ERR_MULTIFD_DEVICE', /8 came, expected 7n as here/, { f: 7n }],
    [bitmap('f', { bits: 10 }), '0000000000000400', 'ERR_MULTIFD_PROTOCOL', /a bit is set behind the last of 10/],
    [bitmap('f', { bits: 8 }), '0100000000000000', 'ERR_MULTIFD_PROTOCOL', /a bit is set behind the last of 8/],
    [pointer(u8('f')), '32', 'ERR_MULTIFD_PROTOCOL', /mark is 0x32, expected 0x30 or 0x31/],
    [pointer(u8('f'), { marked: false }), '05', 'ERR_MULTIFD_PROTOCOL', /mark is 0x5, expected 0x30, null as here/],
    [varArray(u32('n'), u8('f'), { max: 3 }), '00000004', 'ERR_MULTIFD_PROTOCOL', /has 4 elements, expected at most 3/],
    [array(bool('f'), 2), '0102', 'ERR_MULTIFD_PROTOCOL', /f\[1\]: bool is 2/],
    [array(struct('f', one(bool('g'))), 2), '0102', 'ERR_MULTIFD_PROTOCOL', /f\[1\]\.g: bool is 2/],
  ]
  for (const [field, hex, code, words, before = {}] of refused) {
    throwsCode(t, () => loadOne(one(field), before, sectionOf('d', 1, fromHex(hex))), code, words, String(words))
  }
  t.end()
})

t.test('a count that lies costs nothing before its elements came', (t) => {
  const description = one(varArray(u32('n'), u64('f'), { max: 16 * 1024 * 1024 }))
  const section = sectionOf('d', 1, fromHex('00ffffff'), false)
  throwsCode(t, () => loadOne(description, {}, section), 'ERR_MULTIFD_TRUNCATED', /f\[0\]/)
  const huge = one(buffer('f', 64 * 1024 * 1024))
  throwsCode(t, () => loadOne(huge, {}, sectionOf('d', 1, fromHex('00'), false)), 'ERR_MULTIFD_TRUNCATED', /, f: /)
  t.end()
})

t.test('large buffers come through in pieces', (t) => {
  const f = new Uint8Array(200_001).map((_, i) => i * 7)
  const description = one(buffer('f', f.length))
  const { section } = saveOne(description, { f })
  t.ok(Buffer.from((loadOne(description, {}, section) as { f: Uint8Array }).f).equals(f))
  t.end()
})

t.test('what the state has is filled in place', (t) => {
  const description = describe({
    name: 'd',
    fields: [
      buffer('bytes', 2),
      array(u32('regs'), 2),
      array(struct('points', point), 1),
      struct('at', point),
      END_OF_LIST,
    ],
  })
  const { section } = saveOne(description, {
    bytes: fromHex('0102'),
    regs: [3, 4],
    points: [{ x: 5, y: 6 }],
    at: { x: 7, y: 8 },
  })
  class Point {
    x = 0
    y = 0
  }
  const memory = new Uint8Array(16)
  const state = {
    bytes: memory.subarray(4, 6),
    regs: new Uint32Array(2),
    points: Object.freeze([new Point()]) as Point[],
    at: new Point(),
  }
  const before = { ...state }
  // A frozen array whose elements are loaded in place is not written to; its element is the same object.
  loadOne(description as Description<object>, Object.freeze(state), section)
  t.strictSame(state, before)
  t.equal(toHex(memory), `${'00'.repeat(4)}0102${'00'.repeat(10)}`)
  t.strictSame([...state.regs], [3, 4])
  t.match(state.points[0], { x: 5, y: 6 })
  t.ok(state.at instanceof Point)
  t.match(state.at, { x: 7, y: 8 })
  t.end()
})

t.test('a struct that is not there yet is made as the program says', (t) => {
  class Point {
    x = 0
    y = 0
  }
  const field = varArray(u8('n'), struct('f', point, { create: () => new Point() }))
  const description = one(field)
  const { section } = saveOne(description, { f: [{ x: 1, y: 2 }] })
  const { f } = loadOne(description, {}, section) as { f: Point[] }
  t.ok(f[0] instanceof Point)
  t.match(f, [{ x: 1, y: 2 }])
  t.end()
})

t.test('unused space is zeros, and whatever an older source had there', (t) => {
  const description = describe({ name: 'd', fields: [unused(2), u8('a'), unused(1), END_OF_LIST] })
  const { payload, entry } = saveOne(description, { a: 5 })
  t.equal(toHex(payload), '00000500')
  t.strictSame(entry.fields, [
    { name: 'unused[0]', type: 'unused_buffer', size: 2 },
    { name: 'a', type: 'uint8', size: 1 },
    { name: 'unused[1]', type: 'unused_buffer', size: 1 },
  ])
  t.strictSame(loadOne(description, { a: 0 }, sectionOf('d', 1, fromHex('ffff07ff'))), { a: 7 })
  t.end()
})

t.test('a field is there from its version on, and where its test says so', (t) => {
  interface State {
    mode: number
    a: number
    b: number
    map: Uint8Array
  }
  const tmp = describe<{ parent: State; sum: number }>({
    name: 'd/tmp',
    preSave: (tmp) => {
      tmp.sum = tmp.parent.a + tmp.parent.b
    },
    postLoad: ({ parent, sum }) => {
      parent.b = sum - parent.a
    },
    fields: [u16('sum'), END_OF_LIST],
  })
  const description = describe<State>({
    name: 'd',
    versionId: 3,
    minimumVersionId: 1,
    fields: [
      u8('mode'),
      u8('a', { version: 2 }),
      withTmp(tmp, {
        name: 'sum',
        create: (parent: State) => ({ parent, sum: 0 }),
        test: ({ mode }: State, version: number) => mode === 1 && version >= 3,
      }),
      bitmap('map', { bits: 3, test: ({ mode }: State) => mode !== 0 }),
      unused(1, { test: ({ mode }: State) => mode === 1 }),
      END_OF_LIST,
    ],
  })
  const fresh = () => ({ mode: 0, a: 0, b: 0, map: fromHex('00') })
  const state = { mode: 1, a: 4, b: 0x100, map: fromHex('05') }
  const saved = saveOne(description, state)
  t.equal(toHex(saved.payload), '0104' + '0104' + '0000000000000005' + '00')
  t.strictSame(saved.entry.fields[2], {
    name: 'sum',
    type: 'tmp',
    vmsd_name: 'd/tmp',
    version: 1,
    fields: [{ name: 'sum', type: 'uint16', size: 2 }],
    size: 2,
  })
  t.strictSame(loadOne(description, fresh(), saved.section), state)

  const plain = saveOne(description, { ...state, mode: 0 })
  t.equal(toHex(plain.payload), '0004')
  t.strictSame(
    plain.entry.fields.map(({ name }) => name),
    ['mode', 'a'],
  )

  t.strictSame(
    loadOne(description, fresh(), sectionOf('d', 1, fromHex('02' + '0000000000000003'))),
    { mode: 2, a: 0, b: 0, map: fromHex('03') },
    'version 1 has no a',
  )
  t.strictSame(
    loadOne(description, fresh(), sectionOf('d', 2, fromHex('0109' + '0000000000000003' + '00'))),
    { mode: 1, a: 9, b: 0, map: fromHex('03') },
    'version 2 has no sum',
  )
  t.end()
})
