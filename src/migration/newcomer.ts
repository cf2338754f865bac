// An incoming connection until it has said what it is: nothing that it does or leaves undone holds anybody up.

import { MultifdError } from '../errors.js'
import { type Connection, closeConnection, makeConnection } from '../io/connection.js'
import { POLL, receiveNow, setNonBlocking } from '../os/socket.js'
import type { TlsContextHandle } from '../tls/context.js'
import { type HandshakeStep, handshakeStep, receiveTls } from '../tls/session.js'
import { INITIAL_PACKET_SIZE } from '../wire/multifd-initial.js'

export class Newcomer {
  readonly connection: Connection
  /** When it came, and once it is established, when that was. */
  since = performance.now()
  /** Bytes that had come at the last look, and are still to be taken. */
  heard = 0
  /** Whether it said that it is a multifd channel. */
  isChannel = false
  readonly #tls: TlsContextHandle | undefined
  #step: HandshakeStep
  #packet: Uint8Array = new Uint8Array()

  constructor(fd: number, tls: TlsContextHandle | undefined) {
    setNonBlocking(fd, true)
    this.connection = makeConnection(fd, tls)
    this.#tls = tls
    this.#step = tls ? 'read' : 'done'
  }

  /** Whether it is known who it is: with TLS, whether its handshake is over. */
  get established(): boolean {
    return this.#step === 'done'
  }

  /** What to poll it for. */
  get events(): number {
    return this.#step === 'write' ? POLL.out : POLL.in
  }

  /** Goes on with its handshake. @throws MultifdError ERR_MULTIFD_TLS for a peer that is not taken */
  establish(): void {
    if (!this.#tls || this.established) return
    this.#step = handshakeStep(this.connection.tls!.ssl, this.#tls)
    if (this.established) this.since = performance.now()
  }

  /** Looks at its first bytes; undefined when there are none yet, and empty at its end. */
  peek(length: number): Uint8Array | undefined {
    const bytes = this.#receive(length, true)
    this.heard = this.#tls ? 0 : (bytes?.length ?? 0)
    return bytes
  }

  /** Takes its initial packet; undefined as long as not all of it has come, and empty at its end. */
  takePacket(): Uint8Array | undefined {
    this.heard = 0
    const more = this.#receive(INITIAL_PACKET_SIZE - this.#packet.length, false)
    if (more === undefined || more.length === 0) return more
    this.#packet = Buffer.concat([this.#packet, more])
    return this.#packet.length === INITIAL_PACKET_SIZE ? this.#packet : undefined
  }

  close(): void {
    closeConnection(this.connection)
  }

  // A connection that was reset ends like one that was closed: a stranger's must not fail the migration.
  #receive(length: number, peek: boolean): Uint8Array | undefined {
    const { fd, tls } = this.connection
    try {
      return tls ? receiveTls(tls.ssl, length, peek) : receiveNow(fd, length, peek)
    } catch (error) {
      if (error instanceof MultifdError) return new Uint8Array()
      throw error
    }
  }
}
