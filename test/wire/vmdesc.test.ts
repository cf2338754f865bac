import t from 'tap'
import {
  parseVmdesc,
  sectionPayloadSize,
  type Vmdesc,
  type VmdescDevice,
  type VmdescField,
  walkDeviceSections,
} from '../../src/wire/vmdesc.js'
import { type BadCase, badFields, everyTruncation, NaiveWriter, patched, throwsCode } from './helpers.js'

const field = (size: number, more: Partial<VmdescField> = {}): VmdescField => ({
  name: 'f',
  type: 'uint8',
  size,
  ...more,
})

/** Three sections: nested subsections, an array, and a device without a description. */
const DEVICES: VmdescDevice[] = [
  {
    name: 'timer',
    instance_id: 0,
    vmsd_name: 'timer',
    version: 2,
    fields: [field(8), field(4, { array_len: 3 })],
    subsections: [
      {
        vmsd_name: 'timer/a',
        version: 1,
        fields: [field(2)],
        subsections: [{ vmsd_name: 'timer/a/b', version: 3, fields: [] }],
      },
      { vmsd_name: 'timer/c', version: 1, fields: [field(1)] },
    ],
  },
  { name: 'cpu', instance_id: 1, vmsd_name: 'cpu', version: 1, fields: [field(0)] },
  { name: 'old', instance_id: 0, fields: [field(5, { name: 'data', type: 'buffer' })] },
]
const VMDESC: Vmdesc = { page_size: 4096, devices: DEVICES }

const section = (writer: NaiveWriter, id: number, idstr: string, instance: number, version: number) =>
  writer.be(1, 4).be(4, id).cstr8(idstr).be(4, instance).be(4, version)

function deviceState(): Uint8Array {
  const writer = new NaiveWriter()
  section(writer, 7, 'timer', 0, 2).zeros(20)
  writer.be(1, 5).cstr8('timer/a').be(4, 1).zeros(2).be(1, 5).cstr8('timer/a/b').be(4, 3)
  writer.be(1, 5).cstr8('timer/c').be(4, 1).zeros(1).be(1, 0x7e).be(4, 7)
  section(writer, 8, 'cpu', 1, 1).be(1, 0x7e).be(4, 8)
  section(writer, 9, 'old', 0, 4).zeros(5).be(1, 0x7e).be(4, 9)
  return writer.be(1, 0).bytes()
}

const STATE = deviceState()
const FIRST_PAYLOAD = 1 + 4 + 6 + 4 + 4

t.test('walks every section to the EOF byte', async (t) => {
  const sections = walkDeviceSections(STATE, VMDESC)
  t.match(sections, [
    { idstr: 'timer', instanceId: 0, versionId: 2, sectionId: 7, headerOffset: 0, offset: FIRST_PAYLOAD, size: 64 },
    { idstr: 'cpu', instanceId: 1, versionId: 1, sectionId: 8, size: 0 },
    { idstr: 'old', instanceId: 0, versionId: 4, sectionId: 9, size: 5 },
  ])
  const last = sections.at(-1)!
  t.equal(last.offset + last.size + 5, STATE.length - 1)
  t.same(
    DEVICES.map((device) => sectionPayloadSize(device)),
    sections.map(({ size }) => size),
  )
})

t.test('the description may follow EOF', async (t) => {
  t.equal(walkDeviceSections(new Uint8Array([...STATE, 6, 0, 0]), VMDESC).length, 3)
})

t.test('devices that were sent early are passed over', async (t) => {
  const early: VmdescDevice = { name: 'x/virtio-mem-device-early', instance_id: 0, fields: [field(44)] }
  t.equal(walkDeviceSections(STATE, { ...VMDESC, devices: [early, early, ...DEVICES] }).length, 3)
})

t.test('no device state at all', async (t) => {
  t.same(walkDeviceSections(Uint8Array.of(0), VMDESC), [])
})

t.test('every truncation', async (t) => everyTruncation(t, STATE, (bytes) => walkDeviceSections(bytes, VMDESC)))

t.test('state that does not fit its description', async (t) => {
  const devices = (...list: (VmdescDevice | undefined)[]): Vmdesc => ({ ...VMDESC, devices: list as VmdescDevice[] })
  const [timer, cpu, old] = DEVICES
  const cases: [string, Uint8Array, Vmdesc, string | RegExp][] = [
    ['unknown first', STATE, devices(cpu), "section 'timer' 0 is not the next"],
    ['missing in the middle', STATE, devices(timer, old), "section 'cpu' 1 is not the next in vmdesc, which is 'old'"],
    ['missing at the end', STATE, devices(timer, cpu), "section 'old' 0"],
    ['one too many', STATE, devices(timer, cpu, old, cpu), "no section 'cpu'"],
    ['other instance', STATE, devices(timer, { ...cpu!, instance_id: 0 }, old), "section 'cpu' 1"],
    ['size', STATE, devices({ ...timer!, fields: [field(19)] }, cpu, old), "'timer' has byte 0x0, expected 'timer/a'"],
    ['footer', patched(STATE, FIRST_PAYLOAD + 64 + 1, '00000006'), VMDESC, 'names section 6, expected 7'],
    ['subsection name', patched(STATE, FIRST_PAYLOAD + 22, '58'), VMDESC, "has subsection 'Ximer/a'"],
    ['subsection version', patched(STATE, FIRST_PAYLOAD + 29, '00000009'), VMDESC, "'timer/a' has version 9"],
    ['no EOF', patched(STATE, STATE.length - 1, '01'), VMDESC, 'ends in byte 0x1, expected EOF'],
    ['more after EOF', new Uint8Array([...STATE, 4]), VMDESC, 'EOF is followed by byte 0x4'],
    [
      'huge sizes',
      STATE,
      devices({ ...timer!, fields: [field(2 ** 52, { array_len: 9 })] }, cpu, old),
      "gives 'timer' a size",
    ],
  ]
  for (const [name, bytes, vmdesc, words] of cases) {
    throwsCode(t, () => walkDeviceSections(bytes, vmdesc), 'ERR_MULTIFD_PROTOCOL', words, name)
  }
})

