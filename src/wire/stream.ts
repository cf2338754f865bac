// The main channel's frame: header, configuration, section headers and footers, the description at the end.
//
// header            be32 magic "QEVM", be32 version (3)
// configuration     07, be32 length, machine type; then subsections, each
//                   05, cstr8 name, be32 version (1), and by name
//                     configuration/target-page-bits   be32 bits of a page's size
//                     configuration/capabilities       be32 count, count x cstr8
//                     configuration/uuid               16 raw bytes
// START, FULL       01 or 04, be32 section id, cstr8 idstr, be32 instance id, be32 version id, payload
// PART, END         02 or 03, be32 section id, payload
// footer            7e, be32 section id; after every payload
// EOF               00
// VMDESCRIPTION     06, be32 length, JSON as UTF-8; after EOF
//
// No payload has a length: a section ends where its payload is understood to end. Each decoder here reads what its
// encoder writes, the type byte included; readers dispatch on peekU8().
//
// Source of the format: QEMU migration/savevm.c and docs/devel/migration.

import {
  argumentError,
  CSTR8_MAX,
  formatUuid,
  hex,
  parseUuid,
  protocolError,
  UUID_SIZE,
  viewOf,
  writeCstr8,
  writeText,
} from './bytes.js'
import type { ByteReader } from './reader.js'

/** "QEVM". */
export const STREAM_MAGIC = 0x5145564d
export const STREAM_VERSION = 3
export const STREAM_HEADER_SIZE = 8

/** First byte of everything after the header. */
export const SECTION = {
  eof: 0,
  start: 1,
  part: 2,
  end: 3,
  full: 4,
  subsection: 5,
  vmdesc: 6,
  configuration: 7,
  command: 8,
  footer: 0x7e,
} as const

export const FOOTER_SIZE = 5
/** Bytes of a PART or END section before its payload. */
export const SECTION_PART_SIZE = 5
/** Largest description that is read, bytes; that of a small machine has 100 kB. */
export const MAX_VMDESC_SIZE = 64 * 1024 * 1024

const MAX_CAPABILITIES = 256
const MIN_PAGE_BITS = 10
const MAX_PAGE_BITS = 19
const ANY_INSTANCE = 0xffffffff
const SUBSECTION_VERSION = 1
const SUBSECTION_NAME = {
  pageBits: 'configuration/target-page-bits',
  capabilities: 'configuration/capabilities',
  uuid: 'configuration/uuid',
} as const

/** The capability under which blocks are listed with their guest addresses, and the shared ones have no pages. */
export const IGNORE_SHARED = 'x-ignore-shared'

/** What the configuration section says. */
export interface Configuration {
  /** Such as `pc-i440fx-10.0`. */
  machineType: string
  /** Log2 of the page size, sent where the target's page size varies. */
  pageBits?: number
  /** The capabilities that must be equal on both ends, by QEMU's names. */
  capabilities?: string[]
  /** As text, in lower case. */
  uuid?: string
}

/** The configuration's subsections, for encoding. */
export type ConfigurationSubsections = Omit<Configuration, 'machineType'>

/** A configuration to encode. */
export interface ConfigurationSource {
  machineType: string
  subsections?: ConfigurationSubsections
}

/** The head of a section that introduces itself: START or FULL. */
export interface SectionIntroduction {
  /** Chosen by the source, of meaning in this stream only. */
  sectionId: number
  idstr: string
  instanceId: number
  versionId: number
}

/** Any section's head, as decoded. */
export type SectionHeader =
  | ({ type: typeof SECTION.start } & SectionIntroduction)
  | ({ type: typeof SECTION.full } & SectionIntroduction)
  | { type: typeof SECTION.part; sectionId: number }
  | { type: typeof SECTION.end; sectionId: number }

/** Writes the 8 bytes that a main channel starts with; returns the offset after them. */
export function encodeStreamHeader(view: DataView, at: number): number {
  view.setUint32(at, STREAM_MAGIC)
  view.setUint32(at + 4, STREAM_VERSION)
  return at + STREAM_HEADER_SIZE
}

/** Reads the 8 bytes that a main channel starts with. Throws ERR_MULTIFD_PROTOCOL for another magic or version. */
export function decodeStreamHeader(reader: ByteReader): void {
  const magic = reader.u32()
  if (magic !== STREAM_MAGIC) throw protocolError(`stream magic is ${hex(magic)}, expected ${hex(STREAM_MAGIC)}`)
  const version = reader.u32()
  if (version !== STREAM_VERSION) throw protocolError(`stream version is ${version}, expected ${STREAM_VERSION}`)
}

