// Finding out what each incoming connection is: by its first bytes, and not by the order of arrival.

import { MultifdError } from '../errors.js'
import type { Connection } from '../io/connection.js'
import { acceptOne, POLL, pollDescriptors } from '../os/socket.js'
import type { TlsContextHandle } from '../tls/context.js'
import { viewOf } from '../wire/bytes.js'
import { decodeInitialPacket, MULTIFD_MAGIC } from '../wire/multifd-initial.js'
import { STREAM_MAGIC } from '../wire/stream.js'
import { nameChannels } from './coordinator.js'
import { Newcomer } from './newcomer.js'

const LOOK_MS = 100
const MAGIC_SIZE = 4
// Connections whose handshake is under way, more than any source opens at once without ending one.
const STRANGERS_MAX = 512
const NO_UUID = '00000000-0000-0000-0000-000000000000'

export interface AcceptorOptions {
  /** The listening descriptor, non-blocking. */
  listener: number
  /** Multifd channels to come, 0 for none. */
  channels: number
  /** As text; checked when given. */
  uuid: string | undefined
  helloTimeoutMs: number
  /** What connections are made of where they have TLS. Who is not let in by it is a stranger, and changes nothing. */
  tls?: TlsContextHandle | undefined
  /** Takes a connection over. */
  own(connection: Connection): Connection
  /** Tells of a stranger. */
  warn(text: string): void
  checkStopped(): void
}

export class Acceptor {
  readonly #options: AcceptorOptions
  readonly #newcomers: Newcomer[] = []
  readonly #channels: (Connection | undefined)[]
  #main: Connection | undefined
  #lastArrival = 0
  /** Of the initial packets, once one came; undefined when it is all zero. */
  uuid: string | undefined

  constructor(options: AcceptorOptions) {
    this.#options = options
    this.#channels = Array.from({ length: options.channels }, () => undefined)
  }

