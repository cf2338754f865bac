// A hash table that lies in a RAM block as a whole: wherever the block goes, the table has gone.
//
//   header, one page    words of 32 bits, see HEAD; from FREE on, the first free entry of each size class
//   buckets             a word each: the first entry of the bucket's chain
//   entries             next entry of the chain, hash, key length, value length; key; value
//
// Entries are named by their place in units of 16 bytes, so that a word reaches 64 GiB; 0 is none.

import type { RamBlock } from 'multifd'

const UNIT = 16
const HEADER_BYTES = 4096
const MAGIC = 0x544d4d46
const VERSION = 1

const HEAD = { magic: 0, version: 1, buckets: 2, entries: 3, usedUnits: 4, top: 5, end: 6 } as const
const FREE = 64
const ENTRY = { next: 0, hash: 1, keyBytes: 2, valueBytes: 3 } as const
const ENTRY_BYTES = 16
/** A bucket for so many bytes of the block. */
const BYTES_PER_BUCKET = 256

/** Largest key and value, bytes. */
export const KEY_MAX = 65_536
export const VALUE_MAX = 2 ** 20

export class Table {
  readonly #words: Int32Array
  readonly #bytes: Buffer

  private constructor(block: RamBlock) {
    const { memory, size } = block
    this.#words = new Int32Array(memory!, 0, size / 4)
    this.#bytes = Buffer.from(memory!, 0, size)
  }

  /** An empty table in a block whose content is needed no more. */
  static create(block: RamBlock): Table {
    const table = new Table(block)
    table.clear()
    return table
  }

  /** The table that a block has. @throws Error where there is none */
  static open(block: RamBlock): Table {
    const table = new Table(block)
    const words = table.#words
    if (words[HEAD.magic] !== MAGIC || words[HEAD.version] !== VERSION || words[HEAD.end] !== block.size / UNIT) {
      throw new Error(`block '${block.idstr}' has no table of this version and size`)
    }
    return table
  }

  /** Number of keys. */
  get size(): number {
    return this.#words[HEAD.entries]!
  }

  /** Bytes that entries take, what is lost to rounding included. */
  get usedBytes(): number {
    return this.#words[HEAD.usedUnits]! * UNIT
  }

  /** A view, good until the table changes. */
  get(key: Uint8Array): Buffer | undefined {
    const entry = this.#find(key, hashOf(key))
    return entry === 0 ? undefined : this.#value(entry)
  }

  has(key: Uint8Array): boolean {
    return this.#find(key, hashOf(key)) !== 0
  }

  /** Returns false where the block has no room left; nothing has changed then. */
  set(key: Uint8Array, value: Uint8Array): boolean {
    const words = this.#words
    const hash = hashOf(key)
    const old = this.#find(key, hash)
    const need = classOf(ENTRY_BYTES + key.length + value.length)
    if (old !== 0 && need === this.#classAt(old)) {
      words[(old * UNIT) / 4 + ENTRY.valueBytes] = value.length
      this.#bytes.set(value, old * UNIT + ENTRY_BYTES + key.length)
      return true
    }
    const entry = this.#allocate(need)
    if (entry === 0) return false
    if (old !== 0) this.#remove(old, hash)
    const at = (entry * UNIT) / 4
    const bucket = this.#bucketOf(hash)
    words[at + ENTRY.next] = words[bucket]!
    words[at + ENTRY.hash] = hash
    words[at + ENTRY.keyBytes] = key.length
    words[at + ENTRY.valueBytes] = value.length
    this.#bytes.set(key, entry * UNIT + ENTRY_BYTES)
    this.#bytes.set(value, entry * UNIT + ENTRY_BYTES + key.length)
    words[bucket] = entry
    words[HEAD.entries]!++
    return true
  }

  /** Returns whether it was there. */
  delete(key: Uint8Array): boolean {
    const hash = hashOf(key)
    const entry = this.#find(key, hash)
    if (entry !== 0) this.#remove(entry, hash)
    return entry !== 0
  }

  clear(): void {
    const words = this.#words
    const size = this.#bytes.length
    const buckets = 2 ** Math.floor(Math.log2(size / BYTES_PER_BUCKET))
    words.fill(0, 0, HEADER_BYTES / 4 + buckets)
    words[HEAD.version] = VERSION
    words[HEAD.buckets] = buckets
    words[HEAD.top] = (HEADER_BYTES + 4 * buckets) / UNIT
    words[HEAD.end] = size / UNIT
    words[HEAD.magic] = MAGIC
  }

  #find(key: Uint8Array, hash: number): number {
    const words = this.#words
    for (let entry = words[this.#bucketOf(hash)]!; entry !== 0; entry = words[(entry * UNIT) / 4 + ENTRY.next]!) {
      const at = (entry * UNIT) / 4
      if (words[at + ENTRY.hash] !== hash || words[at + ENTRY.keyBytes] !== key.length) continue
      const start = entry * UNIT + ENTRY_BYTES
      if (this.#bytes.compare(key, 0, key.length, start, start + key.length) === 0) return entry
    }
    return 0
  }

  #bucketOf(hash: number): number {
    return HEADER_BYTES / 4 + (hash & (this.#words[HEAD.buckets]! - 1))
  }

  #value(entry: number): Buffer {
    const at = (entry * UNIT) / 4
    const start = entry * UNIT + ENTRY_BYTES + this.#words[at + ENTRY.keyBytes]!
    return this.#bytes.subarray(start, start + this.#words[at + ENTRY.valueBytes]!)
  }

  #classAt(entry: number): number {
    const at = (entry * UNIT) / 4
    return classOf(ENTRY_BYTES + this.#words[at + ENTRY.keyBytes]! + this.#words[at + ENTRY.valueBytes]!)
  }

  #allocate(sizeClass: number): number {
    const words = this.#words
    const units = unitsOf(sizeClass)
    const free = words[FREE + sizeClass]!
    if (free !== 0) words[FREE + sizeClass] = words[(free * UNIT) / 4 + ENTRY.next]!
    else if (words[HEAD.top]! + units > words[HEAD.end]!) return 0
    const entry = free !== 0 ? free : words[HEAD.top]!
    if (free === 0) words[HEAD.top]! += units
    words[HEAD.usedUnits]! += units
    return entry
  }

  #remove(entry: number, hash: number): void {
    const words = this.#words
    const sizeClass = this.#classAt(entry)
    const next = words[(entry * UNIT) / 4 + ENTRY.next]!
    let link = this.#bucketOf(hash)
    while (words[link] !== entry) link = (words[link]! * UNIT) / 4 + ENTRY.next
    words[link] = next
    words[(entry * UNIT) / 4 + ENTRY.next] = words[FREE + sizeClass]!
    words[FREE + sizeClass] = entry
    words[HEAD.entries]!--
    words[HEAD.usedUnits]! -= unitsOf(sizeClass)
  }
}

// FNV-1a, and a last mix for the low bits.
function hashOf(key: Uint8Array): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x01000193)
  return hash ^ (hash >>> 15)
}

// Size classes, four to each doubling: 1 to 4 units, then 5, 6, 7, 8, 10, 12, 14, 16, 20 … An eighth is lost on average.
function classOf(bytes: number): number {
  const units = Math.ceil(bytes / UNIT)
  if (units <= 4) return units - 1
  const shift = 29 - Math.clz32(units - 1)
  return 4 * shift + Math.ceil(units / 2 ** shift) - 1
}

function unitsOf(sizeClass: number): number {
  if (sizeClass < 4) return sizeClass + 1
  const shift = Math.floor(sizeClass / 4) - 1
  return ((sizeClass % 4) + 5) * 2 ** shift
}
