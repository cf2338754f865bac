// RESP2, the protocol of Redis: requests taken apart, replies put together.
//
//   request   *<count>\r\n, and for each argument $<length>\r\n<bytes>\r\n; or a line of words ("inline")
//   reply     +<text>\r\n   -<error>\r\n   :<number>\r\n   $<length>\r\n<bytes>\r\n   $-1\r\n   *<count>\r\n …
//
// Source: redis.io, "Redis serialization protocol specification".

/** What a client may ask for; a request beyond it ends the connection. */
export const LIMITS = { arguments: 65_536, bulkBytes: 2 ** 20, requestBytes: 16 * 2 ** 20, lineBytes: 65_536 } as const

const CR = 13
const LF = 10
const ASTERISK = 42
const DOLLAR = 36
const DIGIT_0 = 48
const DIGIT_9 = 57

/** A request that is none: the connection can not go on, for nobody knows where the next one begins. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Takes a connection's bytes, and gives whole requests. */
export class RequestParser {
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0

  push(chunk: Buffer): void {
    const rest = this.#bytes.subarray(this.#at)
    this.#bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    this.#at = 0
  }

  /**
   * The next request's arguments, or undefined until more has come. They are views, good until the next `push`.
   *
   * @throws ProtocolError
   */
  next(): Buffer[] | undefined {
    while (this.#at < this.#bytes.length) {
      const words = this.#bytes[this.#at] === ASTERISK ? this.#array() : this.#inline()
      if (!words) {
        if (this.#bytes.length - this.#at <= LIMITS.requestBytes) return undefined
        throw new ProtocolError('too big a request')
      }
      // An empty line or array asks for nothing.
      if (words.length > 0) return words
    }
    return undefined
  }

  #array(): Buffer[] | undefined {
    const head = this.#number(this.#at + 1, LIMITS.arguments, 'multibulk')
    if (!head) return undefined
    const words: Buffer[] = []
    let at = head.end
    while (words.length < head.value) {
      if (at >= this.#bytes.length) return undefined
      if (this.#bytes[at] !== DOLLAR) throw new ProtocolError("expected '$'")
      const bulk = this.#number(at + 1, LIMITS.bulkBytes, 'bulk')
      if (!bulk || bulk.end + bulk.value + 2 > this.#bytes.length) return undefined
      const end = bulk.end + bulk.value
      if (this.#bytes[end] !== CR || this.#bytes[end + 1] !== LF) throw new ProtocolError('a bulk of another length')
      words.push(this.#bytes.subarray(bulk.end, end))
      at = end + 2
    }
    this.#at = at
    return words
  }

  #inline(): Buffer[] | undefined {
    const end = this.#bytes.indexOf(LF, this.#at)
    if ((end < 0 ? this.#bytes.length : end) - this.#at > LIMITS.lineBytes) {
      throw new ProtocolError('too big an inline request')
    }
    if (end < 0) return undefined
    const line = this.#bytes.toString('latin1', this.#at, end).trim()
    this.#at = end + 1
    return line === '' ? [] : line.split(/\s+/).map((word) => Buffer.from(word, 'latin1'))
  }

  // Digits and CRLF, nothing else.
  #number(from: number, most: number, what: string): { value: number; end: number } | undefined {
    let value = 0
    for (let at = from; at < this.#bytes.length; at++) {
      const byte = this.#bytes[at]!
      if (byte >= DIGIT_0 && byte <= DIGIT_9) {
        value = value * 10 + byte - DIGIT_0
        if (value > most) break
      } else if (byte === CR && at > from) {
        if (at + 1 === this.#bytes.length) return undefined
        if (this.#bytes[at + 1] !== LF) break
        return { value, end: at + 2 }
      } else break
      if (at + 1 === this.#bytes.length) return undefined
    }
    if (from >= this.#bytes.length) return undefined
    throw new ProtocolError(`invalid ${what} length`)
  }
}

const FIRST_ROOM = 4096

/** Replies of one turn, sent together. */
export class ReplyWriter {
  #bytes = Buffer.allocUnsafeSlow(FIRST_ROOM)
  #end = 0

  ok(): void {
    this.#text('+OK\r\n')
  }

  simple(text: string): void {
    this.#text(`+${text}\r\n`)
  }

  /** @param text with its kind in front, such as `ERR no such thing` */
  error(text: string): void {
    this.#text(`-${text.replace(/[\r\n]/g, ' ')}\r\n`)
  }

  integer(value: number): void {
    this.#text(`:${value}\r\n`)
  }

  bulk(value: Uint8Array | undefined): void {
    if (!value) {
      this.#text('$-1\r\n')
      return
    }
    this.#text(`$${value.length}\r\n`)
    this.#room(value.length)
    this.#bytes.set(value, this.#end)
    this.#end += value.length
    this.#text('\r\n')
  }

  array(count: number): void {
    this.#text(`*${count}\r\n`)
  }

  /** What was written, which is the caller's now; undefined where there is nothing. */
  take(): Buffer | undefined {
    if (this.#end === 0) return undefined
    const taken = this.#bytes.subarray(0, this.#end)
    this.#bytes = Buffer.allocUnsafeSlow(FIRST_ROOM)
    this.#end = 0
    return taken
  }

  #text(text: string): void {
    // Errors may quote what a client sent: three bytes a character at most.
    this.#room(3 * text.length)
    this.#end += this.#bytes.write(text, this.#end)
  }

  #room(bytes: number): void {
    if (this.#end + bytes <= this.#bytes.length) return
    const larger = Buffer.allocUnsafeSlow(2 * (this.#end + bytes))
    this.#bytes.copy(larger, 0, 0, this.#end)
    this.#bytes = larger
  }
}
