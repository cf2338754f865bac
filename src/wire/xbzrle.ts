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

/**
 * Encodes the difference of two pages of the same length.
 *
 * @param before the page as the destination has it
 * @param room most bytes to write
 * @returns bytes written; 0 when nothing differs; -1 when there is no room: the page is better sent whole
 */
export function encodeXbzrle(before: Uint8Array, now: Uint8Array, into: Uint8Array, at: number, room: number): number {
  const { length } = now
  const end = at + room
  let out = at
  let i = 0
  while (i < length) {
    const zeroStart = i
    while (i < length && before[i] === now[i]) i++
    if (i === length) break
    const start = i
    while (i < length && before[i] !== now[i]) i++
    const zrun = start - zeroStart
    const nzrun = i - start
    if (out + 4 + nzrun > end) return -1
    out = writeRun(into, out, zrun)
    out = writeRun(into, out, nzrun)
    for (let k = start; k < i; k++) into[out++] = now[k]!
  }
  return out - at
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
