// Chance that can be repeated: everything drawn for one run follows from the seed and the run's number.

import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

/** Numbers that lie together give seeds that do not (MurmurHash3's finalizer). */
function spread(seed: number, run: number): number {
  let hash = Math.imul(seed, 0x9e3779b1) ^ run
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}

export class Random {
  readonly #generator: ReturnType<typeof xoroshiro128plus>

  /** @param run of a seed: each has a sequence of its own, whichever came before it */
  constructor(seed: number, run = 0) {
    this.#generator = xoroshiro128plus(spread(seed, run))
  }

  /** A whole number from `least` to `most`, both included. */
  whole(least: number, most: number): number {
    return uniformInt(this.#generator, least, most)
  }

  /** A whole number from `least` to `most`, each order of magnitude as likely as the next. */
  magnitude(least: number, most: number): number {
    const at = this.whole(0, 0xffff) / 0xffff
    return Math.round(least * (most / least) ** at)
  }

  /** True `percent` times of a hundred. */
  chance(percent: number): boolean {
    return this.whole(0, 99) < percent
  }

  pick<T>(from: readonly T[]): T {
    return from[this.whole(0, from.length - 1)]!
  }
}
