// Sets of devices: order, instances, phases, devices without a schema, and the description of it all.

import t from 'tap'
import {
  array,
  type Description,
  type Device,
  DeviceSet,
  DeviceStateLoader,
  DeviceStateSaver,
  describe,
  device,
  END_OF_LIST,
  type Field,
  type PackedDevice,
  u8,
  u16,
  u32,
  u64,
} from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { decodeFooter, decodeSectionHeader, decodeVmdescription, type SectionHeader } from '../../src/wire/stream.js'
import { locateStreamEnd } from '../../src/wire/stream-end.js'
import { parseVmdesc, walkDeviceSections } from '../../src/wire/vmdesc.js'
import { loadCapture } from '../support/captures.js'
import { fromHex, throwsCode, toHex } from '../wire/helpers.js'
import { loadDevices, SECTION_ID, saveDevices, sectionOf } from './helpers.js'

const counter = describe({ name: 'counter', fields: [u32('value'), END_OF_LIST] })
const named = (name: string, more: { priority?: number; early?: boolean; unmigratable?: string } = {}) =>
  describe({ name, fields: [u8('a'), END_OF_LIST], ...more })
const byte = (name: string, more = {}) => device(named(name, more), { a: 1 })
const options = { firstSectionId: SECTION_ID, pageSize: 4096 }

/** Heads of sections whose payload has one size. */
function heads(bytes: Uint8Array, payloadSize: number): SectionHeader[] {
  const reader = new MemoryReader(bytes)
  const found: SectionHeader[] = []
  while (reader.remaining > 0) {
    const header = decodeSectionHeader(reader)
    found.push(header)
    reader.skip(payloadSize)
    decodeFooter(reader, header.sectionId)
  }
  return found
}

t.test('devices of one idstr are instances 0, 1, 2, and find their own state again', (t) => {
  const states = [{ value: 10 }, { value: 20 }, { value: 30 }]
  const saved = saveDevices(states.map((state) => device(counter, state)))
  t.match(heads(saved.full, 4), [
    { idstr: 'counter', instanceId: 0, sectionId: SECTION_ID },
    { idstr: 'counter', instanceId: 1, sectionId: SECTION_ID + 1 },
    { idstr: 'counter', instanceId: 2, sectionId: SECTION_ID + 2 },
  ])
  const loaded = states.map(() => ({ value: 0 }))
  loadDevices(
    loaded.map((state) => device(counter, state)),
    saved,
  )
  t.strictSame(loaded, states)
  t.end()
})

t.test('an instance may be said, and others take what is free', (t) => {
  const set = new DeviceSet([
    device(counter, { value: 0 }, { instanceId: 1 }),
    device(counter, { value: 0 }),
    device(counter, { value: 0 }),
    device(counter, { value: 0 }, { idstr: 'bus/counter' }),
  ])
  t.match(set.devices, [
    { idstr: 'counter', instanceId: 1 },
    { idstr: 'counter', instanceId: 0 },
    { idstr: 'counter', instanceId: 2 },
    { idstr: 'bus/counter', instanceId: 0 },
  ])
  t.end()
})

t.test('higher priority comes first, then who was registered first', (t) => {
  const devices = [
    byte('a'),
    byte('b', { priority: 5 }),
    byte('c', { priority: -1 }),
    byte('d', { priority: 5 }),
    byte('e'),
  ]
  const { full, vmdesc } = saveDevices(devices)
  const order = ['b', 'd', 'a', 'e', 'c']
  t.strictSame(
    heads(full, 1).map((header) => 'idstr' in header && header.idstr),
    order,
  )
  t.strictSame(
    vmdesc.devices.map(({ name }) => name),
    order,
  )
  t.end()
})

t.test('early devices go before the pages, and are the first of the description', (t) => {
  const devices = [byte('late', { priority: 9 }), byte('soon', { early: true }), byte('packed')]
  const { early, full, vmdesc } = saveDevices(devices)
  t.match(heads(early, 1), [{ idstr: 'soon' }])
  t.match(heads(full, 1), [{ idstr: 'late' }, { idstr: 'packed' }])
  t.strictSame(
    vmdesc.devices.map(({ name }) => name),
    ['soon', 'late', 'packed'],
  )
  t.end()
})

t.test('a device that can not be migrated stops a migration before it begins', (t) => {
  const set = new DeviceSet([byte('a'), byte('gpu', { unmigratable: 'its memory is out of reach' })])
  const words = "device 'gpu' 0 can not be migrated: its memory is out of reach"
  throwsCode(t, () => new DeviceStateSaver(set, options), 'ERR_MULTIFD_DEVICE', words)
  const packed: PackedDevice = { idstr: 'p', version: 1, save: () => 1, load: () => {}, unmigratable: 'no' }
  throwsCode(t, () => new DeviceStateSaver(new DeviceSet([packed]), options), 'ERR_MULTIFD_DEVICE', /'p' 0 can not/)
  t.end()
})

