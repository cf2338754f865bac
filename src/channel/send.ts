// The send loop of one channel: takes batches from its ring and sends each as one packet.

import { DescriptorChannel } from '../io/descriptor-channel.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import type { SendMethod } from '../method/method.js'
import { NoneSend } from '../method/none.js'
import { PinnedBuffer } from '../os/memory.js'
import { RamBlock, type RamBlockHandle } from '../ram/block.js'
import { COUNTER, JOB, SLOT } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import { SlotWorker } from '../shm/slots.js'
import {
  encodeIdstr,
  encodePacketHeader,
  encodeSyncPacket,
  PacketHeader,
  packetHeaderSize,
  pagesPerPacket,
} from '../wire/multifd-packet.js'
import { type ChannelTask, channelWait, runChannelThread, Stopped, type ThreadOutcome, waitHandOver } from './thread.js'

export interface SendTask extends ChannelTask {
  /** Whether this thread looks for zero pages and puts them into the packet (peers since QEMU 9.0). */
  findZeroPages: boolean
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
    new SendLoop(shm, task, waitHandOver<SendHandOver>(shm, task)).run()
  })
}

class SendLoop {
  readonly #shm: MigrationShm
  readonly #task: SendTask
  readonly #jobs: SlotWorker
  readonly #channel: DescriptorChannel
  readonly #blocks: { block: RamBlock; idstr: Uint8Array }[]
  readonly #method: SendMethod = new NoneSend()
  readonly #header: PacketHeader
  readonly #packet: PinnedBuffer
  readonly #packetRange: AddressRange
  readonly #vector = new IoVector()
  readonly #zeroOffsets: Float64Array

  constructor(shm: MigrationShm, task: SendTask, { fd, pageSize, blocks }: SendHandOver) {
    const perPacket = pagesPerPacket(pageSize)
    const size = packetHeaderSize(perPacket)
    this.#shm = shm
    this.#task = task
    this.#jobs = new SlotWorker(shm, task.channel)
    this.#channel = new DescriptorChannel(fd, task.channel, channelWait(shm, task.channel, task.stallTimeoutMs))
    this.#blocks = blocks.map((handle) => ({ block: RamBlock.from(handle), idstr: encodeIdstr(handle.idstr) }))
    this.#header = new PacketHeader(perPacket)
    this.#packet = new PinnedBuffer(size)
    this.#packetRange = { address: this.#packet.address, size }
    this.#zeroOffsets = new Float64Array(perPacket)
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
    encodeSyncPacket(this.#packet.view, 0, this.#header.offsets.length, this.#shm.nextPacketNum())
    this.#vector.reset()
    this.#vector.push(this.#packetRange, 0, this.#packetRange.size)
    this.#send(0, 0)
    this.#shm.reachSync(this.#task.channel)
  }

  #sendPages(slot: Uint32Array): void {
    const { block, idstr } = this.#blocks[slot[SLOT.block]!]!
    const header = this.#header
    this.#sortPages(slot, block)
    header.packetNum = this.#shm.nextPacketNum()
    header.flags = this.#method.flag
    header.nextPacketSize = 0
    this.#vector.reset()
    this.#vector.push(this.#packetRange, 0, this.#packetRange.size)
    if (header.normalPages > 0) this.#method.prepare(header, block, this.#vector)
    encodePacketHeader(this.#packet.view, 0, header, idstr)
    this.#send(header.normalPages, header.zeroPages)
  }

  // Normal pages first, zero pages after them, as the packet's offsets have it.
  #sortPages(slot: Uint32Array, block: RamBlock): void {
    const header = this.#header
    const { pageSize, words } = block
    const { offsets } = header
    const find = this.#task.findZeroPages
    const end = SLOT.pages + slot[SLOT.count]!
    let normal = 0
    let zero = 0
    for (let at = SLOT.pages; at < end; at++) {
      const page = slot[at]!
      const offset = page * pageSize
      // Almost every page with data has some in its first word: a look here saves the call.
      if (!find || (words && words[offset / 4] !== 0) || !block.isZeroPage(page)) offsets[normal++] = offset
      else this.#zeroOffsets[zero++] = offset
    }
    for (let i = 0; i < zero; i++) offsets[normal + i] = this.#zeroOffsets[i]!
    header.normalPages = normal
    header.zeroPages = zero
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
