// A snapshot on disk: QEMU's mapped-ram file, read without loading its pages.
//
//   stream header, configuration (capability mapped-ram), sections sent before RAM
//   RAM START    for each block: name, length, mapped-ram header, bitmap, pages at a fixed place; then EOS, footer
//   RAM PART, COMMAND SWITCHOVER_START, RAM END, each without pages
//   device sections, EOF, VMDESCRIPTION

import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { FileReader } from '../io/file-reader.js'
import { SharedBitmap } from '../shm/bitmap.js'
import { COMMAND, decodeCommand } from '../wire/command.js'
import { decodeEarlySections, type EarlySection, EarlySections } from '../wire/early-sections.js'
import type { MappedRamBlock } from '../wire/mapped-ram.js'
import {
  checkRamFlags,
  decodeRamSetup,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_SECTION_VERSION,
  type RamSetupBlock,
  type RamWord,
  splitRamWord,
} from '../wire/ram.js'
import {
  type Configuration,
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  encodeFooter,
  FOOTER_SIZE,
  SECTION,
} from '../wire/stream.js'
import { DEFAULT_TAIL_LIMIT, locateStreamEnd } from '../wire/stream-end.js'
import { VIRTIO_MEM_EARLY_SUFFIX, type VirtioMemEarly } from '../wire/virtio-mem.js'
import { type DeviceSection, type Vmdesc, walkDeviceSections } from '../wire/vmdesc.js'

/** The capability that a mapped-ram file names in its configuration. */
export const MAPPED_RAM = 'mapped-ram'

/** A block in the file; offsets and sizes in bytes. */
export interface SnapshotBlock extends MappedRamBlock {
  idstr: string
  size: number
  /** Pages that have data; the others are zero. */
  populated: SharedBitmap
  /** Of a program's sparse block: what of it has content. */
  plugged?: VirtioMemEarly
}

export interface Snapshot {
  path: string
  fileSize: number
  /** Bytes that the file takes on its disk. */
  allocated: number
  configuration: Configuration
  /** Bytes of a target page. */
  pageSize: number
  ramSectionId: number
  blocks: SnapshotBlock[]
  beforeRam: Uint8Array
  afterRam: Uint8Array
  switchoverStart: boolean
  deviceState: Uint8Array
  /** The device sections, by the description; undefined when the file has none. */
  sections: DeviceSection[] | undefined
  vmdesc: Vmdesc | undefined
}

/**
 * Reads everything of a snapshot but its pages.
 *
 * @param offset where in the file it begins, bytes: behind what somebody else keeps there
 * @throws MultifdError ERR_MULTIFD_FILE when it can not be read, ERR_MULTIFD_SNAPSHOT when it is no mapped-ram file or
 * a damaged one, ERR_MULTIFD_UNSUPPORTED for a capability that is not supported
 */
export function readSnapshot(path: string, offset = 0): Snapshot {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown error'
    throw new MultifdError('ERR_MULTIFD_FILE', `${path}: ${code}`, { errnoName: code, cause })
  }
  try {
    return new SnapshotParser(path, fd, offset).parse()
  } catch (error) {
    if (!(error instanceof MultifdError)) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error)
      throw new MultifdError('ERR_MULTIFD_FILE', `${path}: ${code}`, { errnoName: code, cause: error })
    }
    if (error.code === 'ERR_MULTIFD_UNSUPPORTED') throw error
    throw new MultifdError('ERR_MULTIFD_SNAPSHOT', `${path} is not a whole snapshot: ${error.message}`, {
      cause: error,
    })
  } finally {
    closeSync(fd)
  }
}

class SnapshotParser {
  readonly #path: string
  readonly #fd: number
  readonly #reader: FileReader
  readonly #early = new EarlySections()
  #setup: RamSetupBlock[] | undefined
  #ramSectionId = -1
  #switchoverStart = false
  #pageSize = 4096

  constructor(path: string, fd: number, offset: number) {
    this.#path = path
    this.#fd = fd
    this.#reader = new FileReader(fd, offset)
  }