t.test('a device that is not needed has no section, and need not come', (t) => {
  const lazy = describe<{ on: boolean; a: number }>({
    name: 'lazy',
    needed: ({ on }) => on,
    fields: [u8('a'), END_OF_LIST],
  })
  const off = saveDevices([device(lazy, { on: false, a: 1 })])
  t.equal(off.full.length, 0)
  t.equal(off.vmdesc.devices.length, 0)
  const state = { on: false, a: 0 }
  loadDevices([device(lazy, state)], off)
  loadDevices([device(lazy, state)], saveDevices([device(lazy, { on: true, a: 7 })]))
  t.strictSame(state, { on: false, a: 7 })
  loadDevices([device(counter, { value: 0 }, { optional: true })], { full: new Uint8Array() })
  t.end()
})

t.test('what can not be registered is refused by name', (t) => {
  const packed = { idstr: 'p', version: 1, save: () => 1, load: () => {} }
  const refused: [unknown[], RegExp][] = [
    [[byte('a'), byte('a')], /two descriptions are named 'a'/],
    [
      [device(counter, { value: 0 }, { instanceId: 3 }), device(counter, { value: 0 }, { instanceId: 3 })],
      /two devices are 'counter' 3/,
    ],
    [[device(counter, { value: 0 }, { instanceId: 0xffffffff })], /instance id of device 'counter' is 4294967295/],
    [[device(counter, { value: 0 }, { instanceId: -1 })], /is -1/],
    [[device(counter, { value: 0 }, { idstr: '' })], /idstr has 0 bytes/],
    [[device(counter, null as never)], /device 'counter' has no state/],
    [[null], /a device is null/],
    [[{}], /idstr is undefined|version of device/],
    [[{ ...packed, version: -1 }], /version of device 'p' is -1/],
    [[{ ...packed, minimumVersion: 2 }], /reads versions from 2 on and writes 1/],
    [[{ ...packed, maxBytes: 0 }], /maxBytes of device 'p' is 0/],
    [[{ ...packed, priority: Number.NaN }], /priority of device 'p' is NaN/],
    [[{ ...packed, load: undefined }], /device 'p' has no description, and not both save and load/],
  ]
  for (const [devices, words] of refused) {
    throwsCode(t, () => new DeviceSet(devices as Device[]), 'ERR_MULTIFD_ARGUMENT', words, String(words))
  }
  for (const firstSectionId of [-1, 0.5, 0xffffffff]) {
    const start = () => new DeviceStateSaver(new DeviceSet([byte('a')]), { ...options, firstSectionId })
    throwsCode(t, start, 'ERR_MULTIFD_ARGUMENT', /section id is/)
  }
  t.end()
})

t.test('a stream ends as other readers expect it', (t) => {
  const saver = new DeviceStateSaver(new DeviceSet([byte('a'), device(counter, { value: 5 })]), options)
  const full = saver.saveFull()
  const tail = Uint8Array.from([...full, ...saver.streamEnd()])
  const { eofAt, vmdesc } = locateStreamEnd(tail)
  t.equal(eofAt, full.length)
  t.match(walkDeviceSections(tail, vmdesc!), [
    { idstr: 'a', size: 1 },
    { idstr: 'counter', size: 4 },
  ])
  const json = decodeVmdescription(new MemoryReader(tail.subarray(eofAt + 1)))
  t.strictSame(parseVmdesc(json), vmdesc)
  t.equal(toHex(json), toHex(saver.vmdesc()))
  t.end()
})

t.test('the configuration is described as QEMU does', (t) => {
  for (const name of ['q10.0.2-precopy', 'q10.0.2-config-subsections']) {
    const { meta, main } = loadCapture(name)
    const { vmdesc } = locateStreamEnd(main.subarray(meta.stream!.device_state_range[0]))
    const capabilities = name.endsWith('subsections') ? { capabilities: ['x-ignore-shared'], uuid: meta.uuid } : {}
    const configuration = { machineType: meta.machine_type, ...capabilities }
    const ours = JSON.parse(
      new TextDecoder().decode(new DeviceStateSaver(new DeviceSet([]), { ...options, configuration }).vmdesc()),
    )
    t.equal(JSON.stringify(ours.configuration), JSON.stringify(vmdesc!.configuration), name)
    t.equal(ours.page_size, vmdesc!.page_size)
  }
  const configuration = { machineType: 'm', pageBits: 12, capabilities: ['ab', 'c', 'd'] }
  const described = (capabilities: string[]) =>
    JSON.parse(
      new TextDecoder().decode(
        new DeviceStateSaver(new DeviceSet([]), {
          ...options,
          configuration: { ...configuration, capabilities },
        }).vmdesc(),
      ),
    ).configuration.subsections
  t.match(described(['ab', 'c']), [
    { vmsd_name: 'configuration/target-page-bits', fields: [{ type: 'uint32', size: 4 }] },
    { fields: [{ size: 4 }, { index: 0, size: 3 }, { index: 1, size: 2 }] },
  ])
  t.match(described(['ab', 'cd'])[1].fields[1], { array_len: 2, size: 3 })
  t.end()
})

