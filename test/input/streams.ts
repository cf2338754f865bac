// Recorded streams taken apart: where each packet, section and record begins, so that it can be cut and replayed alone.

import { viewOf } from '../../src/wire/bytes.js'
import { COMMAND, decodeCommand } from '../../src/wire/command.js'
import { INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { METHOD_MASK, MULTIFD_FLAG, packetHeaderSize } from '../../src/wire/multifd-packet.js'
import {
  decodeBlockName,
  decodeRamSetup,
  encodeRamRecord,
  encodeRamWord,
  RAM_FLAG,
  splitRamWord,
} from '../../src/wire/ram.js'
import { MemoryReader } from '../../src/wire/reader.js'
import {
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  encodeFooter,
  encodeSectionPart,
  SECTION,
} from '../../src/wire/stream.js'
import { locateStreamEnd } from '../../src/wire/stream-end.js'
import { decodeVirtioMemEarly } from '../../src/wire/virtio-mem.js'
import type { Capture } from '../support/captures.js'
import { decodePacketHeader, WholeHeader } from '../support/packet-codec.js'
import { type BlockShape, PAGE } from './arena.js'
import { concatBytes } from './bytes.js'

const PAGES = 128
export const HEADER_SIZE = packetHeaderSize(PAGES)

/** One packet of a channel; offsets in the channel's bytes. */
export interface PacketSpan {
  at: number
  end: number
  pages: number
  sync: boolean
  /** Bits of the compression method. */
  method: number
}

/** A channel from after its initial packet on, and its packets. */
export interface ChannelStream {
  name: string
  bytes: Uint8Array
  packets: PacketSpan[]
}

/** Takes a recorded channel apart. */
export function splitChannel(name: string, channel: Uint8Array): ChannelStream {
  return splitPackets(name, channel.subarray(INITIAL_PACKET_SIZE))
}

/** Takes packets apart that no initial packet precedes. */
export function splitPackets(name: string, bytes: Uint8Array): ChannelStream {
  const view = viewOf(bytes)
  const header = new WholeHeader(PAGES)
  const packets: PacketSpan[] = []
  for (let at = 0; at < bytes.length; at = packets.at(-1)!.end) {
    decodePacketHeader(view, at, PAGES, header)
    const pages = header.normalPages + header.zeroPages
    const sync = (header.flags & MULTIFD_FLAG.sync) !== 0
    packets.push({ at, end: at + HEADER_SIZE + header.nextPacketSize, pages, sync, method: header.flags & METHOD_MASK })
  }
  return { name, bytes, packets }
}

/** A piece of a main stream that is read as one thing. */
export interface Unit {
  kind: 'header' | 'command' | 'section' | 'setup' | 'record' | 'eos' | 'footer' | 'early'
  at: number
  /** Where its data begins, if it is a record with a page's, in whatever form. */
  data: number | undefined
  end: number
  /** Type of the section that it lies in, if it does. */
  section: number | undefined
  /** Name of the block that CONTINUE means here. */
  block: string | undefined
  /** The page that it changes, which must have come before. */
  changes: { block: string; offset: number } | undefined
}

/** A main stream up to the end of RAM, or to the first thing that is not RAM's. */
export interface MainStream {
  name: string
  machineType: string
  bytes: Uint8Array
  /** Multifd channels that belong to it. */
  channels: number
  /** Whether the source had the capability x-ignore-shared. */
  ignoreShared: boolean
  blocks: BlockShape[]
  units: Unit[]
  ramSectionId: number
  /** After the footer of RAM START. */
  setupEnd: number
  /** After the last unit. */
  ramEnd: number
  /** Of what follows RAM; undefined where device state is not all that follows. */
  eofAt: number | undefined
}

/** Takes a main stream apart. The commands that want an answer are left out: a file can not take it. */
export function splitMain(capture: Capture): MainStream {
  const whole = walkMain(capture, capture.main)
  const asking = whole.units.filter(({ kind, at }) => kind === 'command' && asksBack(whole.bytes[at + 2]!))
  if (asking.length === 0) return whole
  const parts: Uint8Array[] = []
  let from = 0
  for (const { at, end } of asking) {
    parts.push(whole.bytes.subarray(from, at))
    from = end
  }
  parts.push(whole.bytes.subarray(from))
  return walkMain(capture, concatBytes(...parts))
}

function asksBack(command: number): boolean {
  return command === COMMAND.openReturnPath || command === COMMAND.ping
}

function walkMain({ meta, channels }: Capture, bytes: Uint8Array): MainStream {
  const reader = new MemoryReader(bytes)
  const units: Unit[] = []
  const stream: MainStream = {
    name: meta.name,
    machineType: meta.machine_type,
    bytes,
    channels: channels.length,
    ignoreShared: meta.capabilities.includes('x-ignore-shared'),
    blocks: [],
    units,
    ramSectionId: -1,
    setupEnd: 0,
    ramEnd: 0,
    eofAt: undefined,
  }
  let block: string | undefined
  let section: number | undefined
  let data: number | undefined
  let changes: Unit['changes']
  const unit = (kind: Unit['kind'], read: () => void): void => {
    const at = reader.position
    const before = block
    data = undefined
    changes = undefined
    read()
    units.push({ kind, at, data, end: reader.position, section, block: before, changes })
  }
  unit('header', () => decodeStreamHeader(reader))
  unit('header', () => {
    stream.machineType = decodeConfiguration(reader).machineType
  })
  const record = (): boolean => {
    const word = { offset: 0, flags: 0 }
    splitRamWord(viewRest(bytes, reader.position).u64(), PAGE, word)
    const kind = word.flags & ~RAM_FLAG.continue
    if (kind === RAM_FLAG.memSize) {
      unit('setup', () => {
        reader.u64()
        const { ignoreShared } = stream
        const list = decodeRamSetup(reader, word.offset, { ignoreShared, mappedRam: false })
        stream.blocks = list.map(({ idstr, usedLength }) => ({ idstr, size: usedLength }))
      })
    } else {
      unit(kind === RAM_FLAG.eos ? 'eos' : 'record', () => {
        reader.u64()
        if (kind === RAM_FLAG.eos || kind === RAM_FLAG.flush) return
        if ((word.flags & RAM_FLAG.continue) === 0) block = decodeBlockName(reader)
        const length = dataLength(reader, kind)
        if (length > 0) data = reader.position
        if (kind === RAM_FLAG.xbzrle) changes = { block: block!, offset: word.offset }
        reader.skip(length)
      })
    }
    return kind !== RAM_FLAG.eos
  }
  for (let ended = false; !ended; ) {
    const next = reader.peekU8()
    if (next === SECTION.command) {
      let packaged = false
      unit('command', () => {
        packaged = decodeCommand(reader).command === COMMAND.packaged
      })
      if (packaged) break
      continue
    }
    if (next !== SECTION.start && next !== SECTION.part && next !== SECTION.end && next !== SECTION.full) break
    let id = -1
    let type: number = SECTION.full
    unit('section', () => {
      const header = decodeSectionHeader(reader)
      id = header.sectionId
      type = header.type
    })
    const early = type === SECTION.full
    ended = type === SECTION.end
    section = type
    if (early) unit('early', () => decodeVirtioMemEarly(reader))
    else {
      stream.ramSectionId = id
      while (record()) {
        // Up to EOS.
      }
    }
    unit('footer', () => decodeFooter(reader, id))
    section = undefined
    if (stream.setupEnd === 0 && !early) stream.setupEnd = reader.position
    if (ended) {
      const tail = bytes.subarray(reader.position)
      // A stream with postcopy in it may have none.
      if (tail[0] === SECTION.full) stream.eofAt = reader.position + locateStreamEnd(tail).eofAt
    }
  }
  stream.ramEnd = reader.position
  return stream
}

// Reads a page record after its block id, up to its data.
function dataLength(reader: MemoryReader, kind: number): number {
  switch (kind) {
    case RAM_FLAG.page:
      return PAGE
    case RAM_FLAG.zero:
      reader.u8()
      return 0
    case RAM_FLAG.xbzrle:
      reader.u8()
      return reader.u16()
    case RAM_FLAG.compressPage:
      return reader.u32()
    default:
      throw new Error(`a RAM record of kind ${kind}`)
  }
}

function viewRest(bytes: Uint8Array, at: number): MemoryReader {
  return new MemoryReader(bytes.subarray(at))
}

/** What has to come before units that follow each other, besides the set-up, for them to be read as in their stream. */
export function contextOf({ ramSectionId }: MainStream, units: readonly Unit[]): Uint8Array {
  const { kind, section, block } = units[0]!
  const pages = units.flatMap(({ changes }) => changes ?? [])
  if (block !== undefined) pages.push({ block, offset: 0 })
  if (section === undefined && pages.length === 0) return new Uint8Array(0)
  const bytes = new Uint8Array(64 + pages.length * 300)
  const view = viewOf(bytes)
  const type = section === SECTION.end ? SECTION.end : SECTION.part
  let at = encodeSectionPart(view, 0, type, ramSectionId)
  for (const page of pages) {
    at = encodeRamRecord(view, at, page.offset, RAM_FLAG.zero, page.block)
    view.setUint8(at++, 0)
  }
  // Outside a section only the block is remembered.
  if (section === undefined || kind === 'footer') at = encodeRamWord(view, at, 0, RAM_FLAG.eos)
  if (section === undefined) at = encodeFooter(view, at, ramSectionId)
  return bytes.subarray(0, at)
}

/** Lengths at which a main stream's end lies between two things, before the end of RAM. */
export function restsOf({ bytes, units, ramEnd, eofAt }: MainStream): Set<number> {
  const rests = new Set(
    units.filter(({ kind, section }) => section === undefined && kind !== 'header').map(({ at }) => at),
  )
  if (eofAt === undefined) rests.add(ramEnd)
  // The configuration has no end mark: it may end after its name and after each subsection.
  const { at, end } = units[1]!
  for (let length = at; length < end; length++) if (isConfiguration(bytes.subarray(at, length))) rests.add(length)
  return rests
}

function isConfiguration(bytes: Uint8Array): boolean {
  try {
    decodeConfiguration(new MemoryReader(bytes))
    return true
  } catch {
    return false
  }
}
