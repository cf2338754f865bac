// One connection: greeting, negotiation, requests in their order and out of band, events.

import type { Socket } from 'node:net'
import type { Logger } from '../log.js'
import { COMMANDS, type CommandContext, OUT_OF_BAND } from './commands.js'
import { QmpError } from './error.js'
import { JsonStream } from './json-stream.js'
import { type CommandName, checkArguments, isCommand } from './schema.js'

/** Requests that wait for their turn before no more are read. */
const QUEUE_MAX = 64
/** A client that does not read its replies is not read from beyond so many bytes, and let go beyond so many more. */
const UNSENT_MAX = 1024 * 1024
const UNSENT_LIMIT = 16 * 1024 * 1024

const MEMBERS = new Set(['execute', 'exec-oob', 'arguments', 'id'])

interface Request {
  name: string
  outOfBand: boolean
  given: object
  /** The member `id`, where it is there. */
  id: { id?: unknown }
}

export class Session {
  readonly #socket: Socket
  readonly #context: CommandContext
  readonly #logger: Logger
  /** Answers in the order of what they answer, errors of the form among them. */
  readonly #waiting: (() => Promise<void> | void)[] = []
  #busy = false
  #negotiated = false
  #oob = false

  constructor(socket: Socket, context: CommandContext, logger: Logger) {
    this.#socket = socket
    this.#context = context
    this.#logger = logger
    const stream = new JsonStream({
      value: (value) => this.#hear(value),
      error: (reason) => this.#enqueue(() => this.#refuse(new QmpError(reason), {})),
    })
    socket.on('data', (chunk: Buffer) => stream.push(chunk))
    socket.on('drain', () => this.#read())
    // A client that breaks off is gone, which 'close' tells.
    socket.on('error', () => {})
    this.#send({ QMP: { version: context.version, capabilities: ['oob'] } })
  }

  /** Tells an event, once the client has finished the negotiation. */
  tell(event: object): void {
    if (this.#negotiated) this.#send(event)
  }

  end(): void {
    this.#socket.end()
    // Whoever does not close its side is not waited for.
    this.#socket.destroySoon()
  }

  #hear(value: unknown): void {
    let id: { id?: unknown } = {}
    try {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new QmpError('QMP input must be a JSON object')
      }
      if (Object.hasOwn(value, 'id')) id = { id: (value as { id: unknown }).id }
      const request = requestOf(value as Record<string, unknown>, id)
      if (request.outOfBand && this.#oob) void this.#carryOut(request)
      else this.#enqueue(() => this.#carryOut(request))
    } catch (error) {
      this.#enqueue(() => this.#refuse(error, id))
    }
  }

  #enqueue(answer: () => Promise<void> | void): void {
    this.#waiting.push(answer)
    if (this.#waiting.length >= QUEUE_MAX) this.#socket.pause()
    void this.#work()
  }

  async #work(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    for (let answer = this.#waiting.shift(); answer; answer = this.#waiting.shift()) {
      await answer()
      this.#read()
    }
    this.#busy = false
  }

  async #carryOut(request: Request): Promise<void> {
    const { id } = request
    try {
      this.#send({ return: (await this.#run(request)) ?? {}, ...id })
    } catch (error) {
      this.#refuse(error, id)
    }
  }

  #run({ name, outOfBand, given }: Request): unknown {
    if (!this.#negotiated && name !== 'qmp_capabilities') {
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound')
    }
    if (!isCommand(name)) throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound')
    if (outOfBand && !this.#oob) throw new QmpError("QMP input member 'exec-oob' is unexpected")
    if (outOfBand && !OUT_OF_BAND.has(name)) throw new QmpError(`The command ${name} does not support OOB`)
    if (name === 'qmp_capabilities') return this.#negotiate(given)
    return (COMMANDS[name] as (context: CommandContext, given: unknown) => unknown)(
      this.#context,
      checkArguments<CommandName>(name, given),
    )
  }

  #negotiate(given: object): void {
    const { enable = [] } = checkArguments('qmp_capabilities', given)
    if (this.#negotiated) {
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound')
    }
    this.#negotiated = true
    this.#oob = enable.includes('oob')
  }

  #refuse(error: unknown, id: { id?: unknown }): void {
    const { message } = error as Error
    const errorClass = error instanceof QmpError ? error.errorClass : 'GenericError'
    this.#logger.debug({ class: errorClass }, `QMP: ${message}`)
    this.#send({ ...id, error: { class: errorClass, desc: message } })
  }

  #send(message: object): void {
    const socket = this.#socket
    if (socket.destroyed) return
    if (socket.writableLength > UNSENT_LIMIT) {
      socket.destroy()
      return
    }
    socket.write(`${JSON.stringify(message)}\r\n`)
    if (socket.writableLength > UNSENT_MAX) socket.pause()
  }

  #read(): void {
    if (this.#waiting.length < QUEUE_MAX && this.#socket.writableLength <= UNSENT_MAX) this.#socket.resume()
  }
}

/** @throws QmpError */
function requestOf(value: Record<string, unknown>, id: { id?: unknown }): Request {
  const extra = Object.keys(value).find((name) => !MEMBERS.has(name))
  if (extra !== undefined) throw new QmpError(`QMP input member '${extra}' is unexpected`)
  const outOfBand = Object.hasOwn(value, 'exec-oob')
  if (outOfBand && Object.hasOwn(value, 'execute')) {
    throw new QmpError("QMP input member 'execute' clashes with 'exec-oob'")
  }
  const member = outOfBand ? 'exec-oob' : 'execute'
  if (!Object.hasOwn(value, member)) throw new QmpError("QMP input lacks member 'execute'")
  const name = value[member]
  if (typeof name !== 'string') throw new QmpError(`QMP input member '${member}' must be a string`)
  const given = Object.hasOwn(value, 'arguments') ? value['arguments'] : {}
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new QmpError("QMP input member 'arguments' must be an object")
  }
  return { name, outOfBand, given, id }
}
