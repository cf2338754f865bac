// What follows the RAM's last section: device sections, the end mark, and the description.

import { MultifdError } from '../errors.js'
import type { StreamReader } from '../io/stream-reader.js'
import { decodeSectionHeader, decodeVmdescription, encodeFooter, FOOTER_SIZE, SECTION } from '../wire/stream.js'
import { DEFAULT_TAIL_LIMIT, locateStreamEnd, type StreamEnd, StreamEndFinder } from '../wire/stream-end.js'
import { parseVmdesc, type Vmdesc, walkDeviceSections } from '../wire/vmdesc.js'

export interface DeviceState {
  /** Every byte after the RAM's last section. */
  deviceState: Uint8Array
  vmdesc: Vmdesc | undefined
}

/**
 * Reads to the end of the stream.
 *
 * @param options.keep whether device sections are kept as they are; otherwise there may be none
 * @param options.staysOpen whether the source waits for our word before it closes
 * @throws MultifdError ERR_MULTIFD_TRUNCATED, ERR_MULTIFD_PROTOCOL, ERR_MULTIFD_UNSUPPORTED (a section nobody can load)
 */
export function readDeviceState(
  reader: StreamReader,
  options: { ramSectionId: number; keep: boolean; staysOpen: boolean },
): DeviceState {
  if (!options.keep) return readEmpty(reader)
  // The end is recognised by a footer before it, and the RAM's own was read already.
  const footer = new Uint8Array(FOOTER_SIZE)
  encodeFooter(new DataView(footer.buffer), 0, options.ramSectionId)
  const finder = new StreamEndFinder(DEFAULT_TAIL_LIMIT)
  finder.push(footer)
  for (;;) {
    const chunk = reader.some()
    if (chunk.length === 0) {
      const end = locateStreamEnd(finder.tail)
      if (end.vmdesc) checkSections(finder.tail, end)
      return result(finder.tail, end)
    }
    const end = finder.push(chunk)
    if (options.staysOpen && end && sectionsFit(finder.tail, end)) return result(finder.tail, end)
  }
}

function result(tail: Uint8Array, { vmdesc }: StreamEnd): DeviceState {
  return { deviceState: tail.slice(FOOTER_SIZE), vmdesc }
}

function checkSections(tail: Uint8Array, { eofAt, vmdesc }: StreamEnd): void {
  walkDeviceSections(tail.subarray(FOOTER_SIZE, eofAt + 1), vmdesc!)
}

function sectionsFit(tail: Uint8Array, end: StreamEnd): boolean {
  try {
    checkSections(tail, end)
    return true
  } catch (error) {
    if (error instanceof MultifdError) return false
    throw error
  }
}

function readEmpty(reader: StreamReader): DeviceState {
  const type = reader.peekU8()
  if (type === SECTION.full) {
    const { idstr } = decodeSectionHeader(reader) as { idstr: string }
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `section '${idstr}': this side has no such device`)
  }
  const byte = reader.u8()
  if (byte !== SECTION.eof) {
    throw new MultifdError('ERR_MULTIFD_PROTOCOL', `section type 0x${byte.toString(16)} where device state ends`)
  }
  if (reader.peekU8() !== SECTION.vmdesc) return { deviceState: new Uint8Array(), vmdesc: undefined }
  return { deviceState: new Uint8Array(), vmdesc: parseVmdesc(decodeVmdescription(reader)) }
}
