// The description at the end of the main stream: JSON that gives the size of every device section before it.
//
//   { "configuration": vmsd,                      QEMU 8.2 and later
//     "page_size": bytes,
//     "devices": [ { "name": idstr, "instance_id": n, ...vmsd } ] }
//   vmsd   "vmsd_name": text, "version": n, "fields": [field], optional "subsections": [vmsd]
//   field  "name": text, "type": text, "size": bytes of one element, optional "array_len": n or "index": i,
//          optional "struct": vmsd
//
// A payload is its fields, each size x (array_len or 1) bytes; then for each subsection, in order:
//   offset  size  field
//   0       1     05
//   1       1+L   cstr8 name, the vmsd_name
//   1+1+L   4     version
//   ...           its fields, then its own subsections
//
// `devices` has one entry for each FULL section in stream order, early ones (sent before RAM) first; RAM is not in it.
// A device without a description of its own has one field, `data`.
//
// Source of the format: QEMU migration/savevm.c, migration/vmstate.c, scripts/analyze-migration.py.

import { MultifdError } from '../errors.js'
import { hex, protocolError } from './bytes.js'
import { type ByteReader, MemoryReader } from './reader.js'
import { decodeFooter, decodeSectionHeader, SECTION } from './stream.js'

/** One field of a structure, by the JSON's own names. */
export interface VmdescField {
  name: string
  type: string
  /** Bytes of one element, nested structures and their subsections included. */
  size: number
  /** This many elements of that size follow. */
  array_len?: number
  /** This is one element of an array whose elements are described one by one. */
  index?: number
  struct?: VmdescVmsd
}

/** A structure: its fields, then its subsections. */
export interface VmdescVmsd {
  vmsd_name: string
  version: number
  fields: VmdescField[]
  subsections?: VmdescVmsd[]
}

/** A FULL section; without `vmsd_name` and `version` when the device has no description. */
export interface VmdescDevice extends Partial<VmdescVmsd> {
  name: string
  instance_id: number
  fields: VmdescField[]
}

/** The whole description. */
export interface Vmdesc {
  configuration?: VmdescVmsd
  /** Bytes. */
  page_size: number
  devices: VmdescDevice[]
}

/** Where one FULL section lies. */
export interface DeviceSection {
  idstr: string
  instanceId: number
  versionId: number
  sectionId: number
  /** Of its type byte, in the bytes walked. */
  headerOffset: number
  /** Of its payload. */
  offset: number
  /** Of its payload, bytes; the footer follows. */
  size: number
}

/** Structures may nest this deep; QEMU's deepest has about ten levels. */
const MAX_DEPTH = 64

/**
 * Parses a description and checks its structure. Members that are not known are kept and not looked at.
 * @param text the JSON, or its UTF-8 bytes
 * Throws ERR_MULTIFD_PROTOCOL when it is not JSON, or not of this structure.
 */
export function parseVmdesc(text: string | Uint8Array): Vmdesc {
  let value: unknown
  try {
    value = JSON.parse(typeof text === 'string' ? text : new TextDecoder('utf-8', { fatal: true }).decode(text.slice()))
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_PROTOCOL', 'vmdesc is not JSON', { cause })
  }
  const vmdesc = asObject(value, 'vmdesc')
  checkNumber(vmdesc, 'page_size', 'vmdesc', true)
  if (vmdesc.configuration !== undefined) checkVmsd(vmdesc.configuration, 'vmdesc.configuration', 0)
  asArray(vmdesc.devices, 'vmdesc.devices').forEach((device, i) => {
    const path = `vmdesc.devices[${i}]`
    const object = asObject(device, path)
    checkText(object, 'name', path, true)
    checkNumber(object, 'instance_id', path, true)
    checkText(object, 'vmsd_name', path, false)
    checkNumber(object, 'version', path, false)
    checkFields(object, path, 0)
  })
  return value as Vmdesc
}

/** What JSON.parse gave, with the members that are looked at by name. */
interface JsonObject {
  [key: string]: unknown
  configuration?: unknown
  devices?: unknown
  fields?: unknown
  struct?: unknown
  subsections?: unknown
}

function asObject(value: unknown, path: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(path, value, 'an object')
  return value as JsonObject
}

function asArray(value: unknown, path: string): unknown[] {
  if (!Array.isArray(value)) throw bad(path, value, 'an array')
  return value
}

function checkText(object: JsonObject, key: string, path: string, required: boolean): void {
  const value = object[key]
  if (value === undefined && !required) return
  if (typeof value !== 'string') throw bad(`${path}.${key}`, value, 'a text')
}

function checkNumber(object: JsonObject, key: string, path: string, required: boolean): void {
  const value = object[key]
  if (value === undefined && !required) return
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw bad(`${path}.${key}`, value, '0..2^53 - 1')
}

function bad(path: string, value: unknown, expected: string): MultifdError {
  const shown = typeof value === 'object' && value !== null ? (Array.isArray(value) ? 'an array' : 'an object') : value
  return protocolError(`${path} is ${shown}, expected ${expected}`)
}

