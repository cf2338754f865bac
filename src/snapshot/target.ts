// Receiving into a snapshot: each page at its place in the file, zero pages without room, and the name last.

import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { MultifdError } from '../errors.js'
import type { LoadedState, LoadSetup, LoadTarget } from '../migration/load-target.js'
import { noteClosed, noteOpened } from '../os/descriptors.js'
import { lockFile, punchHole, renameFile, syncFile, withFile } from '../os/file.js'
import { HOST_PAGE_SIZE } from '../os/memory.js'
import { FileLoadBlock } from '../ram/file-load-block.js'
import { COMMAND, encodeCommand } from '../wire/command.js'
import {
  encodeMappedRamHeader,
  layoutMappedRam,
  MAPPED_RAM_HEADER_SIZE,
  type MappedRamLayout,
} from '../wire/mapped-ram.js'
import {
  encodeRamSetupEntry,
  encodeRamWord,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_SECTION_VERSION,
  ramSetupEntrySize,
} from '../wire/ram.js'
import {
  configurationSize,
  encodeConfiguration,
  encodeFooter,
  encodeSectionHeader,
  encodeSectionPart,
  encodeStreamHeader,
  IGNORE_SHARED,
  SECTION,
} from '../wire/stream.js'
import { MAPPED_RAM } from './file.js'
import { sidecarPath, writeSidecar } from './sidecar.js'

const SMALL = 4096
const COPY_SIZE = 1024 * 1024
// A guest's memory is nobody else's to read.
const FILE_MODE = 0o600

/** The name of a snapshot that is not whole yet. */
export function partialPath(path: string): string {
  return `${path}.partial`
}

/** For whoever finds that the thread which wrote a snapshot is no more. */
export function removePartial(path: string): void {
  for (const partial of [partialPath(path), partialPath(sidecarPath(path))]) rmSync(partial, { force: true })
}

/**
 * Whether a snapshot can be received into a path; found out before a guest comes.
 *
 * @returns what is there already
 * @throws MultifdError ERR_MULTIFD_FILE
 */
export function checkPlace(path: string): Stats | undefined {
  withFile(partialPath(path), () => accessSync(`${dirname(path)}/`, constants.W_OK | constants.X_OK))
  const there = withFile(path, () => statSync(path, { throwIfNoEntry: false }))
  if (there?.isFile() !== false) return there
  throw new MultifdError('ERR_MULTIFD_FILE', `${path}: it is there already, and no regular file`)
}

/** The same, by making the file and removing it. @throws MultifdError ERR_MULTIFD_FILE */
export function tryPlace(path: string): void {
  checkPlace(path)
  const partial = partialPath(path)
  const fd = openPartial(partial)
  try {
    withFile(partial, () => rmSync(partial))
  } finally {
    closeSync(fd)
  }
}

export class SnapshotTarget implements LoadTarget {
  readonly keepsDeviceState = true
  readonly #path: string
  readonly #partial: string
  readonly #machineType: string | undefined
  #fd: number | undefined
  /** Whether the file has its own name: nothing is undone after that. */
  #named = false
  #setup: LoadSetup | undefined
  #end = 0
  readonly #blocks: { load: FileLoadBlock; place: MappedRamLayout }[] = []

  /**
   * @param machineType refuses another one, when given
   * @param offset where the snapshot begins; what an existing file has before it is taken over
   * @throws MultifdError ERR_MULTIFD_FILE when the file can not be made
   */
  constructor(path: string, machineType: string | undefined, offset = 0) {
    this.#path = path
    this.#partial = partialPath(path)
    this.#machineType = machineType
    const there = checkPlace(path)
    this.#fd = noteOpened(openPartial(this.#partial))
    if (there) this.#takeOver(offset)
    this.#end = offset
  }

