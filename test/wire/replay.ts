// A receiver as simple as can be: parses a recorded stream with the codecs, and rebuilds RAM from it.

import { constants, inflateSync } from 'node:zlib'
import { truncatedError, viewOf } from '../../src/wire/bytes.js'
import { COMMAND, type Command, decodeCommand, decodePackaged } from '../../src/wire/command.js'
import { dialectOf } from '../../src/wire/machine.js'
import { decodeInitialPacket, INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import {
  decodeIdstr,
  IDSTR_OFFSET,
  METHOD_MASK,
  MULTIFD_FLAG,
  packetHeaderSize,
  pagesPerPacket,
} from '../../src/wire/multifd-packet.js'
import {
  checkRamFlags,
  decodeBlockName,
  decodeRamSetup,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_SECTION_VERSION,
  type RamSetupBlock,
  splitRamWord,
} from '../../src/wire/ram.js'
import { MemoryReader } from '../../src/wire/reader.js'
import {
  type Configuration,
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  SECTION,
} from '../../src/wire/stream.js'
import { locateStreamEnd, type StreamEnd } from '../../src/wire/stream-end.js'
import { decodeVirtioMemEarly, VIRTIO_MEM_EARLY_SUFFIX, type VirtioMemEarly } from '../../src/wire/virtio-mem.js'
import type { Capture, PacketCounts } from '../support/captures.js'
import { decodePacketHeader, WholeHeader } from '../support/packet-codec.js'

const PAGE = 4096
const { zero, memSize, page, eos, xbzrle, flush, compressPage } = RAM_FLAG

/** One packet of a channel: where its pages go. */
interface Packet {
  idstr: string
  normal: number[]
  zero: number[]
}

/** A recorded channel, taken apart. */
export interface ReplayedChannel {
  id: number
  uuid: string
  counts: PacketCounts
  /** Packets up to each SYNC; the last list has those that came after the last. */
  epochs: Packet[][]
  /** The pages' data in order: undefined where compressed with zstd. */
  data: Uint8Array | undefined
  /** The bits of METHOD_MASK of all packets with pages. */
  methods: Set<number>
}

/** Parses a channel to its last byte. */
export function replayChannel(bytes: Uint8Array): ReplayedChannel {
  const view = viewOf(bytes)
  const n = pagesPerPacket(PAGE)
  const { id, uuid } = decodeInitialPacket(view, 0)
  const counts: PacketCounts = { pk: 0, normal: 0, zero: 0, sync: 0 }
  const epochs: Packet[][] = [[]]
  const methods = new Set<number>()
  const payloads: Uint8Array[] = []
  const header = new WholeHeader(n)
  for (let at = INITIAL_PACKET_SIZE; at < bytes.length; ) {
    decodePacketHeader(view, at, n, header)
    const { flags, normalPages, zeroPages, nextPacketSize, offsets } = header
    counts.pk++
    counts.normal += normalPages
    counts.zero += zeroPages
    if (normalPages + zeroPages > 0) {
      methods.add(flags & METHOD_MASK)
      epochs.at(-1)?.push({
        idstr: decodeIdstr(view, at + IDSTR_OFFSET),
        normal: [...offsets.slice(0, normalPages)],
        zero: [...offsets.slice(normalPages, normalPages + zeroPages)],
      })
    } else {
      const key = `empty flags=${flags}` as 'empty flags=0'
      counts[key] = (counts[key] ?? 0) + 1
    }
    at += packetHeaderSize(n)
    payloads.push(bytes.subarray(at, at + nextPacketSize))
    at += nextPacketSize
    if (at > bytes.length) throw truncatedError('a payload', nextPacketSize, nextPacketSize - (at - bytes.length))
    if ((flags & MULTIFD_FLAG.sync) !== 0) {
      counts.sync++
      epochs.push([])
    }
  }
  return { id, uuid, counts, epochs, data: unpack(Buffer.concat(payloads), methods), methods }
}

/** Each channel is one compressed stream for its whole life: it is inflated at once. */
function unpack(payload: Uint8Array, methods: Set<number>): Uint8Array | undefined {
  if (methods.has(MULTIFD_FLAG.zstd)) return undefined
  if (!methods.has(MULTIFD_FLAG.zlib) || payload.length === 0) return payload
  return inflateSync(payload, { finishFlush: constants.Z_SYNC_FLUSH })
}

/** A recorded main channel, taken apart. */
export interface Replayed {
  configuration: Configuration
  blocks: RamSetupBlock[]
  /** Content by block. */
  ram: Map<string, Uint8Array>
  /** Records by the names that capture.json uses. */
  records: Record<string, number>
  /** In capture.json's words. */
  sections: string[]
  commands: { command: Command; position: number }[]
  early: VirtioMemEarly[]
  /** Where the device state begins, and its bytes to the end; absent after postcopy. */
  tail?: Uint8Array
  tailAt: number
  end?: StreamEnd
  /** What came inside PACKAGED. */
  packaged?: Uint8Array
}

/** State of the parser of records; the preempt channel has its own. */
interface RecordSource {
  reader: MemoryReader
  block: string | undefined
}

/** Parses a recorded migration from its header to its last byte. */
export class Replay {
  readonly result: Replayed
  readonly channels: ReplayedChannel[]
  readonly #cursors: { packet: number; data: number }[]
  readonly #multifd: boolean
  readonly #capabilities: string[]
  #perRound = false
  #markers = 0
  #ramId = -1

  constructor({ meta, main, channels, mappedRam }: Capture) {
    this.channels = channels.map(replayChannel)
    this.#cursors = this.channels.map(() => ({ packet: 0, data: 0 }))
    this.#multifd = channels.length > 0
    this.#capabilities = meta.capabilities
    const bytes = mappedRam ?? main
    const reader = new MemoryReader(bytes)
    decodeStreamHeader(reader)
    const configuration = decodeConfiguration(reader)
    this.#perRound = dialectOf(configuration.machineType).flush === 'per-round'
    this.result = {
      configuration,
      blocks: [],
      ram: new Map(),
      records: {},
      sections: [],
      commands: [],
      early: [],
      tailAt: 0,
    }
    this.#items({ reader, block: undefined }, bytes)
  }

  /** Whether RAM can be rebuilt: zstd is not to be had in Node 20. */
  get complete(): boolean {
    return this.channels.every(({ data }) => data !== undefined)
  }

  get markers(): number {
    return this.#markers
  }

  #items(source: RecordSource, bytes: Uint8Array): void {
    const { reader } = source
    let ended = false
    for (;;) {
      const position = reader.position
      switch (reader.peekU8()) {
        case SECTION.command: {
          const command = decodeCommand(reader)
          this.result.commands.push({ command, position })
          const text = Buffer.from(command.payload).toString('hex')
          this.result.sections.push(`@${position} CMD ${command.name} len=${command.payload.length} ${text}`)
          if (command.command === COMMAND.packaged) {
            this.result.packaged = reader.subarray(decodePackaged(command.payload))
          }
          break
        }
        case SECTION.eof:
          // After postcopy there is no device state here, and nothing else.
          reader.u8()
          if (reader.remaining > 0) throw new Error(`${reader.remaining} bytes follow EOF`)
          return
        default:
          if (ended) {
            this.#tail(bytes, position)
            return
          }
          ended = this.#section(source, position)
      }
    }
  }

  /** Reads one section; true after RAM's last. */
  #section(source: RecordSource, position: number): boolean {
    const { reader } = source
    const header = decodeSectionHeader(reader)
    if (header.type === SECTION.part || header.type === SECTION.end) {
      if (header.sectionId !== this.#ramId) throw new Error(`section ${header.sectionId} is not RAM`)
      const name = header.type === SECTION.part ? 'PART' : 'END'
      this.result.sections.push(`@${position} ${name} id=${header.sectionId} (ram)`)
      this.records(source)
    } else {
      const { type, sectionId, idstr, instanceId, versionId } = header
      const name = type === SECTION.start ? 'START' : 'FULL'
      const rest = `inst=0x${instanceId.toString(16)} ver=${versionId}`
      this.result.sections.push(`@${position} ${name} id=${sectionId} name='${idstr}' ${rest}`)
      if (idstr.endsWith(VIRTIO_MEM_EARLY_SUFFIX)) {
        this.result.early.push(decodeVirtioMemEarly(reader))
      } else if (idstr === RAM_IDSTR && versionId === RAM_SECTION_VERSION) {
        this.#ramId = sectionId
        this.records(source)
      } else {
        throw new Error(`section '${idstr}' in set-up`)
      }
    }
    decodeFooter(reader, header.sectionId)
    return header.type === SECTION.end
  }

  #tail(bytes: Uint8Array, position: number): void {
    this.result.tailAt = position
    this.result.tail = bytes.subarray(position)
    const reader = new MemoryReader(this.result.tail)
    const header = decodeSectionHeader(reader)
    if (header.type !== SECTION.full) throw new Error('device state does not begin with FULL')
    const { sectionId, idstr, instanceId, versionId } = header
    const rest = `inst=0x${instanceId.toString(16)} ver=${versionId}`
    this.result.sections.push(`@${position} FULL id=${sectionId} name='${idstr}' ${rest}`)
    this.result.end = locateStreamEnd(this.result.tail)
  }

  /** Reads records up to EOS, or up to the end of a preempt channel. */
  records(source: RecordSource): void {
    const { reader } = source
    const word = { offset: 0, flags: 0 }
    while (reader.remaining > 0) {
      splitRamWord(reader.u64(), PAGE, word)
      const { offset, flags } = word
      // The one record that the codecs refuse, and that a recording of 7.2 has.
      const kind = (flags & ~RAM_FLAG.continue) === compressPage ? compressPage : checkRamFlags(flags)
      this.#count(kind)
      if (kind === memSize) {
        this.#setUp(reader, offset)
      } else if (kind === flush) {
        this.#marker()
      } else if (kind === eos) {
        if (!this.#perRound) this.#marker()
        return
      } else {
        if ((flags & RAM_FLAG.continue) === 0) source.block = decodeBlockName(reader)
        const block = this.result.ram.get(source.block ?? '')
        if (block === undefined || offset + PAGE > block.length) throw new Error(`no page ${source.block} ${offset}`)
        readPage(reader, kind, block.subarray(offset, offset + PAGE))
      }
    }
  }

  #count(kind: number): void {
    const names: Record<number, string> = {
      [zero]: 'zero',
      [page]: 'page',
      [xbzrle]: 'xbzrle',
      [compressPage]: 'compress',
      [eos]: 'EOS',
      [flush]: 'FLUSH',
    }
    const name = names[kind]
    if (name !== undefined) this.result.records[name] = (this.result.records[name] ?? 0) + 1
  }

  #setUp(reader: MemoryReader, total: number): void {
    this.result.blocks = decodeRamSetup(reader, total, {
      ignoreShared: this.#capabilities.includes('x-ignore-shared'),
      mappedRam: this.#capabilities.includes('mapped-ram'),
    })
    for (const { idstr, usedLength } of this.result.blocks) this.result.ram.set(idstr, new Uint8Array(usedLength))
  }

  /** Applies what each channel has up to its next SYNC. */
  #marker(): void {
    if (!this.#multifd) return
    this.channels.forEach((channel, i) => {
      const cursor = this.#cursors[i]!
      const epoch = channel.epochs[this.#markers]
      if (epoch === undefined || this.#markers >= channel.counts.sync) throw new Error(`channel ${i} has no SYNC`)
      for (const packet of epoch) this.#apply(channel, cursor, packet)
    })
    this.#markers++
  }

  #apply({ data }: ReplayedChannel, cursor: { data: number }, packet: Packet): void {
    const block = this.result.ram.get(packet.idstr)
    if (block === undefined) throw new Error(`no block ${packet.idstr}`)
    for (const offset of [...packet.normal, ...packet.zero]) {
      if (offset + PAGE > block.length) throw new Error(`no page ${packet.idstr} ${offset}`)
    }
    for (const offset of packet.zero) block.fill(0, offset, offset + PAGE)
    if (data === undefined) return
    for (const offset of packet.normal) {
      if (cursor.data + PAGE > data.length) throw new Error('a channel has too little data')
      block.set(data.subarray(cursor.data, cursor.data + PAGE), offset)
      cursor.data += PAGE
    }
  }

  /** Whether each channel's data was used to its end, and nothing with pages came after its last SYNC. */
  get drained(): boolean {
    return this.channels.every(
      ({ data, epochs, counts }, i) =>
        counts.sync === this.#markers &&
        epochs.at(-1)?.length === 0 &&
        (data === undefined || this.#cursors[i]?.data === data.length),
    )
  }
}

function readPage(reader: MemoryReader, kind: number, into: Uint8Array): void {
  if (kind === page) {
    into.set(reader.subarray(PAGE))
  } else if (kind === zero) {
    if (reader.u8() !== 0) throw new Error('fill byte')
    into.fill(0)
  } else if (kind === compressPage) {
    into.set(inflateSync(reader.bytes(reader.u32())))
  } else {
    if (reader.u8() !== 1) throw new Error('encoding flag')
    replayXbzrle(new MemoryReader(reader.bytes(reader.u16())), into)
  }
}

function replayXbzrle(reader: MemoryReader, into: Uint8Array): void {
  const uleb = () => {
    const low = reader.u8()
    return low < 0x80 ? low : (low & 0x7f) | (reader.u8() << 7)
  }
  for (let at = 0; reader.remaining > 0; ) {
    at += uleb()
    const run = reader.subarray(uleb())
    into.set(run, at)
    at += run.length
  }
}
