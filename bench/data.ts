// What the RAM holds: data sets made from a seed, the same in every run and for every peer.
//
// A set is made once, PERIOD bytes of it, and repeated over the RAM: longer than any window of the methods measured.

import { randomFillSync } from 'node:crypto'

export const DATA_SETS = ['random', 'text', 'code', 'mixed', 'sparse', 'zeros'] as const
/**
 * `text`: words of a vocabulary, some far more often than others. `code`: instructions of a few kinds with small
 * operands, and tables of pointers. `mixed`: runs of pages, half of them zero, the others text, code and noise. `sparse`:
 * 2 MiB of noise in every 32, and memory between them that was never written.
 */
export type DataSet = (typeof DATA_SETS)[number]

/** Least part of the RAM that goes as data. */
export const DATA_PART: Record<DataSet, number> = { random: 1, text: 1, code: 1, mixed: 0.45, sparse: 1 / 16, zeros: 0 }

/** Part of the RAM that is resident once it holds the data, with huge pages. */
export const RESIDENT_PART: Record<DataSet, number> = {
  random: 1,
  text: 1,
  code: 1,
  mixed: 1,
  sparse: 1 / 16,
  zeros: 0,
}

const PAGE = 4096
const PERIOD = 32 * 1024 ** 2
const SPARSE = PERIOD / 16
const SEED = 0x6d756c74
const WORDS = 4096
const LINE_WORDS = 12
const RUN_PAGES_MAX = 64

const made = new Map<DataSet, Buffer>()

/** Hands the content of `bytes` of RAM to `put`, piece by piece. Zeros are what fresh memory has: nothing is put. */
export function eachPiece(data: DataSet, bytes: number, put: (piece: Uint8Array, at: number) => void): void {
  if (data === 'zeros') return
  const piece = data === 'sparse' ? periodOf('random').subarray(0, SPARSE) : periodOf(data)
  for (let at = 0; at < bytes; at += PERIOD) {
    if (data === 'random' || data === 'sparse') randomFillSync(piece)
    put(piece.subarray(0, Math.min(piece.length, bytes - at)), at)
  }
}

function periodOf(data: Exclude<DataSet, 'zeros' | 'sparse'>): Buffer {
  let piece = made.get(data)
  if (!piece) {
    piece = Buffer.alloc(PERIOD)
    if (data !== 'random') FILL[data](piece, new Random(SEED))
    made.set(data, piece)
  }
  return piece
}

const FILL = { text: fillText, code: fillCode, mixed: fillMixed }

/** Marsaglia's xorshift, 32 bits. */
class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % limit
  }

  /** The same, and small ones are the likelier. */
  low(limit: number): number {
    return Math.floor((this.below(limit) * this.below(limit)) / limit)
  }
}

function fillText(into: Buffer, random: Random): void {
  const letters = 'etaoinshrdlcumwfgypbvk'
  const vocabulary = Array.from({ length: WORDS }, () =>
    Array.from({ length: 2 + random.below(8) }, () => letters[random.low(letters.length)]).join(''),
  )
  for (let at = 0; at < into.length; ) {
    const line = Array.from({ length: LINE_WORDS }, () => vocabulary[random.low(WORDS)]).join(' ')
    at += into.write(`${line}\n`, at, 'latin1')
  }
}

function fillCode(into: Buffer, random: Random): void {
  const opcodes = Array.from({ length: 64 }, () => Array.from({ length: 1 + random.below(4) }, () => random.below(256)))
  for (let at = 0; at < into.length; at++) {
    // Every so often a table of pointers, whose upper halves are alike.
    if (random.below(512) === 0) {
      for (let entry = random.below(64); entry > 0 && at + 8 < into.length; entry--, at += 8) {
        into.writeUInt32LE(random.below(2 ** 24) * 16, at)
        into.writeUInt32LE(0x7f31, at + 4)
      }
    }
    for (const byte of opcodes[random.low(opcodes.length)]!) if (at < into.length) into[at++] = byte
    if (at < into.length) into[at] = random.low(256)
  }
}

function fillMixed(into: Buffer, random: Random): void {
  const sources = [periodOf('text'), periodOf('code'), randomBytes(random)]
  for (let at = 0; at < into.length; ) {
    // As many pages of data as of zeros behind them.
    const run = (1 + random.below(RUN_PAGES_MAX)) * PAGE
    const source = sources[random.below(sources.length)]!
    const from = random.below((source.length - run) / PAGE) * PAGE
    source.copy(into, at, from, from + run)
    at += 2 * run
  }
}

function randomBytes(random: Random): Buffer {
  const bytes = Buffer.alloc(1024 ** 2)
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at)
  return bytes
}
