// Random numbers that can be had again, and the ways to damage a byte string.

import type { Test } from 'tap'

const DEFAULT_SEED = 20240229

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 to 2^32 - 1 (mulberry32). */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let x = this.#state
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return (x ^ (x >>> 14)) >>> 0
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.word() / 2 ** 32) * limit)
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }
}

/** The seed in MULTIFD_SEED, or always the same; printed with the test. */
export function seedOf(t: Test): number {
  const { MULTIFD_SEED = DEFAULT_SEED } = process.env
  t.comment(`MULTIFD_SEED=${MULTIFD_SEED}`)
  return Number(MULTIFD_SEED)
}

export function seededRandom(t: Test): Random {
  return new Random(seedOf(t))
}

/** What can be damaged on purpose: places of fields by their size in bytes, and pieces that belong together. */
export interface Anatomy {
  fields: { at: number; size: 1 | 2 | 4 | 8 }[]
  units: { at: number; end: number }[]
}

const SMALL = [0n, 1n, 2n, 3n, 7n, 8n, 127n, 128n, 129n, 255n, 256n, 511n, 512n, 4095n, 4096n, 4097n]
const LARGE = [16n, 20n, 24n, 31n, 32n, 40n, 43n, 44n, 48n, 52n, 53n, 54n, 63n, 64n].flatMap((bits) => {
  const power = 1n << bits
  return [power - 4096n, power - 1n, power, power + 1n, power + 4096n]
})
/** Values at which something changes: a page, a packet, a block, a sign, what a double holds. */
const BOUNDARIES = [...SMALL, 0x7f_f000n, 0x80000n, 0x80001n, 0x100000n, 0xff_f000n, 0x100_0000n, 0x100_1000n, ...LARGE]

/** A copy of bytes that was damaged, and in words how. */
export interface Damaged {
  bytes: Uint8Array
  what: string
}

/** Damages a copy of `bytes` in one to four places. */
export function damage(bytes: Uint8Array, anatomy: Anatomy, random: Random): Damaged {
  return damageWith(KINDS, bytes, anatomy, random)
}

/** Damages a copy of `bytes` and leaves everything where it is. */
export function damageInPlace(bytes: Uint8Array, anatomy: Anatomy, random: Random): Damaged {
  return damageWith(KINDS_IN_PLACE, bytes, anatomy, random)
}

function damageWith(kinds: readonly Kind[], bytes: Uint8Array, anatomy: Anatomy, random: Random): Damaged {
  let damaged: Uint8Array = bytes.slice()
  const done: string[] = []
  for (let left = 1 + random.below(random.below(4) + 1); left > 0; left--) {
    const [next, what] = random.pick(kinds)(damaged, anatomy, random)
    damaged = next
    done.push(what)
  }
  return { bytes: damaged, what: done.join('; ') }
}

type Kind = (bytes: Uint8Array, anatomy: Anatomy, random: Random) => [bytes: Uint8Array, what: string]

const setField: Kind = (bytes, { fields }, random) => {
  const { at, size } = random.pick(fields)
  if (at + size > bytes.length) return [bytes, 'nothing']
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  let value = random.pick(BOUNDARIES)
  if (random.below(4) === 0) value += BigInt(random.below(9) - 4)
  if (random.below(8) === 0) value = BigInt(random.word())
  value = BigInt.asUintN(size * 8, value)
  for (let i = 0; i < size; i++) view.setUint8(at + i, Number((value >> BigInt(8 * (size - 1 - i))) & 0xffn))
  return [bytes, `${size} bytes at ${at} = 0x${value.toString(16)}`]
}

const flipBits: Kind = (bytes, { fields }, random) => {
  // Mostly where it matters.
  const { at: place, size } = random.pick(fields)
  const at = random.below(3) === 0 ? random.below(bytes.length) : place + random.below(size)
  if (at >= bytes.length) return [bytes, 'nothing']
  bytes[at]! ^= 1 << random.below(8)
  return [bytes, `bit of byte ${at}`]
}

const setByte: Kind = (bytes, _, random) => {
  if (bytes.length === 0) return [bytes, 'nothing']
  const at = random.below(bytes.length)
  bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)])
  return [bytes, `byte ${at} = ${bytes[at]}`]
}

const swapUnits: Kind = (bytes, { units }, random) => {
  const [a, b] = [random.pick(units), random.pick(units)].sort((x, y) => x.at - y.at) as [Place, Place]
  if (a.end > b.at || b.end > bytes.length) return [bytes, 'nothing']
  const parts = [bytes.subarray(0, a.at), piece(bytes, b), bytes.subarray(a.end, b.at), piece(bytes, a)]
  return [join(...parts, bytes.subarray(b.end)), `swapped what is at ${a.at} and ${b.at}`]
}

const repeatUnit: Kind = (bytes, { units }, random) => {
  const from = random.pick(units)
  const to = random.pick([from, random.pick(units)]).at
  if (from.end > bytes.length || to > bytes.length) return [bytes, 'nothing']
  return [
    join(bytes.subarray(0, to), piece(bytes, from), bytes.subarray(to)),
    `what is at ${from.at} once more at ${to}`,
  ]
}

const dropUnit: Kind = (bytes, { units }, random) => {
  const { at, end } = random.pick(units)
  return [join(bytes.subarray(0, at), bytes.subarray(end)), `without what is at ${at}`]
}

const cutOut: Kind = (bytes, _, random) => {
  const at = random.below(bytes.length + 1)
  const length = random.pick([1, 2, 4, 7, 8, 64, 1344, 4096, random.below(5000)])
  return [join(bytes.subarray(0, at), bytes.subarray(at + length)), `without ${length} bytes at ${at}`]
}

const insertBytes: Kind = (bytes, _, random) => {
  const at = random.below(bytes.length + 1)
  const noise = Uint8Array.from({ length: random.pick([1, 2, 4, 8, 64, 1344]) }, () => random.below(256))
  return [join(bytes.subarray(0, at), noise, bytes.subarray(at)), `${noise.length} bytes of noise at ${at}`]
}

const cutEnd: Kind = (bytes, _, random) => {
  const length = random.below(bytes.length + 1)
  return [bytes.slice(0, length), `only ${length} bytes`]
}

const KINDS_IN_PLACE = [setField, setField, setField, setField, flipBits, flipBits, setByte]
const KINDS = [...KINDS_IN_PLACE, swapUnits, repeatUnit, dropUnit, cutOut, insertBytes, cutEnd]

interface Place {
  at: number
  end: number
}

function piece(bytes: Uint8Array, { at, end }: Place): Uint8Array {
  return bytes.subarray(at, end)
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