t.test('a set is registered once, and saved as often as one likes', (t) => {
  const state = { value: 1 }
  const set = new DeviceSet([device(counter, state)])
  const first = new DeviceStateSaver(set, options).saveFull()
  state.value = 2
  const second = new DeviceStateSaver(set, options).saveFull()
  t.notSame(first, second)
  t.equal(toHex(first.subarray(-9, -5)), '00000001')
  t.end()
})

/** A device without a schema, and what it was given. */
function keeper(value: unknown, more: Partial<PackedDevice> = {}) {
  const loaded: { value: unknown; version: number }[] = []
  const packed: PackedDevice = {
    idstr: 'app',
    version: 3,
    save: () => value,
    load: (value, version) => loaded.push({ value, version }),
    ...more,
  }
  return { packed, loaded }
}

t.test('plain values travel as msgpack', (t) => {
  const values = [
    null,
    undefined,
    true,
    '',
    'text €',
    -1,
    2 ** 40,
    1.5,
    Number.NaN,
    2n ** 64n - 1n,
    -(2n ** 63n),
    fromHex('00ff'),
    new Date(1234567890123),
    [],
    [1, [2, [3]]],
    {},
    { a: 1, b: { c: [undefined, null] }, '': 0, constructor: 'x' },
    Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`key${i}`, i])),
    Array.from({ length: 70_000 }, (_, i) => i % 256),
    'x'.repeat(70_000),
  ]
  for (const value of values) {
    const { full, vmdesc } = saveDevices([keeper(value).packed])
    const { packed, loaded } = keeper(undefined)
    loadDevices([packed], { full })
    t.same(loaded, [{ value, version: 3 }])
    const size = full.length - 1 - 4 - 4 - 4 - 4 - 5
    t.strictSame(vmdesc.devices[0], { name: 'app', instance_id: 0, fields: [{ name: 'data', type: 'buffer', size }] })
  }
  t.end()
})

t.test('what would come out as something else is not packed', (t) => {
  const circular: { self?: unknown } = {}
  circular.self = circular
  class Model {}
  const refused: [unknown, RegExp][] = [
    [() => {}, /device 'app' 0: state is a function/],
    [{ a: [Symbol('x')] }, /state\.a\.0 is a symbol/],
    [new Map(), /state is a Map/],
    [{ s: new Set() }, /state\.s is a Set/],
    [{ m: new Model() }, /state\.m is a Model/],
    [/x/, /state is a RegExp/],
    [2n ** 64n, /bigint of more than 64 bits/],
    [JSON.parse('{"__proto__": 1}'), /has a member '__proto__'/],
    [circular, /nested more than 128 deep, or holds itself/],
    [Promise.resolve(1), /save is asynchronous/],
  ]
  for (const [value, words] of refused) {
    throwsCode(t, () => saveDevices([keeper(value).packed]), 'ERR_MULTIFD_DEVICE', words, String(words))
  }
  const failing = {
    save: () => {
      throw new Error('out of paper')
    },
  }
  throwsCode(
    t,
    () => saveDevices([keeper(0, failing).packed]),
    'ERR_MULTIFD_DEVICE',
    /'app' 0: save failed: out of paper/,
  )
  t.end()
})

t.test('packed values have a limit on both sides', (t) => {
  const value = new Uint8Array(1000)
  throwsCode(
    t,
    () => saveDevices([keeper(value, { maxBytes: 1000 }).packed]),
    'ERR_MULTIFD_DEVICE',
    /has 1003 bytes, expected at most 1000/,
  )
  const { full } = saveDevices([keeper(value, { maxBytes: 1003 }).packed])
  throwsCode(
    t,
    () => loadDevices([keeper(0, { maxBytes: 1002 }).packed], { full }),
    'ERR_MULTIFD_DEVICE',
    /section 'app' 0: packed state has 1003 bytes/,
  )
  const huge = sectionOf('app', 3, fromHex('ffffffff'), false)
  throwsCode(
    t,
    () => loadDevices([keeper(0).packed], { full: huge }),
    'ERR_MULTIFD_DEVICE',
    /has 4294967295 bytes, expected at most 16777216/,
  )
  t.end()
})

