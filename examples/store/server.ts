// The store's clients: requests are run in the order they come, and what was run is answered, whatever happens next.
//
// Everything runs in the event loop's thread. Between two turns no request is half done, so `halt` is one word: what came
// before it was run and has its reply on the way, what comes after it waits, unanswered, for `resume` or for the other
// process.

import type { Socket } from 'node:net'
import { type Context, runRequest } from './commands.js'
import { ProtocolError, ReplyWriter, RequestParser } from './resp.js'
import type { Table } from './table.js'

/** A client that does not read its replies is not read from, beyond so many bytes. */
const UNSENT_MAX = 2 ** 20
/** How long a client that was told to go may take. */
const LEAVE_MS = 2000

export type ServerHooks = Pick<Context, 'info' | 'relocate'>

export class StoreServer {
  readonly #hooks: ServerHooks
  readonly #clients = new Set<Client>()
  #table: Table | undefined

  constructor(hooks: ServerHooks) {
    this.#hooks = hooks
  }

  get clients(): number {
    return this.#clients.size
  }

  /** Takes a connection, whose requests wait until the store runs. */
  adopt(socket: Socket): void {
    const client = new Client(socket, (requests) => this.#run(requests))
    this.#clients.add(client)
    socket.once('close', () => this.#clients.delete(client))
    if (!this.#table) client.wait()
  }

  /** Runs requests on this table from now on. */
  resume(table: Table): void {
    this.#table = table
    for (const client of this.#clients) client.goOn()
  }

  /** Runs nothing more: when this returns, the table does not change. */
  halt(): void {
    this.#table = undefined
    for (const client of this.#clients) client.wait()
  }

  /** Ends every connection. Replies on the way are delivered; requests that waited are never answered. */
  dismiss(): void {
    for (const client of this.#clients) client.dismiss()
  }

  // Everything whole that a client has sent, or nothing while the store stands still.
  #run(requests: RequestParser): Buffer | undefined {
    const table = this.#table
    if (!table) return undefined
    const reply = new ReplyWriter()
    const context: Context = { table, reply, ...this.#hooks }
    try {
      for (let request = requests.next(); request; request = requests.next()) runRequest(context, request)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      reply.error(`ERR Protocol error: ${error.message}`)
      throw Object.assign(error, { reply: reply.take() })
    }
    return reply.take()
  }
}

class Client {
  readonly #socket: Socket
  readonly #requests = new RequestParser()
  readonly #run: (requests: RequestParser) => Buffer | undefined
  #waits = false
  #dismissed = false

  constructor(socket: Socket, run: (requests: RequestParser) => Buffer | undefined) {
    this.#socket = socket
    this.#run = run
    socket.setNoDelay(true)
    // A client that breaks off is gone, which 'close' tells.
    socket.on('error', () => {})
    socket.on('data', (chunk) => this.#hear(chunk))
    socket.on('drain', () => this.#read())
    socket.on('end', () => socket.end())
  }

  wait(): void {
    if (this.#dismissed) return
    this.#waits = true
    this.#socket.pause()
  }

  goOn(): void {
    if (this.#dismissed) return
    this.#waits = false
    this.#answer()
    this.#read()
  }

  dismiss(): void {
    const socket = this.#socket
    this.#dismissed = true
    socket.end()
    // What still comes is read and dropped: closing over it would be a reset, which may overtake replies.
    socket.resume()
    setTimeout(() => socket.destroy(), LEAVE_MS).unref()
  }

  #hear(chunk: Buffer): void {
    if (this.#dismissed) return
    this.#requests.push(chunk)
    if (!this.#waits) this.#answer()
  }

  #answer(): void {
    try {
      this.#write(this.#run(this.#requests))
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#write((error as { reply?: Buffer }).reply)
      this.dismiss()
    }
  }

  #write(reply: Buffer | undefined): void {
    if (reply) this.#socket.write(reply)
    if (this.#socket.writableLength > UNSENT_MAX) this.#socket.pause()
  }

  #read(): void {
    if (!this.#waits && this.#socket.writableLength <= UNSENT_MAX) this.#socket.resume()
  }
}