t.test('parses text and UTF-8, and keeps members it does not know', async (t) => {
  const text = JSON.stringify({ ...VMDESC, extra: 1, devices: [{ ...DEVICES[0], name: 'tïmer', more: [] }] })
  t.match(parseVmdesc(text), { extra: 1, devices: [{ name: 'tïmer', more: [] }] })
  t.same(parseVmdesc(new TextEncoder().encode(text)), JSON.parse(text))
})

t.test('each bad member, by its path', async (t) => {
  const json = (change: (vmdesc: object, device: object) => void) => {
    const vmdesc = structuredClone(VMDESC)
    change(vmdesc, vmdesc.devices[0]!)
    return new TextEncoder().encode(JSON.stringify(vmdesc))
  }
  const code = 'ERR_MULTIFD_PROTOCOL'
  const set = (key: string, value: unknown) => json((vmdesc) => Object.assign(vmdesc, { [key]: value }))
  const device = (key: string, value: unknown) => json((_, first) => Object.assign(first, { [key]: value }))
  const fields = (value: unknown) => device('fields', [value])
  const cases: BadCase[] = [
    ['not JSON', new TextEncoder().encode('{"page_size": 4096'), code, 'not JSON'],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), code, 'not JSON'],
    ['empty', new Uint8Array(0), code, 'not JSON'],
    ['null', new TextEncoder().encode('null'), code, 'vmdesc is null, expected an object'],
    ['array', new TextEncoder().encode('[]'), code, 'vmdesc is an array'],
    ['page_size', set('page_size', '4096'), code, 'vmdesc.page_size is 4096, expected 0..2^53 - 1'],
    ['no page_size', set('page_size', undefined), code, 'page_size is undefined'],
    ['configuration', set('configuration', {}), code, 'vmdesc.configuration.vmsd_name is undefined'],
    ['devices', set('devices', {}), code, 'vmdesc.devices is an object, expected an array'],
    ['a device', set('devices', [1]), code, 'vmdesc.devices[0] is 1'],
    ['name', device('name', 1), code, 'devices[0].name is 1, expected a text'],
    ['instance_id', device('instance_id', -1), code, 'devices[0].instance_id is -1'],
    ['version', device('version', 0.5), code, 'devices[0].version is 0.5'],
    ['vmsd_name', device('vmsd_name', null), code, 'devices[0].vmsd_name is null'],
    ['no fields', device('fields', undefined), code, 'devices[0].fields is undefined'],
    ['a field', fields(null), code, 'fields[0] is null'],
    ['field name', fields({ type: 'x', size: 1 }), code, 'fields[0].name is undefined'],
    ['field type', fields({ name: 'x', size: 1 }), code, 'fields[0].type is undefined'],
    ['no size', fields({ name: 'x', type: 'x' }), code, 'fields[0].size is undefined'],
    ['negative size', fields(field(-1)), code, 'fields[0].size is -1'],
    ['size 2^53', fields(field(2 ** 53)), code, 'fields[0].size is 9007199254740992'],
    ['array_len', fields(field(1, { array_len: -1 })), code, 'fields[0].array_len is -1'],
    ['index', fields({ ...field(1), index: '1' }), code, 'fields[0].index is 1'],
    ['struct', fields({ ...field(1), struct: 1 }), code, 'fields[0].struct is 1'],
    ['subsections', device('subsections', {}), code, 'devices[0].subsections is an object'],
    ['a subsection', device('subsections', [{}]), code, 'subsections[0].vmsd_name is undefined'],
  ]
  badFields(t, parseVmdesc, cases)
})

t.test('nesting without end is refused', async (t) => {
  const open = '{"vmsd_name":"","version":0,"fields":[],"subsections":['
  const nested = (depth: number) => `${open.repeat(depth)}${']}'.repeat(depth)}`
  const text = (depth: number) => `{"page_size":1,"devices":[{"name":"a","instance_id":0,${nested(depth).slice(1)}]}`
  t.equal(parseVmdesc(text(60)).devices.length, 1)
  throwsCode(t, () => parseVmdesc(text(200)), 'ERR_MULTIFD_PROTOCOL', 'nested more than 64')
  throwsCode(t, () => parseVmdesc(text(100_000)), 'ERR_MULTIFD_PROTOCOL', /nested|not JSON/)
})