  #takeOver(length: number): void {
    const fd = this.#do(() => openSync(this.#path, 'r'), this.#path)
    try {
      const chunk = new Uint8Array(Math.min(length, COPY_SIZE))
      for (let at = 0; at < length; ) {
        const got = this.#do(() => readSync(fd, chunk, 0, Math.min(chunk.length, length - at), at), this.#path)
        if (got === 0) break
        this.#writeAt(chunk.subarray(0, got), at)
        at += got
      }
    } finally {
      closeSync(fd)
    }
  }

  setUp(setup: LoadSetup): FileLoadBlock[] {
    const { configuration, blocks, pageSize, ramSectionId, beforeRam } = setup
    if (this.#machineType !== undefined && configuration.machineType !== this.#machineType) {
      const message = `machine type '${configuration.machineType}' is not the expected '${this.#machineType}'`
      throw new MultifdError('ERR_MULTIFD_MACHINE', message)
    }
    if (configuration.capabilities?.includes(IGNORE_SHARED)) {
      const message = 'shared memory that stays where it is can not be kept in a file: receive into memory'
      throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message)
    }
    this.#setup = setup
    const { machineType, capabilities: _, ...others } = configuration
    const source = { machineType, subsections: { ...others, capabilities: [MAPPED_RAM] } }
    this.#append(8 + configurationSize(source), (view) =>
      encodeConfiguration(view, encodeStreamHeader(view, 0), source),
    )
    this.#appendBytes(beforeRam)
    this.#append(SMALL, (view) => {
      const introduction = { sectionId: ramSectionId, idstr: RAM_IDSTR, instanceId: 0, versionId: RAM_SECTION_VERSION }
      const at = encodeSectionHeader(view, 0, SECTION.start, introduction)
      const total = blocks.reduce((sum, { usedLength }) => sum + usedLength, 0)
      return encodeRamWord(view, at, total, RAM_FLAG.memSize)
    })
    for (const { idstr, usedLength } of blocks) {
      const entry = { idstr, usedLength }
      const place = layoutMappedRam(this.#end + ramSetupEntrySize(entry), usedLength, pageSize)
      this.#append(ramSetupEntrySize(entry) + MAPPED_RAM_HEADER_SIZE, (view) =>
        encodeMappedRamHeader(view, encodeRamSetupEntry(view, 0, entry), { ...place, pageSize }),
      )
      this.#end = place.end
      this.#do(() => ftruncateSync(this.#fd!, place.end))
      this.#blocks.push({ load: this.#place(idstr, usedLength, place.pagesOffset, pageSize), place })
    }
    return this.#blocks.map(({ load }) => load)
  }

  #place(idstr: string, size: number, offset: number, pageSize: number): FileLoadBlock {
    if (size % HOST_PAGE_SIZE !== 0) {
      const message = `block '${idstr}' has ${size} bytes, which are no whole pages of this machine's ${HOST_PAGE_SIZE}`
      throw new MultifdError('ERR_MULTIFD_BLOCK', message)
    }
    try {
      return FileLoadBlock.of({ idstr, size, pageSize, fd: this.#fd!, offset, path: this.#partial })
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause
      const message = `block '${idstr}' has ${size} bytes: there is no memory for the bitmaps of its pages`
      throw new MultifdError('ERR_MULTIFD_BLOCK', message, { cause })
    }
  }

  complete({ afterRam, switchoverStart, deviceState }: LoadedState): void {
    const { ramSectionId, uuid } = this.#setup!
    for (const { load, place } of this.#blocks) {
      this.#writeAt(load.populated.toBytes(), place.bitmapOffset)
      this.#giveBack(load, place)
    }
    this.#append(SMALL, (view) => encodeFooter(view, encodeRamWord(view, 0, 0, RAM_FLAG.eos), ramSectionId))
    this.#appendBytes(afterRam)
    this.#append(SMALL, (view) => {
      let at = switchoverStart ? encodeCommand(view, 0, COMMAND.switchoverStart) : 0
      at = encodeSectionPart(view, at, SECTION.end, ramSectionId)
      return encodeFooter(view, encodeRamWord(view, at, 0, RAM_FLAG.eos), ramSectionId)
    })
    this.#appendBytes(deviceState)
    // The source gives its guest up on our word: by then the disk has it.
    syncFile(this.#fd!, this.#partial)
    this.#takeName(uuid)
  }

  close(): void {
    try {
      // While they are still ours: the next one that receives into this path has files of the same names.
      if (!this.#named) this.#do(() => removePartial(this.#path), this.#path)
    } finally {
      if (this.#fd !== undefined) {
        noteClosed(this.#fd)
        closeSync(this.#fd)
      }
      this.#fd = undefined
    }
  }

  // What is beside the file belongs to it and not to an older one of that name, whenever this is cut short.
  #takeName(uuid: string | undefined): void {
    const sidecar = sidecarPath(this.#path)
    const newSidecar = partialPath(sidecar)
    if (uuid !== undefined) this.#do(() => writeSidecar(newSidecar, { uuid }), newSidecar)
    this.#do(() => rmSync(sidecar, { force: true }), sidecar)
    renameFile(this.#partial, this.#path)
    this.#named = true
    if (uuid !== undefined) renameFile(newSidecar, sidecar)
    this.#do(() => syncFolder(dirname(this.#path)), dirname(this.#path))
  }

  // Pages that had data once and are zero now.
  #giveBack({ pageSize, pages, populated, stale }: FileLoadBlock, { pagesOffset }: MappedRamLayout): void {
    let page = stale.next(0, true)
    while (page < pages) {
      let end = page
      while (end < pages && stale.has(end) && !populated.has(end)) end++
      if (end > page) punchHole(this.#fd!, pagesOffset + page * pageSize, (end - page) * pageSize)
      page = stale.next(Math.max(end, page + 1), true)
    }
  }

  #append(room: number, encode: (view: DataView) => number): void {
    const bytes = new Uint8Array(room)
    this.#appendBytes(bytes.subarray(0, encode(new DataView(bytes.buffer))))
  }

  #appendBytes(bytes: Uint8Array): void {
    this.#writeAt(bytes, this.#end)
    this.#end += bytes.length
  }

  #writeAt(bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length; ) {
      done += this.#do(() => writeSync(this.#fd!, bytes, done, bytes.length - done, position + done))
    }
  }

  #do<T>(action: () => T, path = this.#partial): T {
    return withFile(path, action)
  }
}

// Another one that writes a file of this name would go on writing into it when it has its own name.
function openPartial(path: string): number {
  for (;;) {
    const fd = withFile(path, () => openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE))
    let kept = false
    try {
      lockFile(fd, path)
      // Until it was locked it may have got its name, or have been removed.
      if (withFile(path, () => statSync(path, { throwIfNoEntry: false })?.ino !== fstatSync(fd).ino)) continue
      withFile(path, () => ftruncateSync(fd, 0))
      kept = true
      return fd
    } finally {
      if (!kept) closeSync(fd)
    }
  }
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r')
  try {
    syncFile(fd, path)
  } finally {
    closeSync(fd)
  }
}
