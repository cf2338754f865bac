// The send loop of one channel: takes batches from its ring and sends each as one packet.

import type { Channel } from '../io/channel.js'
import { type Connection, openChannel } from '../io/connection.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import type { ThreadLog } from '../log.js'
import type { SendMethod } from '../method/method.js'
import { makeSendMethod, type SendMethodOptions } from '../method/methods.js'
import { NoneSend } from '../method/none.js'
import { RamBlock, type RamBlockHandle, ZERO_MASK_PAGES } from '../ram/block.js'
import { COUNTER, JOB, PACKETS_AT_ONCE } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import type { HeaderMemory, PacketMemory } from '../shm/packet-memory.js'
import { type PageRuns, PartReader } from '../shm/page-runs.js'
import { type Slot, SlotWorker } from '../shm/slots.js'
import {
  encodeBlockName,
  encodeIdstr,
  encodeSyncPacket,
  MULTIFD_FLAG,
  packetHeaderSize,
  pagesPerPacket,
} from '../wire/multifd-packet.js'
import { FilePages } from './file-pages.js'
import { type Introduction, introduce } from './introduce.js'
import { SyncPacket } from './sync-packet.js'
import {
  breakThread,
  type ChannelTask,
  channelWait,
  runChannelThread,
  Stopped,
  type ThreadOutcome,
  waitHandOver,
} from './thread.js'

export interface SendTask extends ChannelTask {
  /** Whether this thread looks for zero pages and puts them into the packet (peers since QEMU 9.0). */
  findZeroPages: boolean
  /** Sends without copying that may be under way at a time; undefined: pages are copied. */
  zeroCopySends?: number
  compression: SendMethodOptions
}

/** What the coordinator hands over once the channel is connected. */
export interface SendHandOver {
  connection: Connection
  /** Where the destination does not know the channel yet. */
  introduction?: Introduction
  /** Bytes of a target page. */
  pageSize: number
  blocks: RamBlockHandle[]
}

/** Runs a channel until the coordinator ends it. The connection stays the coordinator's to close. */
export function runSend(task: SendTask): ThreadOutcome {
  return runChannelThread(task, `mig/src/send_${task.channel}`, (shm, log) => {
    const handOver = waitHandOver<SendHandOver>(shm, task)
    breakThread(shm, 'source', handOver.connection)
    const loop = new SendLoop(shm, log, task, handOver)
    try {
      loop.run()
    } finally {
      loop.close()
    }
  })
}

/** A packet's header in memory that serves one packet after the other. */
interface Header {
  memory: HeaderMemory
  range: AddressRange
  /** Index of the block that it names; -1 for none. */
  named: number
  /** Offsets that it has. */
  slots: number
}

class SendLoop {
  readonly #shm: MigrationShm
  readonly #log: ThreadLog
  readonly #tracing: boolean
  readonly #task: SendTask
  readonly #jobs: SlotWorker
  readonly #parts = new PartReader()
  readonly #channel: Channel
  readonly #blocks: { block: RamBlock; idstr: Uint8Array }[]
  // Made at the first pages: by then it is settled which it is.
  #method: SendMethod | undefined
  // Whether packets go one by one: a compressor has room for one payload, and zero copy is for one packet's pages.
  #alone = false
  readonly #perPacket: number
  readonly #packet: PacketMemory
  readonly #headers: Header[]
  readonly #syncPacket: SyncPacket
  readonly #vector: IoVector
  readonly #filePages: FilePages
  // What is in the list and not sent yet.
  #packets = 0
  #normalPages = 0
  #zeroPages = 0

  constructor(
    shm: MigrationShm,
    log: ThreadLog,
    task: SendTask,
    { connection, introduction, pageSize, blocks }: SendHandOver,
  ) {
    this.#perPacket = pagesPerPacket(pageSize)
    this.#shm = shm
    this.#log = log
    this.#tracing = log.tracing
    this.#task = task
    this.#jobs = new SlotWorker(shm, task.channel)
    this.#channel = openChannel(connection, task.channel, channelWait(shm, task.channel, task.stallTimeoutMs))
    if (introduction) introduce(this.#channel, introduction)
    if (task.zeroCopySends !== undefined) this.#channel.enableZeroCopy(task.zeroCopySends)
    this.#blocks = blocks.map((handle) => ({ block: RamBlock.from(handle), idstr: encodeIdstr(handle.idstr) }))
    this.#packet = shm.packetMemory(task.channel)
    const size = packetHeaderSize(this.#perPacket)
    this.#headers = this.#packet.headers.map((memory) => {
      return { memory, range: { address: memory.address, size }, named: -1, slots: 0 }
    })
    this.#syncPacket = new SyncPacket(this.#perPacket)
    this.#vector = new IoVector(this.#packet)
    this.#filePages = new FilePages(this.#channel)
  }

  close(): void {
    this.#method?.close()
  }

  run(): void {
    for (;;) {
      const job = this.#jobs.next()
      if (job === undefined) throw new Stopped()
      if (job === JOB.quit) {
        this.#channel.end()
        return
      }
      if (job === JOB.sync) this.#sendSync()
      else this.#addPages(this.#jobs.slot(job))
      this.#jobs.finish()
    }
  }

