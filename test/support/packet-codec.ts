// The whole header of a packet, offsets and all, the slow and obvious way: what the page kernel is held against.

import type { MultifdError } from '../../src/errors.js'
import {
  badOffset,
  decodePacketFields,
  encodeBlockName,
  encodeSyncPacket,
  OFFSETS_OFFSET,
  PACKET_DATA_SIZE,
  PacketHeader,
  readOffset,
} from '../../src/wire/multifd-packet.js'

/** A header with the byte offsets of its pages: normal ones first, then zero ones. */
export class WholeHeader extends PacketHeader {
  readonly offsets: Float64Array

  constructor(pagesPerPacket: number) {
    super(pagesPerPacket)
    this.offsets = new Float64Array(pagesPerPacket)
  }
}

export function encodePacketHeader(view: DataView, at: number, header: WholeHeader, idstr: Uint8Array): void {
  encodeSyncPacket(view, at, header.pagesAlloc, header.packetNum)
  view.setUint32(at + 8, header.flags)
  view.setUint32(at + 16, header.normalPages)
  view.setUint32(at + 20, header.nextPacketSize)
  view.setUint32(at + 32, header.zeroPages)
  encodeBlockName(view, at, idstr)
  const used = header.normalPages + header.zeroPages
  for (let i = 0; i < header.offsets.length; i++) {
    view.setBigUint64(at + OFFSETS_OFFSET + 8 * i, i < used ? BigInt(header.offsets[i]!) : 0n)
  }
}

export function decodePacketHeader(view: DataView, at: number, pagesPerPacket: number, into: WholeHeader): void {
  decodePacketFields(view, at, pagesPerPacket, into)
  const pageSize = PACKET_DATA_SIZE / pagesPerPacket
  for (let i = 0; i < into.normalPages + into.zeroPages; i++) {
    if ((view.getUint32(at + OFFSETS_OFFSET + 8 * i + 4) & (pageSize - 1)) !== 0) throw bad(view, at, i, pageSize)
    into.offsets[i] = readOffset(view, at, i)
  }
}

function bad(view: DataView, at: number, index: number, pageSize: number): MultifdError {
  return badOffset(view, at, index, pageSize)
}
