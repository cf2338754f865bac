// The send loop of one channel: takes batches from its ring and sends each as one packet.

import { DescriptorChannel } from '../io/descriptor-channel.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import type { SendMethod } from '../method/method.js'
import { makeSendMethod, type SendMethodOptions } from '../method/methods.js'
import { RamBlock, type RamBlockHandle, ZERO_MASK_PAGES } from '../ram/block.js'
import { COUNTER, JOB } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import type { PacketMemory } from '../shm/packet-memory.js'
import type { PageRuns } from '../shm/page-runs.js'
import { type Slot, SlotWorker } from '../shm/slots.js'
import {
  clearOffsets,
  encodeBlockName,
  encodeIdstr,
  encodePacketCounts,
  encodePacketFields,
  encodeSyncPacket,
  OFFSETS_OFFSET,
  PacketHeader,
  packetHeaderSize,
  pagesPerPacket,
} from '../wire/multifd-packet.js'
import { type ChannelTask, channelWait, runChannelThread, Stopped, type ThreadOutcome, waitHandOver } from './thread.js'

export interface SendTask extends ChannelTask {
  /** Whether this thread looks for zero pages and puts them into the packet (peers since QEMU 9.0). */
  findZeroPages: boolean
  compression: SendMethodOptions
}

/** What the coordinator hands over once the channel is connected and its initial packet sent. */
export interface SendHandOver {
  fd: number
  /** Bytes of a target page. */
  pageSize: number
  blocks: RamBlockHandle[]
}

/** Runs a channel until the coordinator ends it. The descriptor stays the coordinator's to close. */
export function runSend(task: SendTask): ThreadOutcome {
  return runChannelThread(task, `mig/src/send_${task.channel}`, (shm) => {
    const loop = new SendLoop(shm, task, waitHandOver<SendHandOver>(shm, task))
    try {
      loop.run()
    } finally {
      loop.close()
    }
  })
}

class SendLoop {
  readonly #shm: MigrationShm
  readonly #task: SendTask
  readonly #jobs: SlotWorker
  readonly #channel: DescriptorChannel
  readonly #blocks: { block: RamBlock; idstr: Uint8Array }[]
  // Made at the first pages: by then it is settled which it is.
  #method: SendMethod | undefined
  readonly #header: PacketHeader
  readonly #packet: PacketMemory
  readonly #packetRange: AddressRange
  readonly #vector: IoVector
  // What the header's memory has from the packet before: the block's name, and slots in use.
  #named = -1
  #slots = 0

  constructor(shm: MigrationShm, task: SendTask, { fd, pageSize, blocks }: SendHandOver) {
    const perPacket = pagesPerPacket(pageSize)
    this.#shm = shm
    this.#task = task
    this.#jobs = new SlotWorker(shm, task.channel)
    this.#channel = new DescriptorChannel(fd, task.channel, channelWait(shm, task.channel, task.stallTimeoutMs))
    this.#blocks = blocks.map((handle) => ({ block: RamBlock.from(handle), idstr: encodeIdstr(handle.idstr) }))
    this.#header = new PacketHeader(perPacket)
    this.#packet = shm.packetMemory(task.channel)
    this.#packetRange = { address: this.#packet.headerAddress, size: packetHeaderSize(perPacket) }
    this.#vector = new IoVector(this.#packet)
  }

  close(): void {
    this.#method?.close()
  }

  run(): void {
    for (;;) {
      const job = this.#jobs.next()
      if (job === undefined) throw new Stopped()
      if (job === JOB.quit) return
      if (job === JOB.sync) this.#sendSync()
      else this.#sendPages(this.#jobs.slot(job))
      this.#jobs.finish()
    }
  }

  #sendSync(): void {
    this.#method?.rest?.()
    encodeSyncPacket(this.#packet.header, 0, this.#header.pagesAlloc, this.#shm.nextPacketNum())
    this.#named = -1
    this.#slots = 0
    this.#beginVector()
    this.#send(0, 0)
    this.#shm.reachSync(this.#task.channel)
  }

  #sendPages(slot: Slot): void {
    const header = this.#header
    const { block, idstr } = this.#blocks[slot.block]!
    const { zero } = this.#packet
    zero.reset()
    const sort = this.#task.findZeroPages && hasZeroPages(slot.runs, block)
    const normal = sort ? this.#sortPages(slot.runs, block) : slot.runs
    header.normalPages = normal.pages
    header.zeroPages = zero.pages
    header.packetNum = this.#shm.nextPacketNum()
    this.#method ??= makeSendMethod(this.#task.compression, this.#shm, this.#task.channel)
    this.#beginVector()
    if (normal.pages > 0) block.aboutToRead(normal)
    header.nextPacketSize = normal.pages > 0 ? this.#method.prepare(normal, block, this.#vector) : 0
    header.flags = this.#method.flag
    if (this.#named !== slot.block) this.#beginHeader(slot.block, idstr)
    encodePacketCounts(this.#packet.header, 0, header)
    this.#writeOffsets(normal, zero, block)
    this.#send(normal.pages, zero.pages)
  }

  // Into the packet's own lists.
  #sortPages(runs: PageRuns, block: RamBlock): PageRuns {
    const { normal, zero } = this.#packet
    normal.reset()
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      for (let page = runs.first(run); page < end; page += ZERO_MASK_PAGES) {
        const count = Math.min(ZERO_MASK_PAGES, end - page)
        const zeros = block.zeroPages(page, count)
        if (zeros === 0) normal.push(page, count)
        else if (count === 32 && zeros === -1) zero.push(page, count)
        else for (let i = 0; i < count; i++) ((zeros & (1 << i)) === 0 ? normal : zero).push(page + i, 1)
      }
    }
    return normal
  }

  // What stays from packet to packet is written for the first one only.
  #beginHeader(index: number, idstr: Uint8Array): void {
    encodePacketFields(this.#packet.header, 0, this.#header)
    encodeBlockName(this.#packet.header, 0, idstr)
    this.#named = index
  }

  #writeOffsets(normal: PageRuns, zero: PageRuns, { pageShift }: RamBlock): void {
    const { kernel, headerAt, header } = this.#packet
    const at = kernel.writeOffsets(normal.at, normal.count, pageShift, headerAt + OFFSETS_OFFSET)
    if (zero.count > 0) kernel.writeOffsets(zero.at, zero.count, pageShift, at)
    const slots = normal.pages + zero.pages
    if (slots < this.#slots) clearOffsets(header, 0, slots, this.#header.pagesAlloc)
    this.#slots = slots
  }

  #beginVector(): void {
    this.#vector.reset()
    this.#vector.push(this.#packetRange, 0, this.#packetRange.size)
  }

  #send(normalPages: number, zeroPages: number): void {
    const { channel } = this.#task
    const bytes = this.#vector.length
    this.#channel.writeFull(this.#vector)
    this.#shm.count(channel, COUNTER.bytes, bytes)
    this.#shm.count(channel, COUNTER.packets, 1)
    if (normalPages > 0) this.#shm.count(channel, COUNTER.normalPages, normalPages)
    if (zeroPages > 0) this.#shm.count(channel, COUNTER.zeroPages, zeroPages)
  }
}

function hasZeroPages(runs: PageRuns, block: RamBlock): boolean {
  for (let run = 0; run < runs.count; run++) if (block.hasZeroPage(runs.first(run), runs.length(run))) return true
  return false
}