  /**
   * Waits until the main channel and every multifd channel are there, without limit for the first connection.
   *
   * @returns the connections; of the channels in the order of their ids, the initial packets read
   * @throws MultifdError ERR_MULTIFD_TIMEOUT, ERR_MULTIFD_CHANNEL, ERR_MULTIFD_MACHINE (another uuid),
   * ERR_MULTIFD_PROTOCOL (no migration), ERR_MULTIFD_CLOSED
   */
  collect(): { main: Connection; channels: Connection[] } {
    for (;;) {
      if (this.#main !== undefined && this.#missing.length === 0) {
        return { main: this.#main, channels: this.#channels as Connection[] }
      }
      this.#options.checkStopped()
      this.#look(LOOK_MS)
      this.#checkTimeouts()
    }
  }

  /**
   * Looks, without waiting, whether more connections came than were agreed on. One that is no migration's (a port scan)
   * is closed; a channel too many means that the two sides disagree, and that RAM would be missing.
   */
  checkExtra(): void {
    this.#look(0)
    const now = performance.now()
    for (const newcomer of [...this.#newcomers]) {
      if (now - newcomer.since > this.#options.helloTimeoutMs) this.#dismiss(newcomer)
    }
  }

  /** Closes what was never classified. */
  close(): void {
    for (const newcomer of [...this.#newcomers]) this.#dismiss(newcomer)
  }

  get #missing(): number[] {
    return this.#channels.flatMap((connection, id) => (connection === undefined ? [id] : []))
  }

  get #complete(): boolean {
    return this.#main !== undefined && this.#missing.length === 0
  }

  #look(timeoutMs: number): void {
    const listener = { fd: this.#options.listener, events: POLL.in }
    // Those that have spoken a part already would make poll return at once: they are looked at, not waited for.
    const silent = this.#newcomers.filter(({ heard }) => heard === 0)
    const waitMs = silent.length < this.#newcomers.length ? Math.min(timeoutMs, 10) : timeoutMs
    pollDescriptors([listener, ...silent.map(({ connection: { fd }, events }) => ({ fd, events }))], waitMs)
    for (let fd = acceptOne(listener.fd); fd !== undefined; fd = acceptOne(listener.fd)) {
      const newcomer = new Newcomer(fd, this.#options.tls)
      this.#newcomers.push(newcomer)
      if (newcomer.established) this.#lastArrival = newcomer.since
    }
    const strangers = this.#newcomers.filter(({ established }) => !established)
    const tooMany = strangers.slice(0, Math.max(0, strangers.length - STRANGERS_MAX))
    for (const stranger of tooMany) this.#refuse(stranger, `more than ${STRANGERS_MAX} are in their TLS handshake`)
    for (const newcomer of [...this.#newcomers]) if (this.#isKnown(newcomer)) this.#classify(newcomer)
  }

  // Whether its handshake is over. One that fails is a stranger's: it must not end the migration of those who may.
  #isKnown(newcomer: Newcomer): boolean {
    if (newcomer.established) return true
    try {
      newcomer.establish()
    } catch (error) {
      if (!(error instanceof MultifdError)) throw error
      this.#refuse(newcomer, error.message)
      return false
    }
    if (newcomer.established) this.#lastArrival = newcomer.since
    return newcomer.established
  }

  #refuse(newcomer: Newcomer, why: string): void {
    this.#dismiss(newcomer)
    this.#options.warn(`a connection was refused: ${why}`)
  }

  #classify(newcomer: Newcomer): void {
    if (newcomer.isChannel) {
      this.#takeChannel(newcomer)
      return
    }
    const bytes = newcomer.peek(MAGIC_SIZE)
    if (bytes === undefined || this.#isOver(newcomer, bytes) || bytes.length < MAGIC_SIZE) return
    const magic = viewOf(bytes).getUint32(0)
    if (magic === STREAM_MAGIC) this.#takeMain(newcomer)
    else if (magic === MULTIFD_MAGIC) {
      newcomer.isChannel = true
      this.#takeChannel(newcomer)
    } else {
      this.#dismiss(newcomer)
      if (this.#complete) return
      const text = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
      const message = `a connection starts with ${text}: neither a main channel nor a multifd channel`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
  }

  #isOver(newcomer: Newcomer, bytes: Uint8Array): boolean {
    if (bytes.length > 0) return false
    this.#dismiss(newcomer)
    if (this.#complete) return true
    const why = this.#options.tls ? '; with TLS, as by a source that does not take our certificate' : ''
    throw new MultifdError('ERR_MULTIFD_CLOSED', `a connection was closed before it said what it is${why}`)
  }

  #takeMain(newcomer: Newcomer): void {
    if (this.#main !== undefined) {
      this.#dismiss(newcomer)
      if (this.#complete) return
      throw new MultifdError('ERR_MULTIFD_CHANNEL', 'a second main channel: two sources at one destination')
    }
    this.#main = this.#take(newcomer)
  }

  #takeChannel(newcomer: Newcomer): void {
    const { channels, uuid } = this.#options
    const bytes = newcomer.takePacket()
    if (bytes === undefined || this.#isOver(newcomer, bytes)) return
    const packet = decodeInitialPacket(viewOf(bytes), 0)
    const { id } = packet
    const connection = this.#take(newcomer)
    if (channels === 0) {
      const message = `the source opened multifd channel ${id}, and multifd is off on this side`
      throw new MultifdError('ERR_MULTIFD_CHANNEL', message, { channel: id })
    }
    if (uuid !== undefined && packet.uuid !== uuid) {
      const message = `channel ${id}: uuid ${packet.uuid} is not the expected ${uuid}`
      throw new MultifdError('ERR_MULTIFD_MACHINE', message, { channel: id })
    }
    if (id >= channels) {
      const message = `channel id ${id} is out of range: this side has ${channels} channels, the source has more`
      throw new MultifdError('ERR_MULTIFD_CHANNEL', message, { channel: id })
    }
    if (this.#channels[id] !== undefined) {
      throw new MultifdError('ERR_MULTIFD_CHANNEL', `channel id ${id} is used twice`, { channel: id })
    }
    this.#channels[id] = connection
    if (packet.uuid !== NO_UUID) this.uuid = packet.uuid
  }

  #take(newcomer: Newcomer): Connection {
    this.#newcomers.splice(this.#newcomers.indexOf(newcomer), 1)
    return this.#options.own(newcomer.connection)
  }

  #dismiss(newcomer: Newcomer): void {
    this.#newcomers.splice(this.#newcomers.indexOf(newcomer), 1)
    newcomer.close()
  }

  #checkTimeouts(): void {
    const { helloTimeoutMs, channels } = this.#options
    const now = performance.now()
    for (const newcomer of [...this.#newcomers]) {
      if (now - newcomer.since <= helloTimeoutMs) continue
      if (!newcomer.established) this.#refuse(newcomer, `no TLS handshake within ${helloTimeoutMs} ms`)
      else {
        throw new MultifdError('ERR_MULTIFD_TIMEOUT', `a connection said nothing for ${helloTimeoutMs} ms`)
      }
    }
    if (
      this.#lastArrival === 0 ||
      this.#newcomers.some(({ established }) => established) ||
      now - this.#lastArrival <= helloTimeoutMs
    )
      return
    const missing = this.#missing
    if (this.#main === undefined) {
      throw new MultifdError('ERR_MULTIFD_TIMEOUT', `the main channel did not come within ${helloTimeoutMs} ms`)
    }
    const who = nameChannels(channels, (id) => missing.includes(id))
    const message = `${who} did not come within ${helloTimeoutMs} ms: the source must have multifd on, and ${channels} channels`
    throw new MultifdError('ERR_MULTIFD_CHANNEL', message, { channel: missing[0] })
  }
}
