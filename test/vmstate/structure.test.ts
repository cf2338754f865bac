// The structure check: every description of these tests passes it, and each thing it looks for is found at definition.

import t from 'tap'
import {
  array,
  bitmap,
  buffer,
  checkStructure,
  type Description,
  DeviceSet,
  DeviceStateLoader,
  DeviceStateSaver,
  describe,
  device,
  END_OF_LIST,
  type Field,
  pointer,
  struct,
  u8,
  u16,
  u64,
  unused,
  varArray,
} from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { throwsCode } from '../wire/helpers.js'
import { loadDevices, sectionOf } from './helpers.js'
import * as qemu from './qemu-devices.js'

t.test('every registered description is well-formed', (t) => {
  const { timers, rtc, apic, serial, virtioMemEarly } = qemu
  for (const description of [timers, rtc, apic, serial, virtioMemEarly]) checkStructure(description)
  const set = new DeviceSet(
    [timers, rtc, apic, serial, virtioMemEarly].map((description) => device(description as Description<object>, {})),
  )
  t.equal(set.devices.length, 5)
  t.end()
})

const field = u8('a')
const good = describe({ name: 'd', fields: [field, END_OF_LIST] })
const end = [field, END_OF_LIST]

/** What the types forbid must be found where there are none. */
function define(options: object): unknown {
  return describe({ name: 'd', fields: end, ...options } as never)
}

const sub = (name: string, more: object = {}) => ({
  subsections: [describe({ name, fields: [field, END_OF_LIST], ...more })],
})
const list = (...fields: unknown[]) => ({ fields: [...fields, END_OF_LIST] })

