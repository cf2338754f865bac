// The bytes of a migration, piece by piece: what a source made by hand sends, right or wrong.

import { parseUuid } from '../../../src/wire/bytes.js'
import { COMMAND, type CommandNumber, encodeCommand } from '../../../src/wire/command.js'
import { encodeInitialPacket, INITIAL_PACKET_SIZE } from '../../../src/wire/multifd-initial.js'
import { encodeIdstr, encodeSyncPacket, packetHeaderSize } from '../../../src/wire/multifd-packet.js'
import {
  encodeRamRecord,
  encodeRamSetup,
  encodeRamWord,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_SECTION_VERSION,
} from '../../../src/wire/ram.js'
import {
  type ConfigurationSubsections,
  encodeConfiguration,
  encodeEof,
  encodeFooter,
  encodeSectionHeader,
  encodeSectionPart,
  encodeStreamHeader,
  encodeVmdescHeader,
  SECTION,
} from '../../../src/wire/stream.js'
import { encodePacketHeader, WholeHeader } from '../packet-codec.js'

export const PAGE = 4096
/** Pages of a packet, and bytes of its header. */
export const PER_PACKET = 128
export const HEADER_SIZE = packetHeaderSize(PER_PACKET)
export const RAM_SECTION_ID = 2

/** A block as the set-up list has it. */
export interface ListedBlock {
  idstr: string
  /** Bytes. */
  size: number
}

/** Where the barrier's mark stands on the main channel. */
export type Dialect = 'per-round' | 'per-section'

const ROOM = 64 * 1024

/** What encoders wrote, one after the other. */
export function written(...encoders: ((view: DataView, at: number) => number)[]): Buffer {
  const bytes = Buffer.alloc(ROOM)
  const view = new DataView(bytes.buffer, bytes.byteOffset, ROOM)
  let at = 0
  for (const encode of encoders) at = encode(view, at)
  return bytes.subarray(0, at)
}

export function initialPacket(id: number, uuid?: string): Buffer {
  return written((view, at) => {
    encodeInitialPacket(view, at, { uuid: uuid === undefined ? undefined : parseUuid(uuid), id })
    return at + INITIAL_PACKET_SIZE
  })
}

/** Magic, version and configuration. */
export function streamHead(machineType: string, subsections: ConfigurationSubsections = {}): Buffer {
  return written(encodeStreamHeader, (view, at) => encodeConfiguration(view, at, { machineType, subsections }))
}

export function command(number: CommandNumber, payload?: Uint8Array): Buffer {
  return written((view, at) => encodeCommand(view, at, number, payload))
}

export function openReturnPath(): Buffer {
  return command(COMMAND.openReturnPath)
}

/** The flush word; what ends a pass in the per-round dialect. */
export function flushWord(): Buffer {
  return written((view, at) => encodeRamWord(view, at, 0, RAM_FLAG.flush))
}

export function eosWord(): Buffer {
  return written((view, at) => encodeRamWord(view, at, 0, RAM_FLAG.eos))
}

function footer(): Buffer {
  return written((view, at) => encodeFooter(view, at, RAM_SECTION_ID))
}

/** The head of a RAM section that introduces itself. */
export function ramIntroduction(idstr = RAM_IDSTR, versionId = RAM_SECTION_VERSION): Buffer {
  const introduction = { sectionId: RAM_SECTION_ID, idstr, instanceId: 0, versionId }
  return written((view, at) => encodeSectionHeader(view, at, SECTION.start, introduction))
}

export function ramList(blocks: readonly ListedBlock[]): Buffer {
  const entries = blocks.map(({ idstr, size }) => ({ idstr, usedLength: size }))
  return written((view, at) => encodeRamSetup(view, at, entries))
}

/** The RAM's first section: the list of blocks, and the first mark. */
export function ramStart(blocks: readonly ListedBlock[], dialect: Dialect): Buffer {
  return Buffer.concat([ramIntroduction(), ramList(blocks), ...ending(dialect)])
}

/** A section of records, with a mark at its end. */
export function ramSection(type: 'part' | 'end', records: Uint8Array[], dialect: Dialect): Buffer {
  const head = written((view, at) => encodeSectionPart(view, at, SECTION[type], RAM_SECTION_ID))
  return Buffer.concat([head, ...records, ...ending(dialect)])
}

function ending(dialect: Dialect): Buffer[] {
  return dialect === 'per-round' ? [flushWord(), eosWord(), footer()] : [eosWord(), footer()]
}

/** A section of the per-round dialect with no mark in it. */
export function ramSectionWithoutMark(type: 'part' | 'end', records: Uint8Array[] = []): Buffer {
  return ramSection(type, records, 'per-section')
}

export function pageRecord(idstr: string, offset: number, data: Uint8Array): Buffer {
  return Buffer.concat([written((view, at) => encodeRamRecord(view, at, offset, RAM_FLAG.page, idstr)), data])
}

export function zeroRecord(idstr: string, offset: number, fill = 0): Buffer {
  const head = written((view, at) => encodeRamRecord(view, at, offset, RAM_FLAG.zero, idstr))
  return Buffer.concat([head, Buffer.of(fill)])
}

/** The end mark, and a description without devices. */
export function streamEnd(): Buffer {
  const json = Buffer.from(JSON.stringify({ page_size: PAGE, devices: [] }))
  return Buffer.concat([written(encodeEof, (view, at) => encodeVmdescHeader(view, at, json.length)), json])
}

export interface PacketContent {
  idstr: string
  /** Pages with data: offset, and a page of bytes. */
  pages?: readonly (readonly [offset: number, data: Uint8Array])[]
  /** Offsets of pages to clear. */
  zeros?: readonly number[]
  flags?: number
  packetNum?: number
  /** Changes the header's bytes after all. */
  spoil?: (header: DataView) => void
}

/** A packet of a multifd channel: header and payload. */
export function packet({ idstr, pages = [], zeros = [], flags = 0, packetNum = 0, spoil }: PacketContent): Buffer {
  const header = new WholeHeader(PER_PACKET)
  header.flags = flags
  header.packetNum = packetNum
  header.normalPages = pages.length
  header.zeroPages = zeros.length
  header.nextPacketSize = pages.length * PAGE
  for (const [at, offset] of [...pages.map(([offset]) => offset), ...zeros].entries()) header.offsets[at] = offset
  const bytes = Buffer.alloc(HEADER_SIZE)
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_SIZE)
  encodePacketHeader(view, 0, header, encodeIdstr(idstr))
  spoil?.(view)
  return Buffer.concat([bytes, ...pages.map(([, data]) => data)])
}

export function syncPacket(packetNum = 0): Buffer {
  return written((view, at) => {
    encodeSyncPacket(view, at, PER_PACKET, packetNum)
    return at + HEADER_SIZE
  })
}

/** A page full of one byte. */
export function pageOf(byte: number): Buffer {
  return Buffer.alloc(PAGE, byte)
}
