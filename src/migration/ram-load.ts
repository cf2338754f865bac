// The destination's RAM: the records of RAM sections on the main channel, and the barriers that they mark.

import { MultifdError } from '../errors.js'
import type { StreamReader } from '../io/stream-reader.js'
import { RamBlock } from '../ram/block.js'
import { checkPage, excuseDiscarded, type LoadBlock } from '../ram/load-block.js'
import { COUNTER } from '../shm/layout.js'
import { PageRuns } from '../shm/page-runs.js'
import {
  checkRamFlags,
  decodeBlockName,
  RAM_FLAG,
  type RamSetupBlock,
  type RamWord,
  splitRamWord,
} from '../wire/ram.js'
import { decodeXbzrle, XBZRLE_ENCODING, XBZRLE_HEADER_SIZE } from '../wire/xbzrle.js'
import type { Coordinator } from './coordinator.js'
import type { RecvChannels } from './recv-channels.js'

const COUNT_EVERY = 1024

export interface RamLoadOptions {
  pageSize: number
  /** Decodes the set-up list, whose lengths add up to `total`, and makes the blocks. */
  setUp(total: number): LoadBlock[]
  /** Called at a barrier, whenever no channel had anything to report for a while. */
  quiet(): void
}

export class RamLoad {
  readonly #coordinator: Coordinator
  readonly #reader: StreamReader
  readonly #channels: RecvChannels
  readonly #options: RamLoadOptions
  readonly #word: RamWord = { offset: 0, flags: 0 }
  #blocks: LoadBlock[] | undefined
  #current: LoadBlock | undefined
  readonly #runs = PageRuns.alone(1)
  // Where a page lies before it goes into a file.
  #staging: RamBlock | undefined
  #flush: 'per-section' | 'per-round' | undefined
  #flushSeen = false
  #normalPages = 0
  #zeroPages = 0
  #xbzrlePages = 0
  #xbzrleBytes = 0
  #counted = 0

  constructor(coordinator: Coordinator, reader: StreamReader, channels: RecvChannels, options: RamLoadOptions) {
    this.#coordinator = coordinator
    this.#reader = reader
    this.#channels = channels
    this.#options = options
  }