  #sendSync(): void {
    this.#method?.rest?.()
    const number = this.#shm.nextPacketNum()
    this.#syncPacket.push(number, this.#vector)
    this.#packets++
    this.#flush()
    this.#flushZeroCopy()
    const barrier = this.#shm.reachSync(this.#task.channel)
    if (this.#tracing) this.#log.trace({ packet: number, flags: MULTIFD_FLAG.sync, barrier }, 'SYNC sent')
  }

  // Before the SYNC counts as reached: from then on the program may take it that what was sent is what the pages were.
  #flushZeroCopy(): void {
    const { channel, zeroCopySends } = this.#task
    if (zeroCopySends === undefined || this.#shm.fault('send-without-flush')) return
    this.#shm.count(channel, COUNTER.zeroCopyMissed, this.#channel.flushZeroCopy())
  }

  #addPages({ block, runs }: Slot): void {
    if (runs.pages <= this.#perPacket) {
      this.#addPacket(block, runs, true)
      return
    }
    const { part } = this.#packet
    this.#parts.start(runs)
    for (let left = runs.pages; left > 0; left -= part.pages) {
      this.#parts.read(part, this.#perPacket)
      this.#addPacket(block, part, left === part.pages)
    }
  }

  // Several packets go in one call while there are more: what runs here has left the processor's cache after each.
  #addPacket(index: number, runs: PageRuns, last: boolean): void {
    const { block, idstr } = this.#blocks[index]!
    const { zero, kernel } = this.#packet
    zero.reset()
    const sort = this.#task.findZeroPages && hasZeroPages(runs, block)
    const normal = sort ? this.#sortPages(runs, block) : runs
    this.#method ??= this.#makeMethod()
    const inFile = normal.pages > 0 && !this.#alone && this.#filePages.takes(block)
    if (inFile || !this.#vector.hasRoom(1 + normal.pages)) this.#flush()
    const header = this.#headers[this.#packets]!
    if (header.named !== index) this.#beginHeader(header, index, idstr)
    this.#vector.push(header.range, 0, header.range.size)
    let size = 0
    if (inFile) size = normal.pages * block.pageSize
    else if (normal.pages > 0) {
      block.aboutToRead(normal)
      size = this.#method.prepare(normal, block, this.#vector)
    }
    const { flag } = this.#method
    const number = this.#shm.nextPacketNum()
    const { at } = header.memory
    header.slots = kernel.encodePacket(at, flag, size, number, normal.at, zero.at, block.pageShift, header.slots)
    this.#packets++
    this.#normalPages += normal.pages
    this.#zeroPages += zero.pages
    if (this.#tracing) {
      const fields = { packet: number, flags: flag, block: block.idstr, bytes: size }
      this.#log.trace({ ...fields, normal: normal.pages, zero: zero.pages }, 'packet')
    }
    if (inFile) this.#flushWithFile(normal, block, size)
    else if (this.#packets === PACKETS_AT_ONCE || this.#alone) this.#flush()
    else if (last && !this.#jobs.moreAfterThis) this.#flush()
  }

  #makeMethod(): SendMethod {
    const method = makeSendMethod(this.#task.compression, this.#shm, this.#task.channel)
    this.#alone = this.#zeroCopy || !(method instanceof NoneSend)
    this.#log.debug({ compression: this.#task.compression, zeroCopy: this.#zeroCopy }, 'the first pages')
    return method
  }

  // Into the packet's own lists.
  #sortPages(runs: PageRuns, block: RamBlock): PageRuns {
    const { normal, zero, kernel } = this.#packet
    normal.reset()
    for (let run = 0; run < runs.count; run++) {
      const end = runs.first(run) + runs.length(run)
      for (let page = runs.first(run); page < end; page += ZERO_MASK_PAGES) {
        const count = Math.min(ZERO_MASK_PAGES, end - page)
        kernel.splitPages(page, count, block.zeroPages(page, count), normal.at, zero.at)
      }
    }
    return normal
  }

  // What stays from packet to packet is written for the first one only.
  #beginHeader(header: Header, index: number, idstr: Uint8Array): void {
    const { view } = header.memory
    encodeSyncPacket(view, 0, this.#perPacket, 0)
    encodeBlockName(view, 0, idstr)
    header.named = index
    header.slots = 0
  }

  get #zeroCopy(): boolean {
    return this.#task.zeroCopySends !== undefined
  }

  #flush(): void {
    if (this.#packets === 0) return
    const bytes = this.#vector.length
    // The header's memory is used again: it is copied, and the pages are not.
    if (!this.#zeroCopy || this.#normalPages === 0) this.#channel.writeFull(this.#vector)
    else this.#channel.writeZeroCopy(this.#vector, packetHeaderSize(this.#perPacket))
    this.#vector.reset()
    this.#count(bytes)
  }

  // The only packet in the list, whose pages follow it from a file.
  #flushWithFile(normal: PageRuns, block: RamBlock, size: number): void {
    const bytes = this.#vector.length + size
    this.#channel.writeFull(this.#vector, true)
    this.#vector.reset()
    this.#filePages.write(normal, block)
    this.#count(bytes)
  }

  // What has gone since the last time.
  #count(bytes: number): void {
    const { channel } = this.#task
    this.#shm.countPackets(channel, bytes, this.#packets, this.#normalPages, this.#zeroPages)
    this.#packets = 0
    this.#normalPages = 0
    this.#zeroPages = 0
  }
}

function hasZeroPages(runs: PageRuns, block: RamBlock): boolean {
  for (let run = 0; run < runs.count; run++) if (block.hasZeroPage(runs.first(run), runs.length(run))) return true
  return false
}
