// A bitmap in shared memory, one bit a page, little-endian as QEMU's files have it: page k is bit k%8 of byte k/8.

/** Words that {@link SharedBitmap.isClear} looks at together. */
export const CHUNK_WORDS = 1024
const ONES = Buffer.alloc(4 * CHUNK_WORDS, 0xff)
const ZEROS = Buffer.alloc(4 * CHUNK_WORDS)

/** Set and cleared by several threads at once; sizes in pages. */
export class SharedBitmap {
  readonly pages: number
  readonly buffer: SharedArrayBuffer
  readonly #words: Int32Array

  constructor(pages: number, buffer = new SharedArrayBuffer(SharedBitmap.byteLength(pages))) {
    this.pages = pages
    this.buffer = buffer
    this.#words = new Int32Array(buffer)
  }

  /** Bytes of a bitmap: whole 64-bit words, as in a mapped-ram file. */
  static byteLength(pages: number): number {
    return Math.ceil(pages / 64) * 8
  }

  /** Number of 32-bit words. */
  get wordCount(): number {
    return this.#words.length
  }

  /** Sets a page's bit; returns whether it was clear. */
  set(page: number): boolean {
    const bit = 1 << (page & 31)
    return (Atomics.or(this.#words, page >>> 5, bit) & bit) === 0
  }

  /** Clears a page's bit; returns whether it was set. */
  clear(page: number): boolean {
    const bit = 1 << (page & 31)
    return (Atomics.and(this.#words, page >>> 5, ~bit) & bit) !== 0
  }

  has(page: number): boolean {
    return (Atomics.load(this.#words, page >>> 5) & (1 << (page & 31))) !== 0
  }

  /** The bits of 32 pages from `first` on; those past the end are clear. */
  bits(first: number): number {
    const at = first >>> 5
    const shift = first & 31
    const low = this.word(at) >>> shift
    return shift === 0 || at + 1 === this.#words.length ? low : low | (this.word(at + 1) << (32 - shift))
  }

  /** Sets pages [first, first + count). */
  setRange(first: number, count: number): void {
    const end = first + count
    for (let page = first; page < end; ) {
      const from = page & 31
      const bits = Math.min(32 - from, end - page)
      Atomics.or(this.#words, page >>> 5, bits === 32 ? -1 : ((1 << bits) - 1) << from)
      page += bits
    }
  }

  /** Word `at` as it is. */
  word(at: number): number {
    return Atomics.load(this.#words, at)
  }

  /** Word `at`, cleared in the same step: no bit set meanwhile is lost. */
  takeWord(at: number): number {
    return Atomics.exchange(this.#words, at, 0)
  }

  /** Clears the bits that are set now; those set meanwhile stay or go. */
  clearAll(): void {
    for (let chunk = 0; chunk < this.#words.length; chunk += CHUNK_WORDS) {
      if (this.isClear(chunk)) continue
      const end = Math.min(chunk + CHUNK_WORDS, this.#words.length)
      for (let at = chunk; at < end; at++) this.takeWord(at)
    }
  }

  /** Number of set bits. */
  count(): number {
    let total = 0
    for (let at = 0; at < this.#words.length; at++) total += popCount(this.word(at))
    return total
  }

  /** Whether no bit is set in the {@link CHUNK_WORDS} words from word `at` on, as far as there are any. Takes next to no time. */
  isClear(at: number): boolean {
    const words = Math.min(CHUNK_WORDS, this.#words.length - at)
    return Buffer.from(this.buffer, 4 * at, 4 * words).compare(ZEROS, 0, 4 * words) === 0
  }

  /** Whether every page's bit is set. */
  get full(): boolean {
    const whole = Math.floor(this.pages / 8)
    for (let at = 0; at < whole; at += ONES.length) {
      const part = Buffer.from(this.buffer, at, Math.min(ONES.length, whole - at))
      if (part.compare(ONES, 0, part.length) !== 0) return false
    }
    return this.next(8 * whole, false) === this.pages
  }

  /** The first page of [from, end) whose bit is `value`, or `end` when there is none. */
  next(from: number, value: boolean, end = this.pages): number {
    let page = from
    while (page < end) {
      const word = value ? this.word(page >>> 5) : ~this.word(page >>> 5)
      const rest = word >>> (page & 31)
      if (rest !== 0) return Math.min(page + trailingZeros(rest), end)
      page = (page | 31) + 1
    }
    return end
  }

  /** A copy of the bytes. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.buffer).slice()
  }
}

/** Number of ones in 32 bits. */
export function popCount(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555)
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333)
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** Zeros below the lowest one; 32 for 0. */
export function trailingZeros(word: number): number {
  return word === 0 ? 32 : 31 - Math.clz32(word & -word)
}
