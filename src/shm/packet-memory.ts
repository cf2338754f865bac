// The memory in which one channel puts a packet together or takes it apart: header, pages as runs, scatter-gather list.
// It is a part of the migration's, so that the page kernel's one instance reaches it.

import { addressOf } from '../os/memory.js'
import { makeSharedMemory, type PageKernel, pageKernel, type SharedMemory } from '../wasm/kernel.js'
import { PACKET, PACKET_PAGES_MAX } from './layout.js'
import { PageRuns } from './page-runs.js'

export class PacketMemory {
  readonly kernel: PageKernel
  /** The header's bytes, and where they are: from the memory's start, and for system calls. */
  readonly header: DataView<SharedArrayBuffer>
  readonly headerAt: number
  readonly headerAddress: number
  /** Pages with data. */
  readonly normal: PageRuns
  /** Pages that are zero. */
  readonly zero: PageRuns
  /** Pages with data where they lie before they go into a file: one run from page 0 on. */
  readonly staged: PageRuns
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
    this.headerAt = at + PACKET.header
    this.headerAddress = base + this.headerAt
    this.header = new DataView(buffer, this.headerAt, PACKET.normal - PACKET.header)
    this.normal = new PageRuns(buffer, at + PACKET.normal, PACKET_PAGES_MAX)
    this.zero = new PageRuns(buffer, at + PACKET.zero, PACKET_PAGES_MAX)
    this.staged = new PageRuns(buffer, at + PACKET.staged, 1)
    this.vectorAt = at + PACKET.vector
    this.vectorAddress = base + this.vectorAt
    this.vector = new Uint32Array(buffer, this.vectorAt, (PACKET.size - PACKET.vector) / 4)
  }

  /** One that belongs to no migration. */
  static alone(): PacketMemory {
    return new PacketMemory(makeSharedMemory(PACKET.size), 0)
  }

  get memory(): SharedMemory {
    return this.#memory
  }
}