/** Bytes that {@link encodeConfiguration} writes. */
export function configurationSize({ machineType, subsections = {} }: ConfigurationSource): number {
  const { pageBits, capabilities, uuid } = subsections
  let size = 5 + machineType.length
  if (pageBits !== undefined) size += subsectionHeadSize(SUBSECTION_NAME.pageBits) + 4
  if (capabilities !== undefined) {
    size += subsectionHeadSize(SUBSECTION_NAME.capabilities) + 4
    for (const name of capabilities) size += 1 + name.length
  }
  if (uuid !== undefined) size += subsectionHeadSize(SUBSECTION_NAME.uuid) + UUID_SIZE
  return size
}

function subsectionHeadSize(name: string): number {
  return 1 + 1 + name.length + 4
}

/**
 * Writes a configuration section; returns the offset after it.
 * Throws ERR_MULTIFD_ARGUMENT for a name that is empty or longer than 255 bytes, and for a uuid that is none.
 */
export function encodeConfiguration(
  view: DataView,
  at: number,
  { machineType, subsections = {} }: ConfigurationSource,
): number {
  if (machineType.length === 0 || machineType.length > CSTR8_MAX) {
    throw argumentError(`machine type has ${machineType.length} bytes, expected 1..${CSTR8_MAX}`)
  }
  view.setUint8(at, SECTION.configuration)
  view.setUint32(at + 1, machineType.length)
  let next = writeText(view, at + 5, machineType)
  const { pageBits, capabilities, uuid } = subsections
  if (pageBits !== undefined) {
    next = encodeSubsectionHead(view, next, SUBSECTION_NAME.pageBits)
    view.setUint32(next, pageBits)
    next += 4
  }
  if (capabilities !== undefined) {
    next = encodeSubsectionHead(view, next, SUBSECTION_NAME.capabilities)
    view.setUint32(next, capabilities.length)
    next += 4
    for (const name of capabilities) next = writeCstr8(view, next, name)
  }
  if (uuid !== undefined) {
    next = encodeSubsectionHead(view, next, SUBSECTION_NAME.uuid)
    for (const byte of parseUuid(uuid)) view.setUint8(next++, byte)
  }
  return next
}

function encodeSubsectionHead(view: DataView, at: number, name: string): number {
  view.setUint8(at, SECTION.subsection)
  const next = writeCstr8(view, at + 1, name)
  view.setUint32(next, SUBSECTION_VERSION)
  return next + 4
}

/**
 * Reads a configuration section, with as many subsections as follow.
 * Throws ERR_MULTIFD_PROTOCOL for lengths, counts and values out of range and for unknown or repeated subsections,
 * ERR_MULTIFD_TRUNCATED.
 */
export function decodeConfiguration(reader: ByteReader): Configuration {
  expectType(reader.u8(), SECTION.configuration, 'configuration')
  const length = reader.u32()
  if (length === 0 || length > CSTR8_MAX) {
    throw protocolError(`machine type has ${length} bytes, expected 1..${CSTR8_MAX}`)
  }
  const configuration: Configuration = { machineType: reader.text(length) }
  while (reader.peekU8() === SECTION.subsection) {
    reader.u8()
    const name = reader.cstr8()
    const version = reader.u32()
    if (version !== SUBSECTION_VERSION) {
      throw protocolError(`subsection '${name}' has version ${version}, expected ${SUBSECTION_VERSION}`)
    }
    decodeSubsection(reader, name, configuration)
  }
  return configuration
}

function decodeSubsection(reader: ByteReader, name: string, into: Configuration): void {
  switch (name) {
    case SUBSECTION_NAME.pageBits: {
      if (into.pageBits !== undefined) throw protocolError(`subsection '${name}' comes twice`)
      const bits = reader.u32()
      if (bits < MIN_PAGE_BITS || bits > MAX_PAGE_BITS) {
        throw protocolError(`target-page-bits is ${bits}, expected ${MIN_PAGE_BITS}..${MAX_PAGE_BITS}`)
      }
      into.pageBits = bits
      return
    }
    case SUBSECTION_NAME.capabilities: {
      if (into.capabilities !== undefined) throw protocolError(`subsection '${name}' comes twice`)
      const count = reader.u32()
      if (count > MAX_CAPABILITIES) {
        throw protocolError(`count of capabilities is ${count}, expected at most ${MAX_CAPABILITIES}`)
      }
      const names: string[] = []
      for (let i = 0; i < count; i++) names.push(nonEmpty(reader.cstr8(), 'name of a capability'))
      into.capabilities = names
      return
    }
    case SUBSECTION_NAME.uuid:
      if (into.uuid !== undefined) throw protocolError(`subsection '${name}' comes twice`)
      into.uuid = formatUuid(viewOf(reader.bytes(UUID_SIZE)), 0)
      return
    default:
      throw protocolError(`configuration has an unknown subsection '${name}'`)
  }
}

