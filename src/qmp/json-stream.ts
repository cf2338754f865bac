// Takes a byte stream apart into JSON values, as QEMU does: a value may stretch over lines, strings may have single quotes,
// and byte 0xff, which no JSON has, begins anew.
//
// Whatever is no JSON is told once a line, and costs no more than MESSAGE_MAX bytes of memory.

import { oneLine } from '../errors.js'

/** Longest value, bytes. */
export const MESSAGE_MAX = 1024 * 1024
/** Deepest nesting. */
export const NESTING_MAX = 1024

const NEWLINE = 0x0a
const RESET = 0xff
const BACKSLASH = 0x5c
const DOUBLE = 0x22
const SINGLE = 0x27
const CLOSER: Record<number, number | undefined> = { 123: 0x7d, 91: 0x5d }
const CLOSERS = new Set([0x7d, 0x5d])
const SPACES = new Set([0x20, 0x09, 0x0d, NEWLINE])

export interface JsonListener {
  value(value: unknown): void
  /** What came is no JSON. */
  error(reason: string): void
}

export class JsonStream {
  readonly #listener: JsonListener
  #parts: Buffer[] = []
  #size = 0
  /** Where the line begins that the value stretches into, and what part of {@link #parts}; 0 in its first one. */
  #lineAt = 0
  #linePart = 0
  /** What closes the arrays and objects that are open. */
  readonly #closers: number[] = []
  #quote = 0
  #escaped = false
  /** Whether a word or number is under way outside of everything. */
  #bare = false
  /** Whether the rest of the line is dropped. */
  #skipping = false

  constructor(listener: JsonListener) {
    this.#listener = listener
  }

  push(chunk: Buffer): void {
    let from = 0
    const take = (end: number): void => {
      if (end > from) this.#keep(chunk.subarray(from, end))
      from = end
    }
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at]!
      if (byte === RESET) {
        this.#fail("JSON parse error, stray '\\xff'")
        this.#skipping = false
        from = at + 1
      } else if (this.#skipping) {
        if (byte === NEWLINE) this.#skipping = false
        from = at + 1
      } else if (this.#quote !== 0) {
        if (byte === NEWLINE) {
          this.#fail('JSON parse error, a string that does not end in its line')
          this.#skipping = false
          from = at + 1
        } else if (this.#escaped) this.#escaped = false
        else if (byte === BACKSLASH) this.#escaped = true
        else if (byte === this.#quote) {
          this.#quote = 0
          if (this.#closers.length === 0 && !this.#bare) {
            take(at + 1)
            this.#complete()
          }
        }
      } else if (byte === DOUBLE || byte === SINGLE) this.#quote = byte
      else if (CLOSER[byte] !== undefined) {
        if (this.#bare) {
          take(at)
          this.#complete()
          from = at
        }
        this.#closers.push(CLOSER[byte])
        if (this.#closers.length > NESTING_MAX) this.#fail('JSON nesting depth limit exceeded')
      } else if (CLOSERS.has(byte)) {
        if (this.#closers.pop() !== byte) this.#fail('JSON parse error, expecting value')
        else if (this.#closers.length === 0) {
          take(at + 1)
          this.#complete()
        }
      } else if (!SPACES.has(byte)) {
        if (this.#closers.length === 0) this.#bare = true
      } else if (this.#bare) {
        take(at)
        if (!this.#complete()) this.#skipping = byte !== NEWLINE
        from = at + 1
      } else if (this.#closers.length === 0) from = at + 1
      else if (byte === NEWLINE) {
        take(at + 1)
        this.#endLine()
      }
      if (this.#skipping) from = at + 1
    }
    take(chunk.length)
    if (this.#size > MESSAGE_MAX) this.#fail('JSON token size limit exceeded')
  }

  #keep(part: Buffer): void {
    if (this.#size + part.length > MESSAGE_MAX) this.#parts = []
    else this.#parts.push(Buffer.from(part))
    this.#size += part.length
  }

  #fail(reason: string): void {
    this.#reset()
    this.#skipping = true
    this.#listener.error(reason)
  }

  #reset(): void {
    this.#parts = []
    this.#size = 0
    this.#lineAt = 0
    this.#linePart = 0
    this.#closers.length = 0
    this.#quote = 0
    this.#escaped = false
    this.#bare = false
  }

  #complete(): boolean {
    const tooLong = this.#size > MESSAGE_MAX
    const text = Buffer.concat(this.#parts).toString()
    this.#reset()
    if (tooLong) {
      this.#listener.error('JSON token size limit exceeded')
      return false
    }
    let value: unknown
    try {
      value = parse(text)
    } catch (error) {
      this.#listener.error(`JSON parse error, ${oneLine(error)}`)
      return false
    }
    this.#listener.value(value)
    return true
  }

  // A line that is a whole request by itself is no part of what was begun before it, and never ended.
  #endLine(): void {
    const lineAt = this.#lineAt
    const linePart = this.#linePart
    this.#lineAt = this.#size
    this.#linePart = this.#parts.length
    if (lineAt === 0 || this.#size > MESSAGE_MAX) return
    // The line alone: joining all that came, for each line, would take time with the square of it.
    const line = Buffer.concat(this.#parts.slice(linePart)).toString().trim()
    if (!/^\{.*\}$/.test(line)) return
    let value: unknown
    try {
      value = parse(line)
    } catch {
      return
    }
    if (!Object.hasOwn(value as object, 'execute') && !Object.hasOwn(value as object, 'exec-oob')) return
    this.#reset()
    this.#listener.error('JSON parse error, a value that does not end before the next request')
    this.#listener.value(value)
  }
}

const STRINGS = /"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'/g

function parse(text: string): unknown {
  if (!text.includes("'")) return JSON.parse(text)
  const double = (whole: string, single: string | undefined): string =>
    single === undefined ? whole : `"${single.replaceAll("\\'", "'").replaceAll('"', '\\"')}"`
  return JSON.parse(text.replace(STRINGS, double))
}
