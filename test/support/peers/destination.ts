// A destination made by hand: takes what a source sends, and stops, hangs or answers when a test says so.

import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { MULTIFD_MAGIC } from '../../../src/wire/multifd-initial.js'
import { encodePong, encodeShut } from '../../../src/wire/return-path.js'
import { STREAM_MAGIC } from '../../../src/wire/stream.js'
import { written } from './stream.js'
import { PATIENCE_MS, Wire } from './wire.js'

const CHANNEL_ID_AT = 24
// How the stream of a program without devices ends.
const STREAM_TAIL = '"devices":[]}'

export class HandDestination {
  readonly #server: Server
  /** In the order of their arrival. */
  readonly connections: Wire[] = []

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket) => this.connections.push(new Wire(socket)))
  }

  /** @param path of a unix socket; tcp without it */
  static async listen(path?: string): Promise<HandDestination> {
    const server = createServer()
    const destination = new HandDestination(server)
    if (path === undefined) server.listen(0, '127.0.0.1')
    else server.listen(path)
    await once(server, 'listening')
    return destination
  }

  get uri(): string {
    const address = this.#server.address()
    return typeof address === 'string' ? `unix:${address}` : `tcp:127.0.0.1:${address?.port}`
  }

  /** The connection that came as number `at`, from 0. */
  async connection(at: number): Promise<Wire> {
    return await this.#find(`connection ${at}`, (wire) => wire === this.connections[at])
  }

  /** The main channel, once it said that it is it. */
  async main(): Promise<Wire> {
    return await this.#find('main channel', ({ head }) => magicOf(head) === STREAM_MAGIC)
  }

  /** A multifd channel, once its initial packet came. */
  async channel(id: number): Promise<Wire> {
    return await this.#find(
      `channel ${id}`,
      ({ head }) => magicOf(head) === MULTIFD_MAGIC && head[CHANNEL_ID_AT] === id,
    )
  }

  async #find(what: string, matches: (wire: Wire) => boolean): Promise<Wire> {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const found = this.connections.find(matches)
      if (found) return found
      if (performance.now() > deadline) throw new Error(`no ${what} within ${PATIENCE_MS} ms`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Resolves to the main channel once the whole stream came on it. */
  async wholeStream(): Promise<Wire> {
    const main = await this.main()
    await main.until(() => main.tail.toString('latin1').endsWith(STREAM_TAIL), 'the end of the stream')
    return main
  }

  /** Gives the word on a main channel: 0 for success. */
  static say(main: Wire, error: number): void {
    main.send(written((view, at) => encodeShut(view, at, error)))
  }

  static pong(main: Wire, value: number): void {
    main.send(written((view, at) => encodePong(view, at, value)))
  }

  /** Leaves nothing open, whatever the state. */
  async destroy(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

function magicOf(bytes: Buffer): number | undefined {
  return bytes.length >= 4 ? bytes.readUInt32BE(0) : undefined
}