/** Bytes of a START or FULL section before its payload. */
export function sectionHeaderSize(idstr: string): number {
  return 1 + 4 + 1 + idstr.length + 4 + 4
}

/** Writes the head of a START or FULL section; returns the offset after it. */
export function encodeSectionHeader(
  view: DataView,
  at: number,
  type: typeof SECTION.start | typeof SECTION.full,
  { sectionId, idstr, instanceId, versionId }: SectionIntroduction,
): number {
  view.setUint8(at, type)
  view.setUint32(at + 1, sectionId)
  const next = writeCstr8(view, at + 5, idstr)
  view.setUint32(next, instanceId)
  view.setUint32(next + 4, versionId)
  return next + 8
}

/** Writes the head of a PART or END section; returns the offset after it. */
export function encodeSectionPart(
  view: DataView,
  at: number,
  type: typeof SECTION.part | typeof SECTION.end,
  sectionId: number,
): number {
  view.setUint8(at, type)
  view.setUint32(at + 1, sectionId)
  return at + SECTION_PART_SIZE
}

/**
 * Reads the head of a section, of any of the four types.
 * Throws ERR_MULTIFD_PROTOCOL for another type byte, an empty idstr or an impossible instance, ERR_MULTIFD_TRUNCATED.
 */
export function decodeSectionHeader(reader: ByteReader): SectionHeader {
  const type = reader.u8()
  switch (type) {
    case SECTION.start:
    case SECTION.full: {
      const sectionId = reader.u32()
      const idstr = nonEmpty(reader.cstr8(), "section's idstr")
      const instanceId = reader.u32()
      if (instanceId === ANY_INSTANCE) throw protocolError(`instance id of '${idstr}' is ${hex(instanceId)}`)
      return { type, sectionId, idstr, instanceId, versionId: reader.u32() }
    }
    case SECTION.part:
    case SECTION.end:
      return { type, sectionId: reader.u32() }
    default:
      throw protocolError(`section type is ${hex(type)}, expected START, PART, END or FULL`)
  }
}

/** Writes a footer; returns the offset after it. */
export function encodeFooter(view: DataView, at: number, sectionId: number): number {
  view.setUint8(at, SECTION.footer)
  view.setUint32(at + 1, sectionId)
  return at + FOOTER_SIZE
}

/** Reads a footer. Throws ERR_MULTIFD_PROTOCOL when it is none, or another section's; ERR_MULTIFD_TRUNCATED. */
export function decodeFooter(reader: ByteReader, expectedId: number): void {
  expectType(reader.u8(), SECTION.footer, `footer of section ${expectedId}`)
  const id = reader.u32()
  if (id !== expectedId) throw protocolError(`footer names section ${id}, expected ${expectedId}`)
}

/** Writes the byte that ends device state; returns the offset after it. */
export function encodeEof(view: DataView, at: number): number {
  view.setUint8(at, SECTION.eof)
  return at + 1
}

/** Writes the head of the description, whose JSON of `length` bytes follows; returns the offset after the head. */
export function encodeVmdescHeader(view: DataView, at: number, length: number): number {
  view.setUint8(at, SECTION.vmdesc)
  view.setUint32(at + 1, length)
  return at + 5
}

/**
 * Reads the description and returns its JSON as UTF-8 bytes.
 * Throws ERR_MULTIFD_PROTOCOL when it is none or longer than {@link MAX_VMDESC_SIZE}, ERR_MULTIFD_TRUNCATED.
 */
export function decodeVmdescription(reader: ByteReader): Uint8Array {
  expectType(reader.u8(), SECTION.vmdesc, 'description')
  const length = reader.u32()
  if (length > MAX_VMDESC_SIZE) {
    throw protocolError(`description has ${length} bytes, expected at most ${MAX_VMDESC_SIZE}`)
  }
  return reader.bytes(length)
}

function expectType(type: number, expected: number, what: string): void {
  if (type !== expected) throw protocolError(`${what} starts with byte ${hex(type)}, expected ${hex(expected)}`)
}

function nonEmpty(text: string, what: string): string {
  if (text.length === 0) throw protocolError(`${what} is empty`)
  return text
}
