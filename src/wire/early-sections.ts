// The device sections that came before the pages, as they were on the wire, until it is time for them.

import { protocolError } from './bytes.js'
import type { ByteReader } from './reader.js'
import type { SectionIntroduction } from './stream.js'
import { readEarlySection } from './virtio-mem.js'

/** Most bytes of early sections that are kept; a device with a million blocks has 128 KiB. */
const MAX_EARLY_SIZE = 64 * 1024 * 1024

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
