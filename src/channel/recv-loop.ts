// The receive loop of one channel: reads packets, puts their pages where they belong, passes no SYNC before its release.

import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { describe } from '../io/descriptor-channel.js'
import { type AddressRange, IoVector } from '../io/iovec.js'
import type { ThreadLog } from '../log.js'
import type { RecvMethod } from '../method/method.js'
import type { RecvMethods } from '../method/methods.js'
import { RamBlock } from '../ram/block.js'
import { arePopulated, checkPage, checkPopulated, type LoadBlock } from '../ram/load-block.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { HeaderMemory, PacketMemory } from '../shm/packet-memory.js'
import type { PageRuns } from '../shm/page-runs.js'
import {
  badOffset,
  decodeIdstr,
  decodePacketFields,
  IDSTR_OFFSET,
  METHOD_MASK,
  MULTIFD_FLAG,
  OFFSETS_OFFSET,
  PacketHeader,
  packetHeaderSize,
  pagesPerPacket,
  readOffset,
  sameIdstr,
} from '../wire/multifd-packet.js'

/** What a receive loop needs of the rest of the migration. Tests put their own in its place. */
export interface RecvContext {
  channel: Channel
  packet: PacketMemory
  methods: RecvMethods
  pageSize: number
  /** The first packet's, where that has been read already. */
  header?: Uint8Array | undefined
  /** Whether somebody else has taken SYNCs of this channel. */
  synced?: boolean | undefined
  /** The blocks of the RAM set-up, or undefined before it came. */
  blocks(): LoadBlock[] | undefined
  /** Called at a SYNC, with everything before it in place. Returns the barrier's number. */
  reachBarrier(): number
  /** Called before what comes after that SYNC is looked at; returns when the barrier is released. */
  passBarrier(reached: number): void
  /** Whether the main stream is over, so that no page may come any more. */
  ending(): boolean
  counted(bytes: number, normalPages: number, zeroPages: number): void
  faults?: FaultPoints | undefined
  log?: ThreadLog
}

export class RecvLoop {
  readonly #context: RecvContext
  // Of the last packet with pages.
  #method!: RecvMethod
  readonly #header: PacketHeader
  readonly #packet: PacketMemory
  readonly #headerMemory: HeaderMemory
  readonly #packetRange: AddressRange
  readonly #vector: IoVector
  // Packets have one block each, and mostly the one of the packet before.
  #block: LoadBlock | undefined
  // Where pages lie before they go into a file, made for the first block that is one.
  #staging: RamBlock | undefined
  readonly #perPacket: number
  // Where packets are told, each is taken apart by the slower way: the other one does not even ask.
  readonly #tracing: boolean
  #pagesSinceSync = 0
  #synced: boolean

  constructor(context: RecvContext) {
    const perPacket = pagesPerPacket(context.pageSize)
    this.#context = context
    this.#tracing = context.log?.tracing ?? false
    this.#synced = context.synced ?? false
    this.#perPacket = perPacket
    this.#header = new PacketHeader(perPacket)
    this.#packet = context.packet
    this.#headerMemory = context.packet.headers[0]!
    this.#packetRange = { address: this.#headerMemory.address, size: packetHeaderSize(perPacket) }
    this.#vector = new IoVector(context.packet)
  }

