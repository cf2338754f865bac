// A QMP client: for programs and commands that look at a migration of another process, ours or a QEMU.

import { EventEmitter } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { MultifdError } from '../errors.js'
import { type MigrationUri, parseUri, type SocketUri } from '../io/uri.js'
import { QmpError, type QmpErrorClass } from './error.js'
import { JsonStream } from './json-stream.js'

export interface QmpGreeting {
  version: { qemu: { major: number; minor: number; micro: number }; package: string }
}

interface Message {
  QMP?: QmpGreeting
  return?: unknown
  error?: { class: QmpErrorClass; desc: string }
  event?: string
  data?: object
}

interface Waiting {
  resolve(message: Message): void
  reject(error: Error): void
}

export interface QmpClientOptions {
  /** Longest wait for the connection, and for each answer, ms. Default 10,000. */
  timeoutMs?: number
  signal?: AbortSignal
}

const TIMEOUT_MS = 10_000

/** Emits `event`, and `close` once nothing more comes. */
export class QmpClient extends EventEmitter<{ event: [name: string, data: object]; close: [] }> {
  /** Whether the other side is this machine: over a unix socket, or the loopback. */
  readonly local: boolean
  readonly #socket: Socket
  readonly #timeoutMs: number
  // Answers come in the order of what they answer.
  readonly #waiting: Waiting[] = []
  readonly #greeted: Promise<QmpGreeting>
  #greeting: QmpGreeting | undefined
  #failure: MultifdError | undefined

  private constructor(socket: Socket, local: boolean, timeoutMs: number) {
    super()
    this.local = local
    this.#socket = socket
    this.#timeoutMs = timeoutMs
    this.#greeted = this.#next('greeting').then(checkGreeting)
    const stream = new JsonStream({
      value: (value) => this.#hear(value as Message),
      error: (reason) => this.#fail(notQmp(reason)),
    })
    socket.on('data', (chunk: Buffer) => stream.push(chunk))
    socket.on('error', (cause) => this.#fail(new MultifdError('ERR_MULTIFD_IO', `QMP: ${cause.message}`, { cause })))
    socket.on('close', () => {
      this.#fail(new MultifdError('ERR_MULTIFD_CLOSED', 'the QMP connection was closed'))
      this.emit('close')
    })
  }

  /**
   * Connects, and leaves the negotiation.
   *
   * @param where `unix:PATH`, `tcp:HOST:PORT`, or the path of a socket
   * @throws MultifdError ERR_MULTIFD_CONNECT, ERR_MULTIFD_ARGUMENT; ERR_MULTIFD_PROTOCOL or ERR_MULTIFD_TIMEOUT when it is no QMP
   * that answers there; ERR_MULTIFD_ABORTED
   */
  static async connect(where: string, { timeoutMs = TIMEOUT_MS, signal }: QmpClientOptions = {}): Promise<QmpClient> {
    const uri = uriOf(where)
    const socket = createConnection(
      uri.transport === 'unix' ? { path: uri.path } : { host: uri.host || '127.0.0.1', port: uri.port },
    )
    const local = uri.transport === 'unix' || ['', 'localhost', '127.0.0.1', '::1'].includes(uri.host)
    const client = new QmpClient(socket, local, timeoutMs)
    const abort = (): void => {
      client.#fail(new MultifdError('ERR_MULTIFD_ABORTED', 'it was cancelled', { cause: signal!.reason }))
    }
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted) abort()
    let connected = false
    socket.once('connect', () => {
      connected = true
    })
    try {
      client.#greeting = await client.#greeted
      await client.command('qmp_capabilities')
      return client
    } catch (error) {
      client.close()
      if (connected || (error as MultifdError).code !== 'ERR_MULTIFD_IO') throw error
      const { code } = (error as MultifdError).cause as NodeJS.ErrnoException
      throw new MultifdError('ERR_MULTIFD_CONNECT', `${where}: ${code}`, { errnoName: code, cause: error })
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** The other side's version: QEMU's, and whose QMP it is. */
  get version(): QmpGreeting['version'] {
    return this.#greeting!.version
  }

  /**
   * Runs a command.
   *
   * @throws QmpError when it is refused; MultifdError ERR_MULTIFD_CLOSED, ERR_MULTIFD_IO, ERR_MULTIFD_PROTOCOL, ERR_MULTIFD_TIMEOUT
   */
  async command<T = unknown>(name: string, given?: object): Promise<T> {
    const answer = this.#next(name)
    if (!this.#failure) this.#socket.write(`${JSON.stringify({ execute: name, ...(given && { arguments: given }) })}\n`)
    const { error, return: value } = await answer
    if (error) throw new QmpError(error.desc, error.class)
    return value as T
  }

  close(): void {
    this.#socket.destroy()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #next(what: string): Promise<Message> {
    if (this.#failure) return Promise.reject(this.#failure)
    return new Promise<Message>((resolve, reject) => {
      const late = new MultifdError('ERR_MULTIFD_TIMEOUT', `QMP: no answer to ${what}`)
      const timer = setTimeout(() => this.#fail(late), this.#timeoutMs)
      this.#waiting.push({
        resolve(message) {
          clearTimeout(timer)
          resolve(message)
        },
        reject(error) {
          clearTimeout(timer)
          reject(error)
        },
      })
    })
  }

  #hear(message: Message): void {
    if (typeof message !== 'object' || message === null) this.#fail(notQmp())
    else if (message.event !== undefined) this.emit('event', message.event, message.data ?? {})
    else if (['QMP', 'return', 'error'].some((member) => member in message)) this.#waiting.shift()?.resolve(message)
    else this.#fail(notQmp())
  }

  #fail(error: MultifdError): void {
    this.#failure ??= error
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure)
    this.#socket.destroy()
  }
}

/** @throws MultifdError ERR_MULTIFD_PROTOCOL */
function checkGreeting({ QMP }: Message): QmpGreeting {
  const { qemu, package: name } = QMP?.version ?? {}
  if ([qemu?.major, qemu?.minor, qemu?.micro].every(Number.isInteger) && typeof name === 'string') return QMP!
  throw notQmp('its greeting is another one')
}

function notQmp(reason?: string): MultifdError {
  return new MultifdError('ERR_MULTIFD_PROTOCOL', `what answers is no QMP${reason === undefined ? '' : `: ${reason}`}`)
}

function uriOf(where: string): SocketUri {
  const uri: MigrationUri = /^(tcp|unix|fd|file):/.test(where) ? parseUri(where) : { transport: 'unix', path: where }
  if (uri.transport !== 'tcp' && uri.transport !== 'unix')
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'QMP is at unix:PATH or tcp:HOST:PORT')
  return uri
}
