// Sparse blocks (QEMU's RamDiscardManager): which granules of a block are populated, and who is told when that changes.
//
// A discarded granule has no content: it is neither read, nor tracked, nor sent, and it takes no memory.

import { MultifdError } from '../errors.js'
import { HOST_PAGE_SIZE } from '../os/memory.js'
import { GranuleMap, type GranuleMapHandle } from '../shm/granule-map.js'

/** How a block is made sparse. */
export interface SparseOptions {
  /** Bytes of a granule: a power of two, at least 4096, that divides the block's size. */
  granuleSize: number
  /** Where the block lies in the program's own address space, if it has one; both sides must agree. Default 0. */
  address?: number
}

/** A {@link RamDiscardManager} as another thread gets it. */
export interface DiscardManagerHandle {
  map: GranuleMapHandle
  address: number
}

/** Hears of changes, in the thread that makes them. */
export interface RamDiscardListener {
  /** Bytes [offset, offset + length) have content from now on. One that throws takes the change back. */
  populated?(offset: number, length: number): void
  /** They have none any more, and were given back to the kernel. */
  discarded?(offset: number, length: number): void
}

/** What the manager needs of its block. */
export interface SparseMemory {
  readonly idstr: string
  /** Bytes. */
  readonly size: number
  /** Gives a range back to the kernel: it reads as zero afterwards. @throws MultifdError */
  drop(offset: number, length: number): void
}

type Visit = (offset: number, length: number) => void

/** Granules in one byte range. */
interface Granules {
  first: number
  end: number
}

export class RamDiscardManager {
  /** Bytes. */
  readonly granuleSize: number
  /** See {@link SparseOptions.address}. */
  readonly address: number
  readonly #memory: SparseMemory
  readonly #map: GranuleMap
  readonly #listeners = new Set<RamDiscardListener>()

  constructor(memory: SparseMemory, handle: DiscardManagerHandle) {
    this.granuleSize = handle.map.granuleSize
    this.address = handle.address
    this.#memory = memory
    this.#map = new GranuleMap(handle.map)
  }

  /**
   * A handle whose granules are all discarded.
   *
   * @param unit what the backing's pages are, in bytes: a granule has whole ones
   * @throws MultifdError ERR_MULTIFD_ARGUMENT
   */
  static create(
    { idstr, size }: { idstr: string; size: number },
    { granuleSize, address = 0 }: SparseOptions,
    unit = HOST_PAGE_SIZE,
  ): DiscardManagerHandle {
    const wrong = (text: string): MultifdError => new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': ${text}`)
    if (!(granuleSize >= unit) || !Number.isInteger(Math.log2(granuleSize))) {
      throw wrong(`granule size ${granuleSize} is not a power of two of at least ${unit}, its pages' size`)
    }
    if (size % granuleSize !== 0) throw wrong(`size ${size} is not a multiple of its granules' ${granuleSize}`)
    if (!Number.isSafeInteger(address) || address < 0 || address % granuleSize !== 0) {
      throw wrong(`address ${address} is not a multiple of its granules' ${granuleSize}`)
    }
    return { map: GranuleMap.create(granuleSize, size / granuleSize).handle, address }
  }

