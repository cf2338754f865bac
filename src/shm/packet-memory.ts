// The memory in which one channel puts packets together or takes them apart: headers, pages as runs, scatter-gather list.
// It is part of the migration's, so that the page kernel's one instance reaches it.

import { addressOf } from '../os/memory.js'
import { makeSharedMemory, type PageKernel, pageKernel, type SharedMemory } from '../wasm/kernel.js'
import { PACKET, PACKET_PAGES_MAX, PACKETS_AT_ONCE } from './layout.js'
import { PageRuns } from './page-runs.js'

/** A header's bytes, and where they are: from the memory's start, and for system calls. */
export interface HeaderMemory {
  view: DataView<SharedArrayBuffer>
  at: number
  address: number
}

/** What a channel's next packet must be for the page kernel to take it apart. */
export interface ExpectedPacket {
  /** Flag of the compression method. */
  method: number
  /** Of the packet's block. */
  pageShift: number
  pages: number
  pagesPerPacket: number
  /** Bytes. */
  headerSize: number
  /** Where pages go: of the block's first page, or of the staging block's. */
  address: number
  staged: boolean
}

export class PacketMemory {
  readonly kernel: PageKernel
  readonly headers: readonly HeaderMemory[]
  /** A block's name as a header has it: where it is, and its bytes. */
  readonly nameAt: number
  readonly name: Uint8Array<SharedArrayBuffer>
  /** Pages with data. */
  readonly normal: PageRuns
  /** Pages that are zero. */
  readonly zero: PageRuns
  /** A packet's pages, of a batch that has more. */
  readonly part: PageRuns
  /** Pages with data where they lie before they go into a file: one run from page 0 on. */
  readonly staged: PageRuns
  /** Where {@link expect} notes things for the kernel, bytes from the memory's start. */
  readonly expectedAt: number
  /** The scatter-gather list: position, address, entries. */
  readonly vectorAt: number
  readonly vectorAddress: number
  readonly vector: Uint32Array<SharedArrayBuffer>
  // Held because of its address.
  readonly #memory: SharedMemory

  /** @param at bytes from the memory's start */
  constructor(memory: SharedMemory, at: number, kernel = pageKernel(memory)) {
    const { buffer } = memory
    const base = addressOf(new Uint8Array(buffer))
    this.#memory = memory
    this.kernel = kernel
    this.headers = Array.from({ length: PACKETS_AT_ONCE }, (_, i) => {
      const headerAt = at + PACKET.header + i * PACKET.headerSize
      return { at: headerAt, address: base + headerAt, view: new DataView(buffer, headerAt, PACKET.headerSize) }
    })
    this.nameAt = at + PACKET.name
    this.name = new Uint8Array(buffer, this.nameAt, PACKET.expected - PACKET.name)
    this.normal = new PageRuns(buffer, at + PACKET.normal, PACKET_PAGES_MAX)
    this.zero = new PageRuns(buffer, at + PACKET.zero, PACKET_PAGES_MAX)
    this.part = new PageRuns(buffer, at + PACKET.part, PACKET_PAGES_MAX)
    this.staged = new PageRuns(buffer, at + PACKET.staged, 1)
    this.expectedAt = at + PACKET.expected
    this.vectorAt = at + PACKET.vector
    this.vectorAddress = base + this.vectorAt
    this.vector = new Uint32Array(buffer, this.vectorAt, (PACKET.size - PACKET.vector) / 4)
  }

  /** Notes what the packets from now on have in common, with {@link name}: the block's as their headers have it. */
  expect(packet: ExpectedPacket): void {
    const { buffer } = this.#memory
    const { at, address } = this.headers[0]!
    const { pagesPerPacket, method, pageShift, headerSize, staged, pages } = packet
    const words = [pagesPerPacket, this.nameAt, method, pageShift, this.normal.at, this.zero.at]
    new Uint32Array(buffer, this.expectedAt, 10).set([...words, this.vectorAt, at, headerSize, Number(staged)])
    new Float64Array(buffer, this.expectedAt + 40, 3).set([pages, packet.address, address])
  }

  /** One that belongs to no migration. */
  static alone(): PacketMemory {
    return new PacketMemory(makeSharedMemory(PACKET.size), 0)
  }

  get memory(): SharedMemory {
    return this.#memory
  }
}
