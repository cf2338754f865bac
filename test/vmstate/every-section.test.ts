// Every section of the recorded streams through descriptions made from QEMU's own: nested structures, arrays described
// once and one by one, subsections of structures and of subsections, temporary structures.

import t from 'tap'
import {
  array,
  bitmap,
  bool,
  buffer,
  type Description,
  DeviceSet,
  DeviceStateLoader,
  DeviceStateSaver,
  describe,
  device,
  END_OF_LIST,
  i8,
  i16,
  i32,
  i64,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  type ValueField,
  withTmp,
} from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import type { VmdescField, VmdescVmsd } from '../../src/wire/vmdesc.js'
import { toHex } from '../wire/helpers.js'
import { allSections } from './sections.js'

type AnyField = ValueField<string, never, unknown>
type AnyDescription = Description<object, object>

const INTEGERS = { uint8: u8, uint16: u16, uint32: u32, uint64: u64, int8: i8, int16: i16, int32: i32, int64: i64 }

/** The field of one element. What is not known is bytes, under QEMU's name for it. */
function single(name: string, key: string, { type, size, struct: inner }: VmdescField): AnyField {
  const make = INTEGERS[type as keyof typeof INTEGERS] as ((name: string, options: object) => AnyField) | undefined
  if (make !== undefined) return make(name, { key })
  if (type === 'bool') return bool(name, { key }) as unknown as AnyField
  if (type === 'timer') return timer(name, { key }) as unknown as AnyField
  if (type === 'bitmap') return bitmap(name, { key, bits: size * 8 }) as unknown as AnyField
  if (type === 'struct') return struct(name, described(inner!), { key }) as unknown as AnyField
  return buffer(name, size, { key, type }) as unknown as AnyField
}

/** Fields under the numbered names that QEMU gave them; what is read goes to keys that no other description has. */
function fieldsOf({ vmsd_name, fields }: VmdescVmsd): unknown[] {
  return fields.map((field, i) => {
    const { name, type, size, array_len } = field
    const key = `${vmsd_name}.${i}`
    if (type === 'unused_buffer') return unused(size)
    if (type === 'tmp') {
      // Kept, to be written again.
      const create = (parent: Record<string, object>) => (parent[key] ??= {})
      return withTmp(described(field as VmdescField & VmdescVmsd), { name, create })
    }
    const element = single(name, key, field)
    return array_len === undefined ? element : array(element, array_len)
  })
}

function described(vmsd: VmdescVmsd): AnyDescription {
  return describe({
    name: vmsd.vmsd_name,
    versionId: vmsd.version,
    fields: [...fieldsOf(vmsd), END_OF_LIST],
    subsections: (vmsd.subsections ?? []).map(described),
  } as never) as unknown as AnyDescription
}

/** Whether an array is in it whose elements were described one by one: they differ, and one field can not make them. */
function hasDifferingElements({ fields, subsections = [] }: Pick<VmdescVmsd, 'fields' | 'subsections'>): boolean {
  return (
    fields.some(({ index, struct }) => index !== undefined || (struct && hasDifferingElements(struct))) ||
    subsections.some(hasDifferingElements)
  )
}

t.test('sections come back byte for byte, and with the same description', (t) => {
  const found = new Map<string, number>()
  const left = new Set<string>()
  for (const { from, header, bytes, entry } of allSections()) {
    if (entry.vmsd_name === undefined || hasDifferingElements(entry)) {
      left.add(header.idstr)
      continue
    }
    const { idstr, instanceId, sectionId } = header
    const description = described(entry as VmdescVmsd)
    const set = new DeviceSet([device(description, {}, { idstr, instanceId })])
    const reader = new MemoryReader(bytes)
    new DeviceStateLoader(set).loadSections(reader, 'full')
    const saver = new DeviceStateSaver(set, { firstSectionId: sectionId, pageSize: 4096 })
    const written = saver.saveFull()
    const { devices } = JSON.parse(new TextDecoder().decode(saver.vmdesc()))
    if (toHex(written) !== toHex(bytes)) t.fail(`${from}: '${idstr}' is written otherwise`)
    if (JSON.stringify(devices[0]) !== JSON.stringify(entry)) {
      t.same(devices[0], entry, `${from}: '${idstr}' is described otherwise`)
    }
    found.set(idstr, (found.get(idstr) ?? 0) + 1)
  }
  t.comment(`${[...found.values()].reduce((a, b) => a + b, 0)} sections of ${[...found.keys()].join(', ')}`)
  t.comment(`not: ${[...left].join(', ')}`)
  t.ok(found.size >= 25, `${found.size} devices`)
  t.end()
})