t.test('versions of packed values', (t) => {
  const { full } = saveDevices([keeper('old', { version: 2 }).packed])
  throwsCode(t, () => loadDevices([keeper(0).packed], { full }), 'ERR_MULTIFD_DEVICE', /version 2 is older than 3/)
  throwsCode(
    t,
    () => loadDevices([keeper(0, { version: 1 }).packed], { full }),
    'ERR_MULTIFD_DEVICE',
    /version 2 is newer than 1/,
  )
  const { packed, loaded } = keeper(0, { minimumVersion: 1 })
  loadDevices([packed], { full })
  t.strictSame(loaded, [{ value: 'old', version: 2 }])
  t.end()
})

t.test('early packed values, and several of one name', (t) => {
  const both = (values: unknown[]) => [
    keeper(values[0], { early: true, idstr: 'first' }),
    keeper(values[1]),
    keeper(values[2]),
  ]
  const saved = saveDevices(both(['a', 'b', 'c']).map(({ packed }) => packed))
  const target = both([])
  loadDevices(
    target.map(({ packed }) => packed),
    saved,
  )
  t.strictSame(
    target.map(({ loaded }) => loaded[0]?.value),
    ['a', 'b', 'c'],
  )
  t.end()
})

t.test('msgpack of a peer is looked at before it is unpacked', (t) => {
  const load = (hex: string) => {
    const bytes = fromHex(hex)
    const size = bytes.length.toString(16).padStart(8, '0')
    const { packed, loaded } = keeper(0)
    loadDevices([packed], { full: sectionOf('app', 3, fromHex(size + hex)) })
    return loaded[0]?.value
  }
  t.strictSame(load('81a161 93010203'), { a: [1, 2, 3] })
  t.strictSame(load('d40000'), undefined)
  const proto = load('81 a9 5f5f70726f746f5f5f 81 a178 01') as object
  t.equal(Object.getPrototypeOf(proto), Object.prototype)
  t.equal((proto as { x?: unknown }).x, undefined)
  const refused: [string, RegExp][] = [
    ['', /ends inside a value/],
    ['01 02', /1 bytes behind its value/],
    ['c1', /byte 0xc1/],
    ['ddffffffff', /announces 4294967295 values it does not have/],
    ['dc0002 01', /announces 2 values/],
    ['dfffffffff', /announces 8589934590 values/],
    ['82 a161 01', /announces 4 values/],
    ['c6ffffffff', /ends inside a value/],
    ['db7fffffff', /ends inside a value/],
    ['d9', /ends inside a value/],
    ['a3 6161', /ends inside a value/],
    ['cb 00', /ends inside a value/],
    [`${'91'.repeat(200)}01`, /nested more than 128 deep/],
    ['d4 72 40', /value of type 114, expected plain values/],
    ['d5 6200 00', /value of type 98/],
    ['c7 02 65 00 00', /value of type 101/],
    ['c9 00000001 74 00', /value of type 116/],
  ]
  for (const [hex, words] of refused) throwsCode(t, () => load(hex), 'ERR_MULTIFD_PROTOCOL', words, hex)
  t.end()
})

t.test('a stream of sections stops where they end', (t) => {
  const state = { value: 0 }
  const loader = new DeviceStateLoader(new DeviceSet([device(counter, state)]))
  const { full } = saveDevices([device(counter, { value: 8 })])
  const reader = new MemoryReader(Uint8Array.from([...full, 0, 6]))
  loader.loadSections(reader, 'full')
  t.equal(reader.u8(), 0, 'EOF is for the caller')
  t.equal(state.value, 8)
  t.end()
})

t.test('large arrays come through, and are described once', (t) => {
  const values = Uint32Array.from({ length: 100_000 }, (_, i) => i * 40_000)
  for (const [name, field] of [
    ['uint8', array(u8('items'), 100_000)],
    ['uint16', array(u16('items'), 100_000)],
    ['uint32', array(u32('items'), 100_000)],
    ['uint64', array(u64('items', { as: 'number' }), 100_000)],
  ] as const) {
    const list = describe({ name: 'list', fields: [field as Field<{ items: number[] }>, END_OF_LIST] })
    const size = Number(name.slice(4)) / 8
    const items = Array.from(values, (value) => value % 2 ** (8 * size))
    const saved = saveDevices([device(list as Description<object>, { items })])
    t.strictSame(saved.vmdesc.devices[0]?.fields, [{ name: 'items', array_len: 100_000, type: name, size }])
    const state = { items: [] }
    loadDevices([device(list as Description<object>, state)], saved)
    t.ok(Buffer.from(Float64Array.from(state.items).buffer).equals(Buffer.from(Float64Array.from(items).buffer)), name)
  }
  t.end()
})
