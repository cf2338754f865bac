// XBZRLE: what changed in a page since it was last sent, as runs of kept and of replaced bytes.
//
//   repeat   zrun, nzrun, nzrun bytes
//   zrun     bytes that stay as they are; 0 only at the start
//   nzrun    bytes that are replaced by those that follow; never 0
//
// Both are ULEB128 of at most two bytes (0..0x3fff). What lies behind the last run stays as it is.
//
//   record   [block id], u8 1 (the encoding), be16 length, the runs        see ram.ts
//
// Source of the format: QEMU migration/xbzrle.c.

import { protocolError } from './bytes.js'

/** The only encoding there is. */
export const XBZRLE_ENCODING = 1
/** Bytes of a record between block id and runs. */
export const XBZRLE_HEADER_SIZE = 3
const RUN_MAX = 0x3fff

// Kept bytes between two changes that are cheaper to send along than to name: a new run takes two bytes or more.
const GAP_MAX = 2
// Bytes from which on a call is cheaper than a loop.
const COPY_MIN = 64

/** Memory as bytes and as the same memory's words. */
export interface ByteWords {
  readonly bytes: Uint8Array
  readonly words: Int32Array
}

/**
 * Encodes what changed in a page. Nothing may write to either side meanwhile.
 *
 * @param before has the page as the destination has it, from byte `beforeAt` on, which is a multiple of 4
 * @param now the page, whose length is a multiple of 4
 * @param room most bytes to write
 * @returns bytes written; 0 when nothing differs; -1 when there is no room: the page is better sent whole
 */
export function encodeXbzrle(
  before: ByteWords,
  beforeAt: number,
  now: ByteWords,
  into: Uint8Array,
  at: number,
  room: number,
): number {
  const old = before.bytes
  const oldWords = before.words
  const { bytes, words } = now
  const { length } = bytes
  let left = room
  let out = at
  // The end of the runs so far.
  let from = 0
  for (;;) {
    const start = nextDifference(before, beforeAt, now, from)
    if (start === length) return out - at
    // No run is as long: a kept byte is replaced by itself, and one at least is left for the run that comes next.
    for (; start - from > RUN_MAX; ) {
      const kept = Math.min(RUN_MAX, start - from - 2)
      left -= 4
      if (left < 0) return -1
      out = writeRun(into, writeRun(into, out, kept), 1)
      from += kept + 1
      into[out++] = bytes[from - 1]!
    }
    let stop = start + 1
    // Where the last gap begins: a run that becomes too long ends there.
    let gap = start
    const longest = Math.min(length, start + RUN_MAX)
    for (let i = stop; i < longest && i - stop <= GAP_MAX; ) {
      const four = (i & 3) === 0 && i + 4 <= longest && allDiffer(oldWords[(beforeAt + i) / 4]! ^ words[i / 4]!)
      const width = four ? 4 : 1
      if (four || old[beforeAt + i] !== bytes[i]) {
        if (i > stop) gap = stop
        stop = i + width
      }
      i += width
    }
    if (stop < length && old[beforeAt + stop] !== bytes[stop]) stop = gap
    if (stop === start) return -1
    left -= runSize(start - from) + runSize(stop - start) + stop - start
    if (left < 0) return -1
    out = writeRun(into, writeRun(into, out, start - from), stop - start)
    if (stop - start < COPY_MIN) for (let i = start; i < stop; i++) into[out++] = bytes[i]!
    else {
      into.set(bytes.subarray(start, stop), out)
      out += stop - start
    }
    from = stop
  }
}

/** The first byte at or after `from` that differs, or the page's length. */
function nextDifference(before: ByteWords, beforeAt: number, now: ByteWords, from: number): number {
  const old = before.bytes
  const { bytes } = now
  const { length } = bytes
  let i = from
  for (; (i & 3) !== 0; i++) if (old[beforeAt + i] !== bytes[i]) return i
  const oldWords = before.words
  const { words } = now
  const skip = beforeAt / 4
  const end = length / 4
  let w = i / 4
  for (; w + 4 <= end; w += 4) {
    const difference =
      (oldWords[skip + w]! ^ words[w]!) |
      (oldWords[skip + w + 1]! ^ words[w + 1]!) |
      (oldWords[skip + w + 2]! ^ words[w + 2]!) |
      (oldWords[skip + w + 3]! ^ words[w + 3]!)
    if (difference !== 0) break
  }
  while (w < end && oldWords[skip + w] === words[w]) w++
  if (w === end) return length
  i = w * 4
  while (old[beforeAt + i] === bytes[i]) i++
  return i
}

/** Whether no byte of two words' exclusive-or is zero. */
function allDiffer(difference: number): boolean {
  return ((difference - 0x01010101) & ~difference & 0x80808080) === 0
}

function runSize(value: number): number {
  return value < 0x80 ? 1 : 2
}

function writeRun(into: Uint8Array, at: number, value: number): number {
  if (value < 0x80) {
    into[at] = value
    return at + 1
  }
  into[at] = (value & 0x7f) | 0x80
  into[at + 1] = value >> 7
  return at + 2
}

/**
 * Applies runs to a page in place.
 *
 * The runs are checked whole before the first byte of the page is changed.
 * Throws ERR_MULTIFD_PROTOCOL for a run out of place or one that leaves the page, and for runs that end too early.
 */
export function decodeXbzrle(runs: Uint8Array, page: Uint8Array): void {
  walk(runs, page.length, undefined)
  walk(runs, page.length, page)
}

function walk(runs: Uint8Array, pageSize: number, page: Uint8Array | undefined): void {
  let at = 0
  let position = 0
  const run = (): number => {
    const low = runs[at++]
    if (low === undefined) throw protocolError('XBZRLE runs end inside a length')
    if (low < 0x80) return low
    const high = runs[at++]
    if (high === undefined) throw protocolError('XBZRLE runs end inside a length')
    if (high >= 0x80) throw protocolError(`XBZRLE length is above ${RUN_MAX}`)
    return (low & 0x7f) | (high << 7)
  }
  while (at < runs.length) {
    const first = at === 0
    const zrun = run()
    if (zrun === 0 && !first) throw protocolError('XBZRLE keeps 0 bytes after the start')
    const nzrun = run()
    if (nzrun === 0) throw protocolError('XBZRLE replaces 0 bytes')
    if (position + zrun + nzrun > pageSize) {
      throw protocolError(`XBZRLE reaches byte ${position + zrun + nzrun} of a page of ${pageSize}`)
    }
    if (at + nzrun > runs.length) throw protocolError('XBZRLE runs end inside their bytes')
    position += zrun
    if (page) page.set(runs.subarray(at, at + nzrun), position)
    position += nzrun
    at += nzrun
  }
}