  run(): void {
    let haveHeader = this.#firstHeader()
    while (haveHeader) {
      if (this.#tracing) haveHeader = this.#takeAny()
      else if (this.#isSync) haveHeader = this.#takeSync()
      else haveHeader = this.#synced && this.#block ? this.#takeAlike(this.#block) : this.#takeAny()
    }
    if (this.#pagesSinceSync > 0) {
      const { name } = this.#context.channel
      throw new MultifdError('ERR_MULTIFD_BARRIER', `${describe(name)}: ended with pages after its last SYNC`)
    }
  }

  // Almost every packet is like the one before: the kernel takes it apart. Every other one, and all that is wrong, is left
  // to `takeAny`, which knows what to say. Returns whether a header has come.
  #takeAlike(block: LoadBlock): boolean {
    const { kernel, expectedAt, normal, zero } = this.#packet
    const { size: headerSize } = this.#packetRange
    const context = this.#context
    const vector = this.#vector
    const plain = this.#method.flag === 0
    const staged = block.inPlace === undefined
    const sparse = block.inPlace?.discardManager !== undefined
    while (!context.ending()) {
      const size = kernel.acceptPacket(expectedAt)
      if (size < 0 || (sparse && !(arePopulated(block, normal) && arePopulated(block, zero)))) break
      if (plain) {
        vector.wrote((staged ? Math.min(normal.count, 1) : normal.count) + 1, size + headerSize)
        block.aboutToReceive(normal)
      } else this.#expect(size)
      const got = context.channel.readFull(vector, size)
      this.#took(got, size)
      if (got - size !== headerSize) return this.#isHeader(got - size)
    }
    return this.#takeAny()
  }

  #takeAny(): boolean {
    this.#decode()
    const { flags, nextPacketSize: size } = this.#header
    // The next header rides on a read: not on a SYNC's, which is reached as soon as what it ends is in place.
    const sync = (flags & MULTIFD_FLAG.sync) !== 0
    this.#expect(size, sync ? 0 : this.#packetRange.size)
    const got = this.#vector.length === 0 ? 0 : this.#context.channel.readFull(this.#vector, size)
    this.#took(got, size)
    if (this.#tracing) this.#tell()
    if (!sync) return this.#isHeader(got - size)
    return this.#rest()
  }

  get #isSync(): boolean {
    return this.#packet.kernel.isSync(this.#headerMemory.at, this.#perPacket) !== 0
  }

