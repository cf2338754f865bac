// Which granules of a sparse block are populated, and who relies on that at present; seen by every thread.

import { SharedBitmap } from './bitmap.js'

/** What crosses to a thread. */
export interface GranuleMapHandle {
  /** Bytes. */
  granuleSize: number
  count: number
  /** One bit a granule, set where it is populated. */
  populated: SharedArrayBuffer
  claims: SharedArrayBuffer
}

// The word of claims: so many hold the map as it is, or one changes it.
const CHANGING = -1

export class GranuleMap {
  readonly handle: GranuleMapHandle
  readonly populated: SharedBitmap
  readonly #claims: Int32Array

  constructor(handle: GranuleMapHandle) {
    this.handle = handle
    this.populated = new SharedBitmap(handle.count, handle.populated)
    this.#claims = new Int32Array(handle.claims)
  }

  /** A map of `count` granules, none of them populated. */
  static create(granuleSize: number, count: number): GranuleMap {
    const populated = new SharedBitmap(count).buffer
    return new GranuleMap({ granuleSize, count, populated, claims: new SharedArrayBuffer(4) })
  }

  /** Keeps the map as it is until {@link release}; false when it is being changed. Several may hold it at once. */
  hold(): boolean {
    for (;;) {
      const claims = Atomics.load(this.#claims, 0)
      if (claims === CHANGING) return false
      if (Atomics.compareExchange(this.#claims, 0, claims, claims + 1) === claims) return true
    }
  }

  /** Pairs with {@link hold}. */
  release(): void {
    Atomics.sub(this.#claims, 0, 1)
  }

  /** Claims the map for a change; false when it is held, or being changed by another thread. */
  beginChange(): boolean {
    return Atomics.compareExchange(this.#claims, 0, 0, CHANGING) === 0
  }

  /** Pairs with {@link beginChange}: whoever holds the map from now on sees the change. */
  endChange(): void {
    Atomics.store(this.#claims, 0, 0)
  }
}
