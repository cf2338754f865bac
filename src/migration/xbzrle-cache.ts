// The source's XBZRLE cache: pages exactly as they were last sent, to encode the next change against.
//
// Each page has one place, by its number, so pages that lie together never push each other out. A place that was used in
// this pass or the one before stays with its page: where more pages change than fit, some of them are encoded all the time
// rather than none. A page without a place goes whole.

import { MultifdError } from '../errors.js'
import type { AddressRange } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { ByteWords } from '../wire/xbzrle.js'

/** Memory of some places: allocated together, once the first of them is taken. */
export interface CacheChunk extends ByteWords, AddressRange {}

const CHUNK_SIZE = 1024 * 1024
const NONE = -1

export class XbzrleCache {
  readonly #pageSize: number
  readonly #chunkPages: number
  readonly #faults: FaultPoints | undefined
  readonly #chunks: (CacheChunk | undefined)[] = []
  /** Page at each place, or NONE. */
  readonly #pages: Float64Array
  /** Pass in which it was used last. */
  readonly #used: Uint32Array

  /**
   * @param size bytes for pages, a power of two from a page's size on
   * @param pages in all blocks together: the cache takes no more than they need
   * @throws MultifdError ERR_MULTIFD_UNSUPPORTED where there is no memory for it
   */
  constructor(size: number, pageSize: number, pages: number, faults?: FaultPoints) {
    const places = Math.min(size / pageSize, 2 ** Math.ceil(Math.log2(pages)))
    this.#pageSize = pageSize
    this.#chunkPages = Math.min(places, Math.max(1, CHUNK_SIZE / pageSize))
    this.#faults = faults
    this.#pages = allocated(8 * places, () => new Float64Array(places)).fill(NONE)
    this.#used = allocated(4 * places, () => new Uint32Array(places))
  }

  /** The place that has a page, noted as used in this pass; -1 when there is none. */
  find(page: number, pass: number): number {
    const place = page % this.#pages.length
    if (this.#pages[place] !== page) return NONE
    this.#used[place] = pass
    return place
  }

  /** The place for a page that is not there, whose memory is to be filled; -1 when another page keeps it. */
  take(page: number, pass: number): number {
    const place = page % this.#pages.length
    if (this.#pages[place] !== NONE && this.#used[place]! >= pass - 1) return NONE
    this.#pages[place] = page
    this.#used[place] = pass
    return place
  }

  /** The memory that a taken place lies in. @throws MultifdError ERR_MULTIFD_UNSUPPORTED where there is none for it */
  chunk(place: number): CacheChunk {
    const at = Math.floor(place / this.#chunkPages)
    this.#chunks[at] ??= this.#makeChunk(this.#chunkPages * this.#pageSize)
    return this.#chunks[at]
  }

  /** Where in its chunk a place begins. */
  offset(place: number): number {
    return (place % this.#chunkPages) * this.#pageSize
  }

  #makeChunk(size: number): CacheChunk {
    const { bytes, address } = allocated(size, () => {
      if (this.#faults?.happens('no-cache-memory')) throw new RangeError('Array buffer allocation failed')
      return new PinnedBuffer(size)
    })
    return { bytes, words: new Int32Array(bytes.buffer, 0, size / 4), address, size }
  }
}

function allocated<T>(size: number, make: () => T): T {
  try {
    return make()
  } catch (cause) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `xbzrle: no memory for ${size} bytes of its cache`, { cause })
  }
}