  #takeSync(): boolean {
    this.#context.counted(this.#packetRange.size, 0, 0)
    return this.#rest()
  }

  // At a SYNC. The header after it is waited for before the release is: that has mostly come by then, and a thread that
  // sleeps in its socket need not be woken for it.
  #rest(): boolean {
    const { packetNum } = this.#header
    this.#pagesSinceSync = 0
    this.#synced = true
    const reached = this.#context.reachBarrier()
    const haveHeader = this.#readHeader()
    if (haveHeader) this.#context.passBarrier(reached)
    if (haveHeader && this.#tracing) this.#context.log!.trace({ packet: packetNum }, 'barrier passed')
    return haveHeader
  }

  #tell(): void {
    const { flags, packetNum, normalPages, zeroPages, nextPacketSize } = this.#header
    const fields = { packet: packetNum, flags, bytes: nextPacketSize, normal: normalPages, zero: zeroPages }
    const block = normalPages + zeroPages > 0 ? { block: this.#block!.idstr } : {}
    this.#context.log!.trace({ ...fields, ...block }, (flags & MULTIFD_FLAG.sync) === 0 ? 'packet' : 'SYNC')
  }

  #took(got: number, size: number): void {
    const { normal, zero } = this.#packet
    if (got < size) throw truncated(this.#context.channel.name, 'page data', size - got)
    if (normal.pages > 0) this.#store(size)
    if (zero.pages > 0) this.#block!.clear(zero)
    this.#pagesSinceSync += normal.pages + zero.pages
    this.#context.counted(this.#packetRange.size + size, normal.pages, zero.pages)
  }

  #firstHeader(): boolean {
    const { header } = this.#context
    if (!header) return this.#readHeader()
    const { view } = this.#headerMemory
    new Uint8Array(view.buffer, view.byteOffset, header.length).set(header)
    return true
  }

  #readHeader(): boolean {
    this.#vector.reset()
    this.#vector.push(this.#packetRange, 0, this.#packetRange.size)
    return this.#isHeader(this.#context.channel.readFull(this.#vector, 0))
  }

  #isHeader(got: number): boolean {
    const { size } = this.#packetRange
    if (got === 0) return false
    if (got < size) throw truncated(this.#context.channel.name, "a packet's header", size - got)
    return true
  }

  #decode(): void {
    const { channel } = this.#context
    const header = this.#header
    try {
      decodePacketFields(this.#headerMemory.view, 0, this.#perPacket, header)
      const pages = header.normalPages + header.zeroPages
      this.#packet.normal.reset()
      this.#packet.zero.reset()
      if (pages === 0) return
      if (!this.#synced) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages came before the first SYNC')
      if (this.#context.ending()) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages after the last barrier')
      this.#expectAlike(this.#context.methods.select(header.flags & METHOD_MASK), this.#findBlock())
      this.#decodeOffsets(this.#packet.normal, 0, header.normalPages)
      this.#decodeOffsets(this.#packet.zero, header.normalPages, header.zeroPages)
    } catch (error) {
      if (!(error instanceof MultifdError)) throw error
      throw new MultifdError(error.code, `${describe(channel.name)}: ${error.message}`, {
        channel: channel.name,
        packetNum: header.packetNum,
        cause: error,
      })
    }
  }

  #findBlock(): LoadBlock {
    const { view } = this.#headerMemory
    if (this.#block && sameIdstr(view, IDSTR_OFFSET, this.#block.idstrField)) return this.#block
    const blocks = this.#context.blocks()
    if (!blocks) throw new MultifdError('ERR_MULTIFD_BARRIER', 'pages came before the RAM set-up')
    const found = blocks.find(({ idstrField }) => sameIdstr(view, IDSTR_OFFSET, idstrField))
    if (!found) throw new MultifdError('ERR_MULTIFD_BLOCK', `unknown RAM block '${decodeIdstr(view, IDSTR_OFFSET)}'`)
    return found
  }

  #expectAlike(method: RecvMethod, block: LoadBlock): void {
    if (method === this.#method && block === this.#block) return
    this.#method = method
    this.#block = block
    if (!block.inPlace) this.#staging ??= this.#makeStaging(block)
    this.#packet.name.set(block.idstrField)
    this.#packet.expect({
      method: method.flag,
      pageShift: block.pageShift,
      pages: block.pages,
      pagesPerPacket: this.#perPacket,
      headerSize: this.#packetRange.size,
      address: (block.inPlace ?? this.#staging!).address,
      staged: !block.inPlace,
    })
  }

  #makeStaging({ pageSize }: LoadBlock): RamBlock {
    this.#context.faults?.fail('no-staging-memory')
    return RamBlock.staging(this.#perPacket, pageSize)
  }

  // Offsets from number `from` on become runs of pages, each of which lies in the block.
  #decodeOffsets(runs: PageRuns, from: number, count: number): void {
    const { view, at: headerAt } = this.#headerMemory
    const { kernel } = this.#packet
    const block = this.#block!
    const at = headerAt + OFFSETS_OFFSET + 8 * from
    const found = count === 0 ? 0 : kernel.readOffsets(at, count, block.pageShift, block.pages, runs.at)
    if (found < 0) {
      const index = from + ((-found - 1) >> 1)
      if ((found & 1) !== 0) throw badOffset(view, 0, index, block.pageSize)
      checkPage(block, readOffset(view, 0, index))
    }
    runs.wrote(found, count)
    checkPopulated(block, runs)
  }

  // A list for the payload, and as many bytes of the next header.
  #expect(size: number, headerSize = this.#packetRange.size): void {
    const { normal } = this.#packet
    this.#vector.reset()
    if (normal.pages > 0) {
      const { inPlace } = this.#block!
      this.#block!.aboutToReceive(normal)
      this.#method.expect(inPlace ? normal : this.#stage(), inPlace ?? this.#staging!, size, this.#vector)
    }
    if (headerSize > 0) this.#vector.push(this.#packetRange, 0, headerSize)
  }

  #store(size: number): void {
    const { normal } = this.#packet
    const block = this.#block!
    this.#method.finish(block.inPlace ? normal : this.#packet.staged, block.inPlace ?? this.#staging!, size)
    block.store(normal, this.#staging)
  }

  // As many pages as the packet has, one after the other.
  #stage(): PageRuns {
    const { staged, normal } = this.#packet
    staged.reset()
    staged.push(0, normal.pages)
    return staged
  }
}

/** The error of a channel whose peer closed it inside something. */
export function truncated(channel: number | 'main', what: string, missing: number): MultifdError {
  const message = `${describe(channel)}: the peer closed it inside ${what}, ${missing} bytes short`
  return new MultifdError('ERR_MULTIFD_TRUNCATED', message, { channel })
}
