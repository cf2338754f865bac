// A small QMP client: commands with their replies, and events that tests wait for.
import type { Socket } from 'node:net'
import { sendWithDescriptor } from './descriptors.js'

export type QmpArguments = Record<string, unknown>

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
}

/** What QEMU answered to a command it refused: `message` is QEMU's own text. */
export class QmpError extends Error {
  override readonly name = 'QmpError'
  readonly command: string
  /** GenericError, CommandNotFound and the like. */
  readonly errorClass: string

  constructor(command: string, errorClass: string, description: string) {
    super(description)
    this.command = command
    this.errorClass = errorClass
  }
}

interface Call {
  name: string
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}

interface Waiter {
  accepts: (event: QmpEvent) => boolean
  resolve: (event: QmpEvent) => void
  reject: (error: Error) => void
}

interface Message {
  QMP?: unknown
  return?: unknown
  error?: { class: string; desc: string }
  id?: number
  event?: string
  data?: Record<string, unknown>
}

export class QmpClient {
  /** Every event so far, in order. */
  readonly events: QmpEvent[] = []
  readonly #socket: Socket
  readonly #calls = new Map<number, Call>()
  readonly #waiters = new Set<Waiter>()
  readonly #greeted: Promise<void>
  #greet: () => void = () => {}
  #refuse: (error: Error) => void = () => {}
  #text = ''
  #lastId = 0
  #failure: Error | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    this.#greeted = new Promise((resolve, reject) => {
      this.#greet = resolve
      this.#refuse = reject
    })
    this.#greeted.catch(() => {})
    socket.setEncoding('utf8')
    socket.on('data', (text) => this.#read(String(text)))
    socket.on('error', (error) => this.fail(error))
    socket.on('close', () => this.fail(new Error('the QMP connection was closed')))
  }

  /** Waits for the greeting and leaves capability negotiation. */
  async start(): Promise<void> {
    await this.#greeted
    await this.command('qmp_capabilities')
  }

  /**
   * Runs one command. Rejects with QmpError when QEMU refuses it, with another error when the connection is lost.
   *
   * @param descriptor goes along with it, for getfd and add-fd
   */
  command<T = unknown>(name: string, args?: QmpArguments, descriptor?: number): Promise<T> {
    if (this.#failure) return Promise.reject(this.#failure)
    const id = ++this.#lastId
    return new Promise<T>((resolve, reject) => {
      this.#calls.set(id, { name, resolve: resolve as (value: unknown) => void, reject })
      const line = `${JSON.stringify({ execute: name, id, ...(args && { arguments: args }) })}\n`
      if (descriptor === undefined) this.#socket.write(line)
      else sendWithDescriptor(this.#socket, line, descriptor)
    })
  }

  /** The next event of that name, from now on, that `predicate` accepts. */
  waitEvent(
    name: string,
    predicate: (data: Record<string, unknown>) => boolean = () => true,
    timeoutMs = 20_000,
  ): Promise<QmpEvent> {
    if (this.#failure) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
      }
      const waiter: Waiter = {
        accepts: ({ event, data }) => event === name && predicate(data),
        resolve: (event) => {
          settle()
          resolve(event)
        },
        reject: (error) => {
          settle()
          reject(error)
        },
      }
      const timer = setTimeout(
        () => waiter.reject(new Error(`no such ${name} event within ${timeoutMs} ms`)),
        timeoutMs,
      )
      this.#waiters.add(waiter)
    })
  }

  /** Ends everything that is under way with `error`, the first one given. */
  fail(error: Error): void {
    this.#failure ??= error
    this.#refuse(this.#failure)
    for (const call of this.#calls.values()) call.reject(this.#failure)
    this.#calls.clear()
    for (const waiter of [...this.#waiters]) waiter.reject(this.#failure)
    this.#socket.destroy()
  }

  #read(text: string): void {
    const lines = (this.#text + text).split('\n')
    this.#text = lines.pop() ?? ''
    for (const line of lines) {
      if (line.trim() === '') continue
      try {
        this.#take(JSON.parse(line) as Message)
      } catch (cause) {
        this.fail(new Error(`QMP sent what is not JSON: ${line}`, { cause }))
      }
    }
  }

  #take(message: Message): void {
    if (message.QMP !== undefined) this.#greet()
    else if (message.event !== undefined) this.#announce({ event: message.event, data: message.data ?? {} })
    else this.#reply(message)
  }

  #announce(event: QmpEvent): void {
    this.events.push(event)
    for (const waiter of [...this.#waiters]) if (waiter.accepts(event)) waiter.resolve(event)
  }

  #reply(message: Message): void {
    const call = this.#calls.get(message.id ?? -1)
    if (!call) return
    this.#calls.delete(message.id ?? -1)
    if (message.error) call.reject(new QmpError(call.name, message.error.class, message.error.desc))
    else call.resolve(message.return)
  }
}
