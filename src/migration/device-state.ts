// What follows the RAM's last section: device sections, the end mark, and the description.

import { MultifdError } from '../errors.js'
import type { StreamReader } from '../io/stream-reader.js'
import { encodeFooter, FOOTER_SIZE, SECTION } from '../wire/stream.js'
import { DEFAULT_TAIL_LIMIT, locateStreamEnd, type StreamEnd, StreamEndFinder } from '../wire/stream-end.js'
import { type Vmdesc, walkDeviceSections } from '../wire/vmdesc.js'

export interface DeviceState {
  /** Every byte after the RAM's last section. */
  deviceState: Uint8Array
  vmdesc: Vmdesc | undefined
}

export interface DeviceStateOptions {
  ramSectionId: number
  /** Whether the source waits for our word before it closes. */
  staysOpen: boolean
  /** Whether more comes, within a while. */
  moreComes(): boolean
  /** Whether somebody else says what is wrong with sections that are not as they are described. */
  checkedLater: boolean
}

/**
 * Reads to the end of the stream.
 *
 * @throws MultifdError ERR_MULTIFD_TRUNCATED, ERR_MULTIFD_PROTOCOL, {@link CutShort}
 */
export function readDeviceState(reader: StreamReader, options: DeviceStateOptions): DeviceState {
  const { ramSectionId, staysOpen, moreComes, checkedLater } = options
  // What nobody knows to be right would be waited for in vain.
  const type = checkedLater ? reader.peekU8() : SECTION.full
  if (type !== SECTION.full && type !== SECTION.eof && type !== -1) {
    throw new MultifdError(
      'ERR_MULTIFD_PROTOCOL',
      `section type 0x${type.toString(16)} where device state begins or ends`,
    )
  }
  // The end is recognised by a footer before it, and the RAM's own was read already.
  const footer = new Uint8Array(FOOTER_SIZE)
  encodeFooter(new DataView(footer.buffer), 0, ramSectionId)
  const finder = new StreamEndFinder(DEFAULT_TAIL_LIMIT)
  finder.push(footer)
  try {
    for (;;) {
      const chunk = reader.some()
      if (chunk.length === 0) {
        const end = locateStreamEnd(finder.tail)
        if (end.vmdesc && !checkedLater) checkSections(finder.tail, end)
        return result(finder.tail, end.vmdesc)
      }
      const end = finder.push(chunk)
      if (!staysOpen || !end) continue
      if (sectionsFit(finder.tail, end)) return result(finder.tail, end.vmdesc)
      // It may look like the end by chance. Where nothing follows it is, and the sections are not what it says.
      if (moreComes()) continue
      if (!checkedLater) checkSections(finder.tail, end)
      return result(finder.tail, end.vmdesc)
    }
  } catch (error) {
    if (!checkedLater || !(error instanceof MultifdError)) throw error
    throw new CutShort(error, finder.tail.slice(FOOTER_SIZE))
  }
}

/** A stream whose end did not come, or is none. Whoever knows the devices may tell more of it than its error does. */
export class CutShort extends Error {
  readonly error: MultifdError
  readonly deviceState: Uint8Array

  constructor(error: MultifdError, deviceState: Uint8Array) {
    super(error.message)
    this.error = error
    this.deviceState = deviceState
  }
}

function result(tail: Uint8Array, vmdesc: Vmdesc | undefined): DeviceState {
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
