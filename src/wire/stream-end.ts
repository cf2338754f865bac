// Finds the end of a main stream whose device sections are not understood.
//
// What is looked for, in the bytes after the RAM END section:
//   offset  size  field
//   0       5     the last section's footer: 7e, be32 id
//   5       1     EOF: 00
//   6       5     VMDESCRIPTION: 06, be32 length
//   11      2     the JSON's first bytes: {"
//
// Device data may hold the same bytes by chance. A match is the end only if exactly as many bytes follow as it says,
// and they are a description; so each match is kept until more bytes came than it allows. A match with a huge length
// must not hide a later one: all are followed side by side.
//
// Without a description, a stream that was closed ends in a section's footer and EOF. One that stays open has no end to be found.

import { MultifdError } from '../errors.js'
import { protocolError } from './bytes.js'
import { FOOTER_SIZE, MAX_VMDESC_SIZE, SECTION } from './stream.js'
import { parseVmdesc, type Vmdesc } from './vmdesc.js'

const EOF_AT = FOOTER_SIZE
const VMDESC_AT = 6
const JSON_AT = 11
const MARK_SIZE = 13
const OPEN_BRACE = 0x7b
const QUOTE = 0x22

const FIRST_CAPACITY = 256 * 1024
const MAX_CANDIDATES = 64
/** Device state above this many bytes is refused, unless the caller says otherwise. */
export const DEFAULT_TAIL_LIMIT = 256 * 1024 * 1024

/** The end of a stream: offsets in the bytes after the RAM END section. */
export interface StreamEnd {
  /** Of the EOF byte. */
  eofAt: number
  /** Of the description's type byte; undefined when the stream has none. */
  vmdescAt: number | undefined
  /** After the last byte. */
  end: number
  vmdesc: Vmdesc | undefined
}

/** A place that looks like the end. */
interface Candidate {
  eofAt: number
  /** How long the stream is if this is the end. */
  end: number
}

/** Collects the bytes after the RAM END section of a stream that may stay open, and says when it is complete. */
export class StreamEndFinder {
  readonly #limit: number
  #bytes = new Uint8Array(FIRST_CAPACITY)
  #length = 0
  /** No match begins before this offset, other than the candidates. */
  #scanned = 0
  #candidates: Candidate[] = []

  /** @param limit the most bytes that are kept */
  constructor(limit = DEFAULT_TAIL_LIMIT) {
    this.#limit = limit
  }

  /** All bytes so far: a view, good until the next push. */
  get tail(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /**
   * Takes more bytes, by copying them.
   * @returns the end, when the bytes so far are a complete stream. If more bytes come after all, or walkDeviceSections
   * does not land on it, it was none: pushing what comes continues the search
   * Throws ERR_MULTIFD_PROTOCOL above the limit, or when absurdly many places look like the end.
   */
  push(chunk: Uint8Array): StreamEnd | undefined {
    this.#append(chunk)
    const tail = this.tail
    for (;;) {
      const at = findMark(tail, this.#scanned)
      this.#scanned = at.next
      if (at.candidate === undefined) break
      this.#candidates.push(at.candidate)
      this.#candidates = this.#candidates.filter(({ end }) => end >= tail.length)
      if (this.#candidates.length > MAX_CANDIDATES) throw tooManyCandidates()
    }
    this.#candidates = this.#candidates.filter(({ end }) => end >= tail.length)
    for (const candidate of this.#candidates) {
      if (candidate.end !== tail.length) continue
      const end = verify(tail, candidate)
      if (end !== undefined) return end
    }
    return undefined
  }

  #append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length
    if (length > this.#limit) {
      throw protocolError(`device state has ${length} bytes and no end, expected at most ${this.#limit}`)
    }
    if (length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(length, Math.min(this.#limit, 2 * this.#bytes.length)))
      grown.set(this.tail)
      this.#bytes = grown
    }
    this.#bytes.set(chunk, this.#length)
    this.#length = length
  }
}

/**
 * Finds the end in the bytes after the RAM END section of a stream that has been closed.
 * Throws ERR_MULTIFD_TRUNCATED when they do not end as a stream does, ERR_MULTIFD_PROTOCOL when absurdly many places
 * look like the end.
 */
export function locateStreamEnd(tail: Uint8Array): StreamEnd {
  for (let from = 0, candidates = 0; ; ) {
    const at = findMark(tail, from)
    if (at.candidate === undefined) break
    if (at.candidate.end === tail.length) {
      const end = verify(tail, at.candidate)
      if (end !== undefined) return end
      if (++candidates > MAX_CANDIDATES) throw tooManyCandidates()
    }
    from = at.next
  }
  const eofAt = tail.length - 1
  if (tail[eofAt] === SECTION.eof && isFooter(tail, eofAt - FOOTER_SIZE)) {
    return { eofAt, vmdescAt: undefined, end: tail.length, vmdesc: undefined }
  }
  throw new MultifdError('ERR_MULTIFD_TRUNCATED', `the stream ends inside device state, after ${tail.length} bytes`)
}

/**
 * Whether what looks like a footer names a section that began before it; or is the first thing, as RAM's own is. Device
 * data that is cut off ends in such bytes now and then.
 */
function isFooter(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== SECTION.footer) return false
  if (at === 0) return true
  const id = readWord(bytes, at + 1)
  for (let from = 0; ; from++) {
    from = bytes.indexOf(SECTION.full, from)
    if (from === -1 || from >= at) return false
    if (readWord(bytes, from + 1) === id) return true
  }
}

function tooManyCandidates(): MultifdError {
  return protocolError(`device state has more than ${MAX_CANDIDATES} places that look like its end`)
}

/** The first candidate from `from` on, and where to look for the next. */
function findMark(bytes: Uint8Array, from: number): { candidate: Candidate | undefined; next: number } {
  for (let at = from; ; at++) {
    at = bytes.indexOf(SECTION.footer, at)
    if (at === -1) return { candidate: undefined, next: bytes.length }
    // What can not be told yet is looked at again when there is more.
    if (at + MARK_SIZE > bytes.length) return { candidate: undefined, next: at }
    if (bytes[at + EOF_AT] !== SECTION.eof || bytes[at + VMDESC_AT] !== SECTION.vmdesc) continue
    if (bytes[at + JSON_AT] !== OPEN_BRACE || bytes[at + JSON_AT + 1] !== QUOTE) continue
    const length = readWord(bytes, at + VMDESC_AT + 1)
    if (length < 2 || length > MAX_VMDESC_SIZE) continue
    return { candidate: { eofAt: at + EOF_AT, end: at + JSON_AT + length }, next: at + 1 }
  }
}

function readWord(bytes: Uint8Array, at: number): number {
  let length = 0
  for (let i = 0; i < 4; i++) length = length * 256 + (bytes[at + i] ?? 0)
  return length
}

/** The end, if the bytes of a candidate are a description. */
function verify(bytes: Uint8Array, { eofAt, end }: Candidate): StreamEnd | undefined {
  try {
    const vmdesc = parseVmdesc(bytes.subarray(eofAt - EOF_AT + JSON_AT, end))
    return { eofAt, vmdescAt: eofAt + 1, end, vmdesc }
  } catch (error) {
    // Not a description: a false match in device data. Anything else is a defect of ours.
    if (error instanceof MultifdError) return undefined
    throw error
  }
}
