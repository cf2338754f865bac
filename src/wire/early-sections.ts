// The device sections that came before the pages, as they were on the wire, until it is time for them.

import { protocolError, viewOf } from './bytes.js'
import { RAM_IDSTR, RAM_SECTION_VERSION } from './ram.js'
import { type ByteReader, MemoryReader } from './reader.js'
import {
  decodeFooter,
  decodeSectionHeader,
  encodeSectionHeader,
  FOOTER_SIZE,
  SECTION,
  type SectionIntroduction,
  sectionHeaderSize,
} from './stream.js'
import { decodeVirtioMemEarly, readEarlySection, type VirtioMemEarly } from './virtio-mem.js'

/** Most bytes of early sections that are kept; a device with a million blocks has 128 KiB. */
const MAX_EARLY_SIZE = 64 * 1024 * 1024
const FIRST_CAPACITY = 4096

export class EarlySections {
  readonly #sections: { idstr: string; bytes: Uint8Array; afterRam: boolean }[] = []
  #size = 0

  /**
   * Reads and keeps a section whose head was read.
   *
   * @param afterRam whether the RAM set-up came before it
   * Throws as readEarlySection does, and ERR_MULTIFD_PROTOCOL when the sections together are too large.
   */
  read(reader: ByteReader, header: SectionIntroduction, afterRam: boolean): void {
    const bytes = readEarlySection(reader, header)
    this.#size += bytes.length
    if (this.#size > MAX_EARLY_SIZE) {
      throw protocolError(`sections before RAM have ${this.#size} bytes, expected at most ${MAX_EARLY_SIZE}`)
    }
    this.#sections.push({ idstr: header.idstr, bytes, afterRam })
  }

  /**
   * Reads and keeps sections of any kind, from one whose head was read, as far as the RAM's first section. Nothing tells
   * their length: they end with the footer that the head of that section follows.
   *
   * @returns the head of the RAM's section, which has been read
   * Throws ERR_MULTIFD_PROTOCOL when they are too large; what the reader throws.
   */
  readToRam(reader: ByteReader, header: SectionIntroduction): SectionIntroduction {
    const headSize = sectionHeaderSize(header.idstr)
    let bytes = new Uint8Array(headSize + FIRST_CAPACITY)
    encodeSectionHeader(viewOf(bytes), 0, SECTION.full, header)
    for (let length = headSize; ; ) {
      if (length === bytes.length) {
        if (length > MAX_EARLY_SIZE) {
          throw protocolError(`sections before RAM have ${length} bytes, expected at most ${MAX_EARLY_SIZE}`)
        }
        const grown = new Uint8Array(2 * length)
        grown.set(bytes)
        bytes = grown
      }
      const byte = reader.u8()
      bytes[length++] = byte
      if (byte !== RAM_SECTION_VERSION || !isRamMark(bytes, length - RAM_MARK_SIZE)) continue
      const end = length - RAM_HEAD_SIZE
      this.#sections.push({ idstr: header.idstr, bytes: bytes.slice(0, end), afterRam: false })
      return decodeSectionHeader(new MemoryReader(bytes.subarray(end, length))) as SectionIntroduction
    }
  }

  /** Names of their devices, in stream order. */
  get idstrs(): string[] {
    return this.#sections.map(({ idstr }) => idstr)
  }

  /** The sections from before the RAM set-up, or those from after it, one after the other. */
  bytes(afterRam: boolean): Uint8Array {
    const parts = this.#sections.filter((section) => section.afterRam === afterRam)
    const all = new Uint8Array(parts.reduce((size, { bytes }) => size + bytes.length, 0))
    let at = 0
    for (const { bytes } of parts) {
      all.set(bytes, at)
      at += bytes.length
    }
    return all
  }
}

export interface EarlySection extends SectionIntroduction {
  state: VirtioMemEarly
  /** Bytes of its payload. */
  size: number
}

/** The sections that {@link EarlySections.read} kept, taken apart. Throws as readEarlySection. */
export function decodeEarlySections(bytes: Uint8Array): EarlySection[] {
  const sections: EarlySection[] = []
  const reader = new MemoryReader(bytes)
  while (reader.remaining > 0) {
    const header = decodeSectionHeader(reader)
    if (header.type !== SECTION.full) throw protocolError(`section type ${header.type} before RAM`)
    const began = reader.position
    const state = decodeVirtioMemEarly(reader)
    sections.push({ ...header, state, size: reader.position - began })
    decodeFooter(reader, header.sectionId)
  }
  return sections
}

const RAM_HEAD_SIZE = sectionHeaderSize(RAM_IDSTR)
const RAM_MARK_SIZE = FOOTER_SIZE + RAM_HEAD_SIZE
const SECTION_ID_AT = 1
const RAM_HEAD = new Uint8Array(RAM_HEAD_SIZE)
encodeSectionHeader(viewOf(RAM_HEAD), 0, SECTION.start, {
  sectionId: 0,
  idstr: RAM_IDSTR,
  instanceId: 0,
  versionId: RAM_SECTION_VERSION,
})

/** Whether the head of the RAM's section, whatever its id, lies there behind a footer. */
function isRamMark(bytes: Uint8Array, at: number): boolean {
  if (at < 0 || bytes[at] !== SECTION.footer) return false
  const head = bytes.subarray(at + FOOTER_SIZE)
  return RAM_HEAD.every((byte, i) => (i >= SECTION_ID_AT && i < SECTION_ID_AT + 4) || head[i] === byte)
}