  parse(): Snapshot {
    const { size: fileSize, blocks: sectors } = fstatSync(this.#fd)
    const reader = this.#reader
    decodeStreamHeader(reader)
    const configuration = decodeConfiguration(reader)
    this.#checkCapabilities(configuration)
    if (configuration.pageBits !== undefined) this.#pageSize = 2 ** configuration.pageBits
    while (!this.#section(fileSize)) {
      // Until the RAM's last section was read.
    }
    const deviceState = reader.rest(DEFAULT_TAIL_LIMIT)
    const { vmdesc, sections } = this.#describe(deviceState)
    const beforeRam = this.#early.bytes(false)
    const maps = decodeEarlySections(beforeRam)
    return {
      path: this.#path,
      fileSize,
      allocated: sectors * 512,
      configuration,
      pageSize: this.#pageSize,
      ramSectionId: this.#ramSectionId,
      blocks: this.#setup!.map((block) => this.#block(block, maps)),
      beforeRam,
      afterRam: this.#early.bytes(true),
      switchoverStart: this.#switchoverStart,
      deviceState,
      vmdesc,
      sections,
    }
  }

  #checkCapabilities({ capabilities = [] }: Configuration): void {
    if (!capabilities.includes(MAPPED_RAM)) {
      throw new MultifdError('ERR_MULTIFD_SNAPSHOT', 'it is a migration stream, and not a mapped-ram file')
    }
    const other = capabilities.find((name) => name !== MAPPED_RAM)
    if (other !== undefined) {
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `${this.#path}: capability '${other}' is not supported`)
    }
  }

  // Reads one thing; true after the RAM's last section.
  #section(fileSize: number): boolean {
    const reader = this.#reader
    if (reader.peekU8() === SECTION.command) {
      const { command, name } = decodeCommand(reader)
      if (command !== COMMAND.switchoverStart)
        throw new MultifdError('ERR_MULTIFD_SNAPSHOT', `command ${name} in a file`)
      this.#switchoverStart = true
      return false
    }
    const header = decodeSectionHeader(reader)
    if (header.type === SECTION.full) {
      this.#early.read(reader, header, this.#setup !== undefined)
      return false
    }
    if (header.type === SECTION.start) {
      if (header.idstr !== RAM_IDSTR || header.versionId !== RAM_SECTION_VERSION) {
        throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `${this.#path}: section '${header.idstr}' is not supported`)
      }
      this.#ramSectionId = header.sectionId
    } else if (header.sectionId !== this.#ramSectionId) {
      throw new MultifdError('ERR_MULTIFD_SNAPSHOT', `section ${header.sectionId} goes on without having begun`)
    }
    this.#records(fileSize)
    decodeFooter(reader, header.sectionId)
    return header.type === SECTION.end
  }

  #records(fileSize: number): void {
    const word: RamWord = { offset: 0, flags: 0 }
    for (;;) {
      splitRamWord(this.#reader.u64(), this.#pageSize, word)
      const kind = checkRamFlags(word.flags)
      if (kind === RAM_FLAG.eos) break
      if (kind !== RAM_FLAG.memSize || this.#setup) {
        throw new MultifdError(
          'ERR_MULTIFD_SNAPSHOT',
          `a RAM record with flags 0x${kind.toString(16)} in a mapped-ram file`,
        )
      }
      const options = { ignoreShared: false, mappedRam: true, pageSize: this.#pageSize }
      this.#setup = decodeRamSetup(this.#reader, word.offset, options)
      const last = this.#setup.at(-1)?.mappedRam
      if (!last || last.end > fileSize) {
        throw new MultifdError('ERR_MULTIFD_SNAPSHOT', `it has ${fileSize} bytes, its RAM alone ends at ${last?.end}`)
      }
    }
    if (!this.#setup) throw new MultifdError('ERR_MULTIFD_SNAPSHOT', 'it has no list of RAM blocks')
  }

  #describe(deviceState: Uint8Array): Pick<Snapshot, 'vmdesc' | 'sections'> {
    // The end is recognised by a footer before it.
    const tail = new Uint8Array(FOOTER_SIZE + deviceState.length)
    tail.set(deviceState, encodeFooter(new DataView(tail.buffer), 0, this.#ramSectionId))
    const { vmdesc, eofAt } = locateStreamEnd(tail)
    return { vmdesc, sections: vmdesc && walkDeviceSections(tail.subarray(FOOTER_SIZE, eofAt + 1), vmdesc) }
  }

  #block({ idstr, usedLength, mappedRam }: RamSetupBlock, maps: EarlySection[]): SnapshotBlock {
    const place = mappedRam!
    const populated = new SharedBitmap(usedLength / this.#pageSize)
    const bytes = new Uint8Array(populated.buffer)
    const got = readSync(this.#fd, bytes, 0, bytes.length, place.bitmapOffset)
    if (got !== bytes.length)
      throw new MultifdError('ERR_MULTIFD_SNAPSHOT', `the bitmap of block '${idstr}' is cut off`)
    const plugged = this.#pluggedOf(idstr, usedLength, maps)
    return { idstr, size: usedLength, populated, ...place, ...(plugged && { plugged }) }
  }

  // A program's sparse block and the section of its map have one name.
  #pluggedOf(block: string, size: number, maps: EarlySection[]): VirtioMemEarly | undefined {
    const name = block + VIRTIO_MEM_EARLY_SUFFIX
    const section = maps.find(({ idstr }) => idstr === name)
    if (!section) return undefined
    const { addr, regionSize, blockSize } = section.state
    if (regionSize !== size || addr % blockSize !== 0 || blockSize % this.#pageSize !== 0) {
      const message =
        `block '${block}' has ${size} bytes at ${addr} in pages of ${this.#pageSize}, and its map ${regionSize} bytes in ` +
        `granules of ${blockSize}`
      throw new MultifdError('ERR_MULTIFD_SNAPSHOT', message)
    }
    return section.state
  }
}
