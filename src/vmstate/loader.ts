// Loads a stream's sections into the devices of a program. Strict: what is not known, not due or not whole fails by name.

import { protocolError } from '../wire/bytes.js'
import type { ByteReader } from '../wire/reader.js'
import {
  decodeFooter,
  decodeSectionHeader,
  SECTION,
  type SectionHeader,
  type SectionIntroduction,
} from '../wire/stream.js'
import { readBytes } from './buffers.js'
import { callHook, deviceError, type LoadContext, locateError } from './context.js'
import { type DeviceSet, nameOf, type RegisteredDevice } from './device-set.js'
import { checkVersion, loadDescription } from './load.js'
import { LookAheadReader } from './look-ahead.js'
import { unpackValue } from './msgpack.js'

/** Whether sections come before the pages or after them. */
export type LoadPhase = 'early' | 'full'

/** One migration's loading, used once. After an error the devices hold part of the other side's state. */
export class DeviceStateLoader {
  readonly #set: DeviceSet
  readonly #loaded = new Set<RegisteredDevice>()
  readonly #sectionIds = new Set<number>()

  constructor(set: DeviceSet) {
    this.#set = set
  }

  /**
   * Loads FULL sections, headers and footers included, for as long as the next byte begins one. The byte after them is
   * not consumed.
   *
   * Throws as {@link loadSection}.
   */
  loadSections(reader: ByteReader, phase: LoadPhase): void {
    const ahead = LookAheadReader.over(reader)
    while (ahead.peekU8() === SECTION.full) {
      const header = readHeader(ahead)
      if (header.type === SECTION.full) this.loadSection(header, ahead, phase)
    }
    checkConsumed(ahead)
  }

  /**
   * Loads one section whose header was read, its footer included.
   *
   * Throws ERR_MULTIFD_DEVICE for a section that this side has no device for, that came before, belongs into the other
   * phase, is of a version out of range, or does not fit the device; ERR_MULTIFD_PROTOCOL for bytes that are no such
   * state and for a footer that is missing; ERR_MULTIFD_TRUNCATED; and what the reader throws. Section and field are in
   * the message.
   */
  loadSection(header: SectionIntroduction, reader: ByteReader, phase: LoadPhase): void {
    const ahead = LookAheadReader.over(reader)
    const path: string[] = []
    try {
      const device = this.#expect(header, phase)
      const context: LoadContext = { reader: ahead, path, repeated: undefined }
      loadPayload(context, device, header.versionId)
      path.length = 0
      if (context.repeated !== undefined && ahead.peekU8() === SECTION.subsection) {
        throw protocolError(`subsection '${context.repeated}' comes twice`)
      }
      decodeFooter(ahead, header.sectionId)
      if (ahead !== reader) checkConsumed(ahead)
    } catch (error) {
      throw locateError(error, `section ${nameOf(header)}`, path)
    }
  }

  /** Throws ERR_MULTIFD_DEVICE when a device had no section that had to have one by the end of `phase`. */
  finish(phase: LoadPhase): void {
    const missing = this.#set.devices.find(
      (device) => (phase === 'full' || device.early) && !device.optional && !this.#loaded.has(device),
    )
    if (missing !== undefined) throw deviceError(`the source has sent no section ${nameOf(missing)}`)
  }

  #expect(header: SectionIntroduction, phase: LoadPhase): RegisteredDevice {
    const device = this.#set.find(header.idstr, header.instanceId)
    if (device === undefined) throw deviceError('this side has no such device')
    if (this.#loaded.has(device)) throw deviceError('section comes twice')
    if (device.early !== (phase === 'early')) {
      throw deviceError(
        device.early ? 'section comes after the pages, expected before' : 'section comes before the pages',
      )
    }
    if (this.#sectionIds.has(header.sectionId)) {
      throw protocolError(`section id ${header.sectionId} belongs to another section`)
    }
    checkVersion(header.versionId, device)
    this.#loaded.add(device)
    this.#sectionIds.add(header.sectionId)
    return device
  }
}

function loadPayload(context: LoadContext, { content }: RegisteredDevice, version: number): void {
  if ('description' in content) {
    loadDescription(context, content.description, content.state, version)
    return
  }
  const { packed, maxBytes } = content
  const length = context.reader.u32()
  if (length > maxBytes) throw deviceError(`packed state has ${length} bytes, expected at most ${maxBytes}`)
  const value = unpackValue(readBytes(context.reader, length))
  callHook('load', () => packed.load(value, version))
}

function readHeader(reader: ByteReader): SectionHeader {
  try {
    return decodeSectionHeader(reader)
  } catch (error) {
    throw locateError(error, "a device section's header", [])
  }
}

/** A name that began like a subsection's may have been looked at beyond the footer: no stream that makes sense does that. */
function checkConsumed(reader: LookAheadReader): void {
  if (reader.lookedAhead > 0) throw protocolError('section ends in what begins as a subsection')
}