function checkVmsd(value: unknown, path: string, depth: number): void {
  const vmsd = asObject(value, path)
  checkText(vmsd, 'vmsd_name', path, true)
  checkNumber(vmsd, 'version', path, true)
  checkFields(vmsd, path, depth)
}

function checkFields(vmsd: JsonObject, path: string, depth: number): void {
  if (depth > MAX_DEPTH) throw protocolError(`${path} is nested more than ${MAX_DEPTH} deep`)
  asArray(vmsd.fields, `${path}.fields`).forEach((value, i) => {
    const at = `${path}.fields[${i}]`
    const field = asObject(value, at)
    checkText(field, 'name', at, true)
    checkText(field, 'type', at, true)
    checkNumber(field, 'size', at, true)
    checkNumber(field, 'array_len', at, false)
    checkNumber(field, 'index', at, false)
    if (field.struct !== undefined) checkVmsd(field.struct, `${at}.struct`, depth + 1)
  })
  if (vmsd.subsections === undefined) return
  asArray(vmsd.subsections, `${path}.subsections`).forEach((subsection, i) => {
    checkVmsd(subsection, `${path}.subsections[${i}]`, depth + 1)
  })
}

/** Bytes of the fields, without subsections. Throws ERR_MULTIFD_PROTOCOL above 2^53 - 1. */
function fieldsSize(fields: readonly VmdescField[], path: string): number {
  const size = fields.reduce((sum, field) => sum + field.size * (field.array_len ?? 1), 0)
  if (!Number.isSafeInteger(size)) throw protocolError(`vmdesc gives '${path}' a size of ${size} bytes`)
  return size
}

/** Bytes of a section's payload by its description, subsections and their heads included. */
export function sectionPayloadSize(vmsd: Pick<VmdescDevice, 'fields' | 'subsections'>): number {
  const head = 1 + 1 + 4
  return (vmsd.subsections ?? []).reduce(
    (size, subsection) => size + head + subsection.vmsd_name.length + sectionPayloadSize(subsection),
    fieldsSize(vmsd.fields, 'a section'),
  )
}

/**
 * Finds the FULL sections in the device state at the end of a stream.
 * @param tail the bytes from the first FULL section on; what follows the EOF byte may be there or not
 * @param vmdesc its description. Devices at its beginning that are not in `tail` were sent early, and are passed over
 * Throws ERR_MULTIFD_PROTOCOL when section and description do not fit, or the walk does not end on the EOF byte;
 * ERR_MULTIFD_TRUNCATED.
 */
export function walkDeviceSections(tail: Uint8Array, vmdesc: Vmdesc): DeviceSection[] {
  const reader = new MemoryReader(tail)
  const sections: DeviceSection[] = []
  let next = 0
  while (reader.peekU8() === SECTION.full) {
    const headerOffset = reader.position
    const header = decodeSectionHeader(reader)
    if (header.type !== SECTION.full) break
    const { sectionId, idstr, instanceId, versionId } = header
    const matches = (device: VmdescDevice) => device.name === idstr && device.instance_id === instanceId
    if (sections.length === 0) next = vmdesc.devices.findIndex(matches)
    const device = vmdesc.devices[next++]
    if (device === undefined || !matches(device)) {
      throw protocolError(`section '${idstr}' ${instanceId} is not the next in vmdesc, which is '${device?.name}'`)
    }
    const offset = reader.position
    skipPayload(reader, device, idstr)
    sections.push({
      idstr,
      instanceId,
      versionId,
      sectionId,
      headerOffset,
      offset,
      size: reader.position - offset,
    })
    decodeFooter(reader, sectionId)
  }
  const eof = reader.u8()
  if (eof !== SECTION.eof) throw protocolError(`device state ends in byte ${hex(eof)}, expected EOF`)
  const after = reader.peekU8()
  if (after !== -1 && after !== SECTION.vmdesc) {
    throw protocolError(`EOF is followed by byte ${hex(after)}, expected the description or nothing`)
  }
  if (sections.length > 0 && next !== vmdesc.devices.length) {
    throw protocolError(`device state has no section '${vmdesc.devices[next]?.name}', which vmdesc lists next`)
  }
  return sections
}

function skipPayload(
  reader: ByteReader & { skip(length: number): void },
  vmsd: Pick<VmdescDevice, 'fields' | 'subsections'>,
  path: string,
): void {
  reader.skip(fieldsSize(vmsd.fields, path))
  for (const subsection of vmsd.subsections ?? []) {
    const name = subsection.vmsd_name
    const type = reader.u8()
    if (type !== SECTION.subsection) throw protocolError(`'${path}' has byte ${hex(type)}, expected '${name}'`)
    const found = reader.cstr8()
    if (found !== name) throw protocolError(`'${path}' has subsection '${found}', expected '${name}'`)
    const version = reader.u32()
    if (version !== subsection.version) {
      throw protocolError(`subsection '${name}' has version ${version}, expected ${subsection.version}`)
    }
    skipPayload(reader, subsection, name)
  }
}