const malformed: [name: string, action: () => unknown, words: RegExp][] = [
  ['no name', () => define({ name: '' }), /description's name has 0 bytes, expected 1\.\.255/],
  ['a name that is none', () => define({ name: 7 }), /description's name is number/],
  ['a name that is too long', () => define({ name: 'x'.repeat(256) }), /has 256 bytes/],
  ['a name outside latin1', () => define({ name: '€' }), /outside latin1/],
  ['no end', () => define({ fields: [field] }), /'d' has fields that do not end in END_OF_LIST/],
  [
    'an end in the middle',
    () => define(list(field, END_OF_LIST, u8('b'))),
    /has fields behind END_OF_LIST, which is number 1/,
  ],
  ['two ends', () => define(list(field, END_OF_LIST)), /behind END_OF_LIST/],
  ['an end of somebody else', () => define({ fields: [field, { kind: 'end' }] }), /do not end in END_OF_LIST/],
  ['no list', () => define({ fields: undefined }), /do not end in END_OF_LIST/],
  [
    'a list that runs on into something else',
    () => define(list(field, good)),
    /has something at 1 that no field constructor made/,
  ],
  ['a field by hand', () => define(list({ ...field })), /something at 0/],
  ['a field twice', () => define(list(field, u16('a'))), /has field 'a' twice, and not each with a test/],
  ['alternatives, one without a test', () => define(list(field, u16('a', { test: () => true }))), /'a' twice/],
  ['a property twice', () => define(list(field, u16('b', { key: 'a' }))), /has a field for 'a' twice/],
  ['a count named like a field', () => define(list(field, varArray(u8('a'), u8('b')))), /has field 'a' twice/],
  ['a field from the future', () => define(list(u8('a', { version: 2 }))), /field 'a' from version 2 on, and writes 1/],
  [
    'versions out of order',
    () => define({ versionId: 2, minimumVersionId: 3 }),
    /reads versions from 3 on and writes 2/,
  ],
  ['a version that is none', () => define({ versionId: 1.5 }), /has version 1\.5/],
  ['a version too large', () => define({ versionId: 2 ** 32 }), /expected 0\.\.2\^32 - 1/],
  ['a subsection outside', () => define(sub('e/x')), /subsection 'e\/x', whose name does not begin with 'd'/],
  ['a subsection of the same name', () => define(sub('d')), /subsection 'd', whose name does not begin/],
  [
    'a subsection twice',
    () => define({ subsections: [...sub('d/x').subsections, ...sub('d/x').subsections] }),
    /'d\/x' twice/,
  ],
  [
    'subsections that can not be told apart',
    () => define({ subsections: [...sub('d/xy').subsections, ...sub('d/x').subsections] }),
    /subsections 'd\/xy' and 'd\/x', one name begins with the other/,
  ],
  ['an early subsection', () => define(sub('d/x', { early: true })), /'d\/x' with early, which is for devices/],
  ['a subsection with priority', () => define(sub('d/x', { priority: 1 })), /with priority/],
  ['an unmigratable subsection', () => define(sub('d/x', { unmigratable: 'no' })), /with unmigratable/],
  ['subsections that are none', () => define({ subsections: [{}] }), /name of a part of 'd' is undefined/],
  ['subsections that are no list', () => define({ subsections: 'x' }), /subsections that are no array/],
  ['a hook that is none', () => define({ preSave: 1 }), /has preSave that is no function/],
  ['needed that is none', () => define({ needed: true }), /has needed that is no function/],
  ['a priority that is none', () => define({ priority: Number.NaN }), /priority NaN/],
  ['early that is neither', () => define({ early: 1 }), /early that is neither true nor false/],
  ['unmigratable without a reason', () => define({ unmigratable: '' }), /unmigratable without a reason/],
  ['a field without a name', () => u8(''), /field's name has 0 bytes/],
  ['a field with an empty key', () => u8('a', { key: '' }), /empty key/],
  ['a field with half a version', () => u8('a', { version: 0.5 }), /has version 0\.5/],
  ['a field with a test that is none', () => u8('a', { test: 1 as never }), /test that is no function/],
  ['a buffer of less than nothing', () => buffer('a', -1), /has -1 bytes/],
  ['a buffer too large', () => buffer('a', 2 ** 30), /expected 0\.\.67108864 or a function/],
  ['a bitmap of no size', () => bitmap('a', {} as never), /has undefined bits/],
  ['unused space of no size', () => unused(Number.NaN), /has NaN bytes/],
  ['an array too long', () => array(field, 2 ** 30), /has 1073741824 elements/],
  ['a varying array too long', () => varArray(u8('n'), field, { max: 2 ** 30 }), /at most 1073741824/],
  ['an array of arrays', () => array(array(field, 1) as never, 1), /'a' is no field of one value/],
  ['an array of what may be missing', () => array(u8('a', { version: 1 }), 1), /condition inside an array or pointer/],
  ['a pointer to what may be missing', () => pointer(u8('a', { test: () => true })), /condition inside/],
  ['a count that is no small integer', () => varArray(u64('n'), field), /'n' is uint64, which can not count 'a'/],
  ['a structure of nothing', () => struct('a', undefined as never), /struct 'a' has no description/],
]

t.test('what is not well-formed is found when it is defined', (t) => {
  for (const [name, action, words] of malformed) {
    throwsCode(t, action, 'ERR_MULTIFD_ARGUMENT', words, name)
  }
  t.end()
})

t.test('fields of one name are alternatives where each has a test', (t) => {
  const wide = ({ wide }: { wide: boolean }) => wide
  const description = describe({
    name: 'd',
    fields: [u8('a', { test: (state: { wide: boolean }) => !wide(state) }), u16('a', { test: wide }), END_OF_LIST],
  })
  const state = { wide: false, a: 0 }
  loadDevices([device(description, state)], { full: sectionOf('d', 1, Uint8Array.of(9)) })
  t.equal(state.a, 9)
  state.wide = true
  loadDevices([device(description, state)], { full: sectionOf('d', 1, Uint8Array.of(1, 2)) })
  t.equal(state.a, 0x102)
  t.end()
})

t.test('structures inside structures and subsections are walked', (t) => {
  // By hand, as a program without types might: its description was never checked.
  const bad = { ...good, name: 'bad', fields: [field] } as unknown as Description<object, object>
  const inStruct = () => struct('s', bad)
  throwsCode(t, inStruct, 'ERR_MULTIFD_ARGUMENT', /'bad' has fields that do not end/)
  throwsCode(
    t,
    () => define({ subsections: [{ ...bad, name: 'd/x' }] }),
    'ERR_MULTIFD_ARGUMENT',
    /'d\.d\/x' has fields/,
  )
  throwsCode(t, () => new DeviceSet([device(bad, {})]), 'ERR_MULTIFD_ARGUMENT', /'bad' has fields that do not end/)
  let deep: Description<object, object> = good as never
  for (let i = 0; i < 63; i++) deep = describe({ name: `d${i}`, fields: [struct('s', deep), END_OF_LIST] }) as never
  throwsCode(
    t,
    () =>
      describe({
        name: 'top',
        fields: [struct('s', describe({ name: 'e', fields: [struct('s', deep), END_OF_LIST] })), END_OF_LIST],
      }),
    'ERR_MULTIFD_ARGUMENT',
    /nested more than 64 deep/,
  )
  t.end()
})

t.test('a list that lost its end after it was checked is found by both walks', (t) => {
  const fields: (Field<never> | typeof END_OF_LIST)[] = [field, END_OF_LIST]
  const loose = { ...good, fields } as unknown as Description<{ a: number }>
  const set = new DeviceSet([device(loose, { a: 1 })])
  fields[1] = u8('b')
  const saver = new DeviceStateSaver(set, { firstSectionId: 7, pageSize: 4096 })
  throwsCode(
    t,
    () => saver.saveFull(),
    'ERR_MULTIFD_ARGUMENT',
    /device 'd' 0: description 'd' has fields that do not end/,
  )
  const reader = new MemoryReader(sectionOf('d', 1, Uint8Array.of(1)))
  const load = () => new DeviceStateLoader(set).loadSections(reader, 'full')
  throwsCode(t, load, 'ERR_MULTIFD_ARGUMENT', /section 'd' 0: description 'd' has fields that do not end/)
  t.end()
})

t.test('a description that was defined can not be changed', (t) => {
  const fields: [Field<never>, typeof END_OF_LIST] = [field, END_OF_LIST]
  const own = describe({ name: 'd', fields }) as Description<never>
  fields.length = 0 as never
  checkStructure(own)
  t.throws(() => (own.fields as unknown as unknown[]).pop(), TypeError)
  t.throws(() => Object.assign(own, { versionId: 2 }), TypeError)
  t.throws(() => Object.assign(field, { name: 'b' }), TypeError)
  t.end()
})