  get handle(): DiscardManagerHandle {
    return { map: this.#map.handle, address: this.address }
  }

  get granules(): number {
    return this.#map.handle.count
  }

  /** Bytes that have content. */
  get populatedBytes(): number {
    return this.#map.populated.count() * this.granuleSize
  }

  /** Whether all of bytes [offset, offset + length) have content. */
  isPopulated(offset: number, length: number): boolean {
    if (length === 0) return true
    const end = Math.floor((offset + length - 1) / this.granuleSize) + 1
    return this.#map.populated.next(Math.floor(offset / this.granuleSize), false, end) === end
  }

  /** Where, from `offset` on, the first byte without content is; the granules' end where there is none. */
  firstDiscarded(offset: number): number {
    const first = Math.floor(offset / this.granuleSize)
    const granule = this.#map.populated.next(first, false)
    return granule === first ? offset : granule * this.granuleSize
  }

  /**
   * Gives a range content, zero at first; nothing is touched before it is needed. What has content already keeps it.
   *
   * @param offset in bytes, like `length` a multiple of the granule size
   * @throws MultifdError ERR_MULTIFD_ARGUMENT; ERR_MULTIFD_STATE while a migration of the block runs; what a listener
   * threw, after the change was taken back
   */
  populate(offset: number, length: number): void {
    const range = this.#rangeOf(offset, length)
    this.#change(() => this.#runs(range, false, (first, end) => this.#populateRun(first, end)))
  }

  /**
   * Takes a range's content away and gives its memory back to the kernel.
   *
   * @throws MultifdError as {@link populate}; ERR_MULTIFD_FILE or ERR_MULTIFD_UNSUPPORTED when the memory can not be
   * given back, and its content stays
   */
  discard(offset: number, length: number): void {
    const range = this.#rangeOf(offset, length)
    this.#change(() => this.#runs(range, true, (first, end) => this.#discardRun(first, end)))
  }

  /** Calls `visit` with every range that has content, in order. */
  replayPopulated(visit: Visit): void {
    this.#replay(true, visit)
  }

  /** Calls `visit` with every range that has none, in order. */
  replayDiscarded(visit: Visit): void {
    this.#replay(false, visit)
  }

  /** Tells a listener of every populated range now, and of every change that this thread makes. */
  addListener(listener: RamDiscardListener): void {
    this.#listeners.add(listener)
    this.replayPopulated((offset, length) => listener.populated?.(offset, length))
  }

  /** Tells it that every populated range is gone, and nothing any more. */
  removeListener(listener: RamDiscardListener): void {
    if (!this.#listeners.delete(listener)) return
    this.replayPopulated((offset, length) => listener.discarded?.(offset, length))
  }

  /**
   * Keeps the map as it is until {@link release}, for as long as a migration runs: what comes into being or goes away
   * in its middle would be another memory on each side.
   *
   * @throws MultifdError ERR_MULTIFD_STATE when it is being changed at this moment
   */
  hold(): void {
    if (this.#map.hold()) return
    throw new MultifdError('ERR_MULTIFD_STATE', `block '${this.#memory.idstr}' is being populated or discarded`)
  }

  release(): void {
    this.#map.release()
  }

  /** Makes the map say what `wanted` says of every granule, populating and discarding what differs. */
  become(wanted: (granule: number) => boolean): void {
    this.#change(() => {
      for (let granule = 0; granule < this.granules; granule++) {
        const has = this.#map.populated.has(granule)
        if (wanted(granule) === has) continue
        if (has) this.#discardRun(granule, granule + 1)
        else this.#populateRun(granule, granule + 1)
      }
    })
  }

  #populateRun(first: number, end: number): void {
    const { populated } = this.#map
    populated.setRange(first, end - first)
    const [offset, length] = [first * this.granuleSize, (end - first) * this.granuleSize]
    const told: RamDiscardListener[] = []
    try {
      for (const listener of this.#listeners) {
        listener.populated?.(offset, length)
        told.push(listener)
      }
    } catch (error) {
      for (let granule = first; granule < end; granule++) populated.clear(granule)
      for (const listener of told) listener.discarded?.(offset, length)
      throw error
    }
  }

  #discardRun(first: number, end: number): void {
    const [offset, length] = [first * this.granuleSize, (end - first) * this.granuleSize]
    this.#memory.drop(offset, length)
    for (let granule = first; granule < end; granule++) this.#map.populated.clear(granule)
    for (const listener of this.#listeners) listener.discarded?.(offset, length)
  }

  #change(change: () => void): void {
    if (!this.#map.beginChange()) {
      const message = `block '${this.#memory.idstr}' migrates, or another thread changes it: it can not be changed now`
      throw new MultifdError('ERR_MULTIFD_STATE', message)
    }
    try {
      change()
    } finally {
      this.#map.endChange()
    }
  }

  #rangeOf(offset: number, length: number): Granules {
    const { granuleSize } = this
    const { idstr, size } = this.#memory
    if (!(offset >= 0 && length >= 0 && offset + length <= size) || offset % granuleSize || length % granuleSize) {
      const message = `block '${idstr}': [${offset}, +${length}) is not whole granules of ${granuleSize} bytes in it`
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
    }
    return { first: offset / granuleSize, end: (offset + length) / granuleSize }
  }

  #replay(populated: boolean, visit: Visit): void {
    const { granuleSize } = this
    this.#runs({ first: 0, end: this.granules }, populated, (first, end) =>
      visit(first * granuleSize, (end - first) * granuleSize),
    )
  }

  /** Every run of granules of one kind; `visit` may change the run that it is called with. */
  #runs({ first, end }: Granules, populated: boolean, visit: (first: number, end: number) => void): void {
    const bits = this.#map.populated
    for (let from = bits.next(first, populated); from < end; ) {
      const to = Math.min(bits.next(from, !populated), end)
      visit(from, to)
      from = bits.next(to, populated)
    }
  }
}
