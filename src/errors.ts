// The one error class of the package, and its closed list of codes.

/** Every code a {@link MultifdError} can carry. Callers go by `code`, never by the text of the message. */
export const ERROR_CODES = [
  'ERR_MULTIFD_ABORTED', // cancelled by the caller
  'ERR_MULTIFD_ARGUMENT', // a parameter, option or URI of the caller's is not valid
  'ERR_MULTIFD_BARRIER', // a SYNC or a flush mark that does not fit the other side's
  'ERR_MULTIFD_BLOCK', // a RAM block that is unknown, missing, of another size, or not all there
  'ERR_MULTIFD_CHANNEL', // a channel's id is unknown, used twice, or out of range; or there are too many or too few
  'ERR_MULTIFD_CLOSED', // the peer closed a connection before it was due
  'ERR_MULTIFD_CONNECT', // the peer can not be reached
  'ERR_MULTIFD_DEVICE', // a device's state that can not be saved, or does not fit the device here
  'ERR_MULTIFD_FILE', // a file can not be opened, read, written or renamed
  'ERR_MULTIFD_INTERNAL', // a thread of ours ended without a word; a defect
  'ERR_MULTIFD_IO', // a system call on a connection failed
  'ERR_MULTIFD_LISTEN', // the address can not be listened on
  'ERR_MULTIFD_MACHINE', // the machine type, page size, capability set or uuid is not the one expected
  'ERR_MULTIFD_PROTOCOL', // bytes that are not this protocol, or a field out of range
  'ERR_MULTIFD_REMOTE', // the destination said that it failed
  'ERR_MULTIFD_SNAPSHOT', // a file that is not a snapshot, or a damaged one
  'ERR_MULTIFD_STATE', // not possible in the present state
  'ERR_MULTIFD_TIMEOUT', // nothing came, or nothing could be sent, for too long
  'ERR_MULTIFD_TLS', // credentials that are not valid, or a peer that is not who it must be, or does not take us
  'ERR_MULTIFD_TRUNCATED', // the input ends inside something
  'ERR_MULTIFD_UNSUPPORTED', // known by name, and not to be had here
] as const

/** One of {@link ERROR_CODES}. */
export type ErrorCode = (typeof ERROR_CODES)[number]

/** What a {@link MultifdError} may say besides its message. */
export interface ErrorDetails {
  /** The channel concerned: `main`, or a multifd channel's number. */
  channel?: 'main' | number | undefined
  /** The packet's number as the peer gave it. */
  packetNum?: number | undefined
  /** Linux's error number, positive. */
  errno?: number | undefined
  /** Its symbol, such as `ECONNRESET`. */
  errnoName?: string | undefined
  /** The system call that failed. */
  syscall?: string | undefined
  cause?: unknown
}

/** A {@link MultifdError} as a plain object: what crosses threads and goes into JSON. */
export interface PlainError extends Omit<ErrorDetails, 'cause'> {
  code: ErrorCode
  message: string
}

/** Every error that this package throws on purpose. */
export class MultifdError extends Error {
  override readonly name = 'MultifdError'
  readonly code: ErrorCode
  readonly channel: 'main' | number | undefined
  readonly packetNum: number | undefined
  readonly errno: number | undefined
  readonly errnoName: string | undefined
  readonly syscall: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined)
    this.code = code
    this.channel = details.channel
    this.packetNum = details.packetNum
    this.errno = details.errno
    this.errnoName = details.errnoName
    this.syscall = details.syscall
  }

  /** The same error with the channel named, if it was not already. */
  onChannel(channel: 'main' | number): MultifdError {
    if (this.channel !== undefined) return this
    const { code, packetNum, errno, errnoName, syscall, cause } = this
    return new MultifdError(code, this.message, { channel, packetNum, errno, errnoName, syscall, cause })
  }

  /** A plain object that survives structured clone with its code and fields. */
  toPlain(): PlainError {
    const { code, message, channel, packetNum, errno, errnoName, syscall } = this
    return { code, message, channel, packetNum, errno, errnoName, syscall }
  }

  static fromPlain(plain: PlainError): MultifdError {
    return new MultifdError(plain.code, plain.message, plain)
  }

  /** Any thrown value as a MultifdError; what was not one is a defect of ours and says so. */
  static from(thrown: unknown): MultifdError {
    if (thrown instanceof MultifdError) return thrown
    const text = thrown instanceof Error ? thrown.message : String(thrown)
    return new MultifdError('ERR_MULTIFD_INTERNAL', `internal error: ${text}`, { cause: thrown })
  }
}

/** What went wrong, in a line. */
export function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replaceAll(/\s*\n\s*/g, ' ')
}
