// Finding out what each incoming connection is: by its first bytes, and not by the order of arrival.

import { MultifdError } from '../errors.js'
import { acceptOne, closeDescriptor, POLL, pollDescriptors, receiveNow } from '../os/socket.js'
import { viewOf } from '../wire/bytes.js'
import { decodeInitialPacket, INITIAL_PACKET_SIZE, MULTIFD_MAGIC } from '../wire/multifd-initial.js'
import { STREAM_MAGIC } from '../wire/stream.js'
import { nameChannels } from './coordinator.js'

const LOOK_MS = 100
const MAGIC_SIZE = 4
const NO_UUID = '00000000-0000-0000-0000-000000000000'

export interface AcceptorOptions {
  /** The listening descriptor, non-blocking. */
  listener: number
  /** Multifd channels to come, 0 for none. */
  channels: number
  /** As text; checked when given. */
  uuid: string | undefined
  helloTimeoutMs: number
  /** Takes a descriptor over. */
  own(fd: number): number
  checkStopped(): void
}

interface Newcomer {
  fd: number
  since: number
  /** Bytes that had come at the last look. */
  heard: number
}

export class Acceptor {
  readonly #options: AcceptorOptions
  readonly #newcomers: Newcomer[] = []
  readonly #channels: (number | undefined)[]
  #main: number | undefined
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
   * @returns the descriptors; of the channels in the order of their ids, the initial packets read
   * @throws MultifdError ERR_MULTIFD_TIMEOUT, ERR_MULTIFD_CHANNEL, ERR_MULTIFD_MACHINE (another uuid),
   * ERR_MULTIFD_PROTOCOL (no migration), ERR_MULTIFD_CLOSED
   */
  collect(): { main: number; channels: number[] } {
    for (;;) {
      if (this.#main !== undefined && this.#missing.length === 0) {
        return { main: this.#main, channels: this.#channels as number[] }
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
    return this.#channels.flatMap((fd, id) => (fd === undefined ? [id] : []))
  }

  get #complete(): boolean {
    return this.#main !== undefined && this.#missing.length === 0
  }

  #look(timeoutMs: number): void {
    const listener = { fd: this.#options.listener, events: POLL.in }
    // Those that have spoken a part already would make poll return at once: they are looked at, not waited for.
    const silent = this.#newcomers.filter(({ heard }) => heard === 0)
    const waitMs = silent.length < this.#newcomers.length ? Math.min(timeoutMs, 10) : timeoutMs
    pollDescriptors([listener, ...silent.map(({ fd }) => ({ fd, events: POLL.in }))], waitMs)
    for (let fd = acceptOne(listener.fd); fd !== undefined; fd = acceptOne(listener.fd)) {
      this.#newcomers.push({ fd, since: performance.now(), heard: 0 })
      this.#lastArrival = performance.now()
    }
    for (const newcomer of [...this.#newcomers]) this.#classify(newcomer)
  }

  #classify(newcomer: Newcomer): void {
    const bytes = peek(newcomer.fd, INITIAL_PACKET_SIZE)
    if (bytes === undefined) return
    newcomer.heard = bytes.length
    if (bytes.length === 0) {
      this.#dismiss(newcomer)
      if (this.#complete) return
      throw new MultifdError('ERR_MULTIFD_CLOSED', 'a connection was closed before it said what it is')
    }
    if (bytes.length < MAGIC_SIZE) return
    const magic = viewOf(bytes).getUint32(0)
    if (magic === STREAM_MAGIC) this.#takeMain(newcomer)
    else if (magic === MULTIFD_MAGIC) {
      if (bytes.length < INITIAL_PACKET_SIZE) return
      this.#takeChannel(newcomer)
    } else {
      this.#dismiss(newcomer)
      if (this.#complete) return
      const text = [...bytes.subarray(0, MAGIC_SIZE)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
      const message = `a connection starts with ${text}: neither a main channel nor a multifd channel`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
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
    const packet = decodeInitialPacket(viewOf(receiveNow(newcomer.fd, INITIAL_PACKET_SIZE) ?? new Uint8Array()), 0)
    const { id } = packet
    const fd = this.#take(newcomer)
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
    this.#channels[id] = fd
    if (packet.uuid !== NO_UUID) this.uuid = packet.uuid
  }

  #take(newcomer: Newcomer): number {
    this.#newcomers.splice(this.#newcomers.indexOf(newcomer), 1)
    return this.#options.own(newcomer.fd)
  }

  #dismiss(newcomer: Newcomer): void {
    this.#newcomers.splice(this.#newcomers.indexOf(newcomer), 1)
    closeDescriptor(newcomer.fd)
  }

  #checkTimeouts(): void {
    const { helloTimeoutMs, channels } = this.#options
    const now = performance.now()
    for (const { since } of this.#newcomers) {
      if (now - since > helloTimeoutMs) {
        throw new MultifdError('ERR_MULTIFD_TIMEOUT', `a connection said nothing for ${helloTimeoutMs} ms`)
      }
    }
    if (this.#lastArrival === 0 || this.#newcomers.length > 0 || now - this.#lastArrival <= helloTimeoutMs) return
    const missing = this.#missing
    if (this.#main === undefined) {
      throw new MultifdError('ERR_MULTIFD_TIMEOUT', `the main channel did not come within ${helloTimeoutMs} ms`)
    }
    const who = nameChannels(channels, (id) => missing.includes(id))
    const message = `${who} did not come within ${helloTimeoutMs} ms: the source must have multifd on, and ${channels} channels`
    throw new MultifdError('ERR_MULTIFD_CHANNEL', message, { channel: missing[0] })
  }
}

// A connection that was reset ends like one that was closed: a stranger's must not fail the migration.
function peek(fd: number, length: number): Uint8Array | undefined {
  try {
    return receiveNow(fd, length, true)
  } catch (error) {
    if (error instanceof MultifdError) return new Uint8Array()
    throw error
  }
}