  /** Reads the records of one section, up to its EOS, and meets its barriers. */
  loadSection(): void {
    const { pageSize } = this.#options
    for (;;) {
      splitRamWord(this.#reader.u64(), pageSize, this.#word)
      const kind = checkRamFlags(this.#word.flags)
      if (kind === RAM_FLAG.eos) break
      switch (kind) {
        case RAM_FLAG.memSize:
          this.#setUp(this.#word.offset)
          break
        case RAM_FLAG.flush:
          this.#flushSeen = true
          this.#barrier()
          break
        case RAM_FLAG.zero:
          this.#loadZero()
          break
        case RAM_FLAG.page:
          this.#loadPage()
          break
        case RAM_FLAG.xbzrle:
          this.#loadXbzrle()
          break
      }
    }
    if (!this.#blocks) throw new MultifdError('ERR_MULTIFD_PROTOCOL', 'the RAM set-up has no list of blocks')
    // The set-up's own section tells the dialect: a source that marks its rounds marks one here.
    this.#flush ??= this.#flushSeen ? 'per-round' : 'per-section'
    if (this.#flush === 'per-section') this.#barrier()
    this.#count()
  }

  /**
   * Checks that every page of every block came at least once.
   *
   * @param mayLack whether a block may lack pages: it is shared, or its device has memory that is unplugged or given back
   * @throws MultifdError ERR_MULTIFD_BLOCK
   */
  checkComplete(mayLack: (block: LoadBlock) => boolean): void {
    for (const block of this.#blocks!) {
      excuseDiscarded(block)
      const { received } = block
      if (received.full || mayLack(block)) continue
      const missing = block.pages - received.count()
      const first = received.next(0, false) * block.pageSize
      const message =
        `${missing} of ${block.pages} pages of block '${block.idstr}' never came, the first at 0x${first.toString(16)}: ` +
        'do both sides have the same number of channels?'
      throw new MultifdError('ERR_MULTIFD_BLOCK', message)
    }
  }

  #setUp(total: number): void {
    if (this.#blocks) throw new MultifdError('ERR_MULTIFD_PROTOCOL', 'a second RAM set-up')
    this.#blocks = this.#options.setUp(total)
    this.#channels.setBlocks(this.#blocks)
  }

  #block(): LoadBlock {
    if ((this.#word.flags & RAM_FLAG.continue) !== 0) {
      if (!this.#current) throw new MultifdError('ERR_MULTIFD_PROTOCOL', 'CONTINUE without a block before it')
    } else {
      const name = decodeBlockName(this.#reader)
      this.#current = this.#blocks?.find(({ idstr }) => idstr === name)
      if (!this.#current) throw new MultifdError('ERR_MULTIFD_BLOCK', `unknown RAM block '${name}'`)
    }
    checkPage(this.#current, this.#word.offset)
    return this.#current
  }

  #loadZero(): void {
    const block = this.#block()
    const fill = this.#reader.u8()
    if (fill !== 0) throw new MultifdError('ERR_MULTIFD_PROTOCOL', `a ZERO record's fill byte is ${fill}, expected 0`)
    block.clear(this.#one(block))
    this.#zeroPages++
  }

  #loadPage(): void {
    const block = this.#block()
    const { offset } = this.#word
    if (block.inPlace) this.#reader.into(block.inPlace, offset, this.#options.pageSize)
    else this.#reader.into(this.#stage(), 0, this.#options.pageSize)
    block.store(this.#one(block), this.#staging)
    if (++this.#normalPages % COUNT_EVERY === 0) this.#count()
  }

  #loadXbzrle(): void {
    const block = this.#block()
    const { pageSize } = this.#options
    const encoding = this.#reader.u8()
    if (encoding !== XBZRLE_ENCODING) {
      throw new MultifdError(
        'ERR_MULTIFD_PROTOCOL',
        `an XBZRLE record's encoding is ${encoding}, expected ${XBZRLE_ENCODING}`,
      )
    }
    const length = this.#reader.u16()
    if (length > pageSize) {
      throw new MultifdError(
        'ERR_MULTIFD_PROTOCOL',
        `an XBZRLE record has ${length} bytes, expected at most ${pageSize}`,
      )
    }
    const runs = this.#reader.bytes(length)
    const { offset } = this.#word
    const page = offset / pageSize
    if (!block.received.has(page)) {
      const message = `a change to page 0x${offset.toString(16)} of block '${block.idstr}', which never came`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
    decodeXbzrle(runs, block.open(page, block.inPlace ? undefined : this.#stage()))
    block.store(this.#one(block), this.#staging)
    this.#xbzrleBytes += XBZRLE_HEADER_SIZE + length
    if (++this.#xbzrlePages % COUNT_EVERY === 0) this.#count()
  }

  // The page of the record at hand.
  #one(block: LoadBlock): PageRuns {
    this.#runs.reset()
    this.#runs.push(this.#word.offset / block.pageSize, 1)
    return this.#runs
  }

  #stage(): RamBlock {
    this.#staging ??= RamBlock.staging(1, this.#options.pageSize)
    return this.#staging
  }

  #count(): void {
    const { shm } = this.#coordinator
    const place = shm.coordinatorPlace
    shm.count(place, COUNTER.bytes, this.#reader.position - this.#counted)
    shm.count(place, COUNTER.normalPages, this.#normalPages)
    shm.count(place, COUNTER.zeroPages, this.#zeroPages)
    shm.count(place, COUNTER.xbzrlePages, this.#xbzrlePages)
    shm.count(place, COUNTER.xbzrleBytes, this.#xbzrleBytes)
    this.#counted = this.#reader.position
    this.#normalPages = 0
    this.#zeroPages = 0
    this.#xbzrlePages = 0
    this.#xbzrleBytes = 0
    this.#coordinator.checkStopped()
    this.#channels.look()
  }

  #barrier(): void {
    const { shm } = this.#coordinator
    // A QEMU 8.1.0 writes the mark even without multifd.
    if (shm.channels === 0) return
    this.#count()
    this.#channels.barrier(() => this.#options.quiet())
  }

  /** Blocks of the set-up, once it came. */
  get setup(): LoadBlock[] | undefined {
    return this.#blocks
  }
}

export type { RamSetupBlock }
