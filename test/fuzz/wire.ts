// Targets: the codecs of src/wire.

import { deepStrictEqual, ok } from 'node:assert'
import { viewOf } from '../../src/wire/bytes.js'
import {
  COMMAND,
  type Command,
  decodeCommand,
  decodePackaged,
  decodePing,
  decodePostcopyAdvise,
  decodePostcopyRamDiscard,
  decodeRecvBitmap,
  encodeCommand,
} from '../../src/wire/command.js'
import { decodeEarlySections, EarlySections } from '../../src/wire/early-sections.js'
import { dialectOf } from '../../src/wire/machine.js'
import {
  decodeMappedRamHeader,
  encodeMappedRamHeader,
  MAPPED_RAM_HEADER_SIZE,
  placeMappedRam,
} from '../../src/wire/mapped-ram.js'
import { decodeInitialPacket, encodeInitialPacket, INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { decodeIdstr, encodeIdstr, IDSTR_OFFSET, packetHeaderSize } from '../../src/wire/multifd-packet.js'
import { decodeRamSetup, encodeRamSetup, ramSetupSize } from '../../src/wire/ram.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { decodeReceivedBitmap, decodeReturnMessage } from '../../src/wire/return-path.js'
import {
  type Configuration,
  configurationSize,
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  decodeVmdescription,
  encodeConfiguration,
  encodeSectionHeader,
  encodeSectionPart,
  SECTION,
  sectionHeaderSize,
} from '../../src/wire/stream.js'
import { locateStreamEnd, StreamEndFinder } from '../../src/wire/stream-end.js'
import {
  decodeVirtioMemEarly,
  encodeVirtioMemEarly,
  VIRTIO_MEM_EARLY_SUFFIX,
  virtioMemEarlySize,
} from '../../src/wire/virtio-mem.js'
import { parseVmdesc, sectionPayloadSize, walkDeviceSections } from '../../src/wire/vmdesc.js'
import { decodeXbzrle, encodeXbzrle } from '../../src/wire/xbzrle.js'
import { type Capture, listCaptures, loadCapture } from '../support/captures.js'
import { decodePacketHeader, encodePacketHeader, WholeHeader } from '../support/packet-codec.js'
import { encoded } from '../wire/helpers.js'
import { comesAgain, type Target } from './target.js'

const CODES = ['ERR_MULTIFD_PROTOCOL', 'ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_UNSUPPORTED'] as const
const PAGE = 4096
const PAGES = 128

function captures(): Capture[] {
  return listCaptures().map((name) => loadCapture(name))
}

const initialPacket: Target = {
  name: 'initial-packet',
  maxSize: 80,
  codes: CODES,
  seeds: () => captures().flatMap(({ channels }) => channels.map((bytes) => bytes.slice(0, INITIAL_PACKET_SIZE))),
  run(input) {
    const packet = decodeInitialPacket(viewOf(input), 0)
    const encode = ({ uuidBytes: uuid, id }: typeof packet) =>
      encoded(INITIAL_PACKET_SIZE, (view, at) => encodeInitialPacket(view, at, { uuid, id }))
    comesAgain(packet, encode, (bytes) => decodeInitialPacket(viewOf(bytes), 0))
  },
}

const packetHeader: Target = {
  name: 'packet-header',
  maxSize: 1400,
  codes: CODES,
  seeds: () =>
    captures().flatMap(({ channels }) =>
      channels.map((bytes) => bytes.slice(INITIAL_PACKET_SIZE, INITIAL_PACKET_SIZE + packetHeaderSize(PAGES))),
    ),
  run(input) {
    const header = new WholeHeader(PAGES)
    decodePacketHeader(viewOf(input), 0, PAGES, header)
    ok(header.normalPages + header.zeroPages <= PAGES)
    const idstr = decodeIdstr(viewOf(input), IDSTR_OFFSET)
    if (idstr === '') return
    const name = encodeIdstr(idstr)
    const again = new WholeHeader(PAGES)
    const bytes = encoded(packetHeaderSize(PAGES), (view, at) => encodePacketHeader(view, at, header, name))
    decodePacketHeader(viewOf(bytes), 0, PAGES, again)
    deepStrictEqual(again, header)
    deepStrictEqual(decodeIdstr(viewOf(bytes), IDSTR_OFFSET), idstr)
  },
}

function configurationAgain({ machineType, ...subsections }: Configuration): void {
  const source = { machineType, subsections }
  comesAgain(
    { machineType, ...subsections },
    () => encoded(configurationSize(source), (view, at) => encodeConfiguration(view, at, source)),
    (bytes) => decodeConfiguration(new MemoryReader(bytes)),
  )
}

/** Every piece of a main stream's frame, in any order: what comes next says its type byte. */
const frame: Target = {
  name: 'stream',
  maxSize: 4096,
  codes: CODES,
  seeds: () =>
    captures()
      .filter(({ main }) => main.length > 0)
      .map(({ main }) => {
        const reader = new MemoryReader(main)
        decodeStreamHeader(reader)
        decodeConfiguration(reader)
        return main.slice(0, reader.position)
      }),
  run(input) {
    const reader = new MemoryReader(input)
    decodeStreamHeader(reader)
    let sectionId = 0
    while (reader.remaining > 0) {
      switch (reader.peekU8()) {
        case SECTION.configuration: {
          const configuration = decodeConfiguration(reader)
          dialectOf(configuration.machineType)
          configurationAgain(configuration)
          break
        }
        case SECTION.command:
          command(decodeCommand(reader))
          break
        case SECTION.footer:
          decodeFooter(reader, sectionId)
          break
        case SECTION.vmdesc:
          parseVmdesc(decodeVmdescription(reader))
          break
        default: {
          const header = decodeSectionHeader(reader)
          sectionId = header.sectionId
          comesAgain(
            header,
            (value) =>
              'idstr' in value
                ? encoded(sectionHeaderSize(value.idstr), (view, at) =>
                    encodeSectionHeader(view, at, value.type, value),
                  )
                : encoded(5, (view, at) => encodeSectionPart(view, at, value.type, value.sectionId)),
            (bytes) => decodeSectionHeader(new MemoryReader(bytes)),
          )
        }
      }
    }
  },
}

function command(decoded: Command): void {
  const { command: number, payload } = decoded
  comesAgain(
    decoded,
    () => encoded(5 + payload.length, (view, at) => encodeCommand(view, at, number, payload)),
    (bytes) => decodeCommand(new MemoryReader(bytes)),
  )
  if (number === COMMAND.ping) decodePing(payload)
  else if (number === COMMAND.packaged) decodePackaged(payload)
  else if (number === COMMAND.postcopyAdvise) decodePostcopyAdvise(payload)
  else if (number === COMMAND.postcopyRamDiscard) decodePostcopyRamDiscard(payload)
  else if (number === COMMAND.recvBitmap) decodeRecvBitmap(payload)
}

/** The first byte says which optional fields there are; then the total, and the list. */
const ramSetup: Target = {
  name: 'ram-setup',
  maxSize: 4096,
  codes: CODES,
  seeds: () =>
    [0, 1, 4].map((options) => {
      const blocks = ['pc.ram', 'pc.bios'].map((idstr, i) => ({
        idstr,
        usedLength: (i + 1) * PAGE,
        ...(options & 4 ? { pageSize: PAGE } : {}),
        ...(options & 1 ? { guestAddress: 0 } : {}),
      }))
      const bytes = encoded(ramSetupSize(blocks), (view, at) => encodeRamSetup(view, at, blocks))
      bytes[7] = 0
      return Uint8Array.from([options, ...bytes])
    }),
  run(input) {
    const reader = new MemoryReader(input)
    const options = reader.u8()
    const total = reader.u64()
    const mappedRam = (options & 2) !== 0
    const format = { ignoreShared: (options & 1) !== 0, mappedRam, postcopyPageSize: (options & 4) !== 0 }
    const blocks = decodeRamSetup(reader, total, format)
    deepStrictEqual(
      blocks.reduce((sum, { usedLength }) => sum + usedLength, 0),
      total,
    )
    if (mappedRam) return
    comesAgain(
      blocks,
      (list) => encoded(ramSetupSize(list), (view, at) => encodeRamSetup(view, at, list)),
      (bytes) => decodeRamSetup(new MemoryReader(bytes.subarray(8)), total, format),
    )
  },
}

/** The bytes after the RAM END section: their end, and the sections before it. */
const deviceState: Target = {
  name: 'stream-end',
  maxSize: 8192,
  codes: CODES,
  seeds() {
    const json = Buffer.from(
      '{"page_size":4096,"devices":[{"name":"dev","instance_id":0,"vmsd_name":"dev","version":1,' +
        '"fields":[{"name":"a","type":"uint8","size":1,"array_len":3}],' +
        '"subsections":[{"vmsd_name":"dev/s","version":1,"fields":[]}]}]}',
    )
    const sub = Buffer.from([5, 5, ...Buffer.from('dev/s'), 0, 0, 0, 1])
    const head = Buffer.from([4, 0, 0, 0, 1, 3, ...Buffer.from('dev'), 0, 0, 0, 0, 0, 0, 0, 1])
    const section = Buffer.concat([head, Buffer.from('abc'), sub, Buffer.from([0x7e, 0, 0, 0, 1, 0])])
    return [section, Buffer.concat([section, Buffer.from([6, 0, 0, json.length >> 8, json.length & 255]), json])]
  },
  run(input) {
    const end = locateStreamEnd(input)
    if (end.vmdesc === undefined) return
    // Byte by byte, some earlier place may look like the end; at the last byte this one must.
    const finder = new StreamEndFinder()
    let found: ReturnType<StreamEndFinder['push']>
    for (const byte of input) found = finder.push(Uint8Array.of(byte))
    deepStrictEqual(found, end)
    for (const device of end.vmdesc.devices) sectionPayloadSize(device)
    for (const { offset, size } of walkDeviceSections(input, end.vmdesc)) ok(offset + size <= input.length)
  },
}

const mappedRam: Target = {
  name: 'mapped-ram',
  maxSize: 64,
  codes: CODES,
  seeds: () => [
    Uint8Array.from([
      ...encoded(MAPPED_RAM_HEADER_SIZE, (view, at) =>
        encodeMappedRamHeader(view, at, { pageSize: PAGE, bitmapOffset: 28, pagesOffset: 2 ** 20 }),
      ),
      ...[0, 0, 0, 0, 0, 16, 0, 0],
    ]),
  ],
  run(input) {
    const header = decodeMappedRamHeader(viewOf(input), 0)
    comesAgain(
      header,
      (value) => encoded(MAPPED_RAM_HEADER_SIZE, (view, at) => encodeMappedRamHeader(view, at, value)),
      (bytes) => decodeMappedRamHeader(viewOf(bytes), 0),
    )
    const usedLength = new MemoryReader(input.subarray(MAPPED_RAM_HEADER_SIZE)).u64()
    const { bitmapOffset, bitmapSize, pagesOffset, end } = placeMappedRam(header, 0, usedLength, PAGE)
    ok(bitmapOffset + bitmapSize <= pagesOffset && pagesOffset <= end)
  },
}

/** Bytes on each side of the page that must stay as they are. */
const GUARD = 4096

const xbzrle: Target = {
  name: 'xbzrle',
  maxSize: 8192,
  codes: CODES,
  seeds: () => [Uint8Array.of(4, 3, 1, 2, 3), Uint8Array.of(0, 1, 9, 0x80, 1, 2, 7, 7)],
  run(input) {
    const memory = new Uint8Array(GUARD + PAGE + GUARD).fill(0xaa)
    const page = memory.subarray(GUARD, GUARD + PAGE)
    try {
      decodeXbzrle(input, page)
    } finally {
      ok(memory.subarray(0, GUARD).every((byte) => byte === 0xaa) && memory.subarray(-GUARD).every((b) => b === 0xaa))
    }
    const words = (bytes: Uint8Array) => ({ bytes, words: new Int32Array(bytes.buffer) })
    const [before, now] = [new Uint8Array(PAGE).fill(0xaa), page.slice()]
    const runs = new Uint8Array(3 * PAGE)
    const size = encodeXbzrle(words(before), 0, words(now), runs, 0, runs.length)
    decodeXbzrle(runs.subarray(0, size), before)
    deepStrictEqual(before, now)
  },
}

const returnPath: Target = {
  name: 'return-path',
  maxSize: 2048,
  codes: CODES,
  seeds: () => captures().flatMap(({ returnPath: bytes }) => (bytes ? [bytes.slice(0, 2048)] : [])),
  run(input) {
    const view = viewOf(input)
    for (let at = 0; ; ) {
      const message = decodeReturnMessage(view, at, input.length - at)
      if (message === undefined) break
      at += 4 + message.length
      if (message.type === 5) at = decodeReceivedBitmap(view, at, input.length - at, 1)?.end ?? input.length
      ok(at <= input.length)
    }
  },
}

const earlySection: Target = {
  name: 'early-section',
  maxSize: 4096,
  codes: CODES,
  seeds() {
    const idstr = `x${VIRTIO_MEM_EARLY_SUFFIX}`
    const state = { addr: 0, regionSize: 64 * PAGE, blockSize: PAGE, node: 0, size: PAGE, bitmap: new Uint8Array(8) }
    const header = { sectionId: 3, idstr, instanceId: 0, versionId: 1 }
    const payload = encoded(virtioMemEarlySize(64 * PAGE, PAGE), (view, at) => encodeVirtioMemEarly(view, at, state))
    const head = encoded(sectionHeaderSize(idstr), (view, at) => encodeSectionHeader(view, at, SECTION.full, header))
    return [Uint8Array.from([...head, ...payload, 0x7e, 0, 0, 0, 3])]
  },
  run(input) {
    const reader = new MemoryReader(input)
    const header = decodeSectionHeader(reader)
    if (!('idstr' in header)) return
    const start = reader.position
    const sections = new EarlySections()
    sections.read(reader, header, true)
    deepStrictEqual(decodeEarlySections(sections.bytes(true)).length, 1)
    const state = decodeVirtioMemEarly(new MemoryReader(input.subarray(start)))
    const size = virtioMemEarlySize(state.regionSize, state.blockSize)
    comesAgain(
      state,
      (value) => encoded(size, (view, at) => encodeVirtioMemEarly(view, at, value)),
      (bytes) => decodeVirtioMemEarly(new MemoryReader(bytes)),
    )
  },
}

/** A section whose end nothing tells but the RAM's first section behind it. */
const unknownEarlySection: Target = {
  name: 'early-to-ram',
  maxSize: 8192,
  codes: CODES,
  seeds() {
    const header = { sectionId: 3, instanceId: 0, versionId: 1 }
    const introduce = (type: typeof SECTION.full | typeof SECTION.start, idstr: string, versionId: number) =>
      encoded(sectionHeaderSize(idstr), (view, at) =>
        encodeSectionHeader(view, at, type, { ...header, idstr, versionId }),
      )
    const [head, ram] = [introduce(SECTION.full, 'dev', 1), introduce(SECTION.start, 'ram', 4)]
    return [Uint8Array.from([...head, 1, 2, 3, 0x7e, 0, 0, 0, 3, ...ram])]
  },
  run(input) {
    const reader = new MemoryReader(input)
    const header = decodeSectionHeader(reader)
    if (!('idstr' in header)) return
    const sections = new EarlySections()
    deepStrictEqual(sections.readToRam(reader, header).idstr, 'ram')
    ok(sections.bytes(false).length < input.length)
  },
}

export const wireTargets = [
  initialPacket,
  packetHeader,
  frame,
  ramSetup,
  deviceState,
  mappedRam,
  xbzrle,
  returnPath,
  earlySection,
  unknownEarlySection,
]
