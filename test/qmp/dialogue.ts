// QMP dialogues between a program that drives and the two sides of a migration: what is sent, and all that is answered.

import { createConnection, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { QemuVersion } from '../support/qemu/index.js'

export type Side = 'source' | 'destination'

/** One step of a dialogue. Text goes out as it is; in it `$DIR` is a folder, and `$URI` where the destination listens. */
export type Step =
  | { to: Side; send: string | object }
  /** Asks with query-migrate until the status is this, and records the last answer. */
  | { to: Side; until: string }
  /** The same with query-dirty-rate. */
  | { to: Side; measured: true }
  | { to: Side; pause: number }

export interface Dialogue {
  name: string
  /** The first of the recorded versions that knows all of it. */
  since?: QemuVersion
  /** Whether there is a destination, which waits for migrate-incoming. */
  destination?: true
  /** Whether the source's program runs, so that there is something to stop. */
  running?: true
  /** What both sides agree to first. Default: qmp_capabilities without arguments. */
  negotiate?: false
  steps: Step[]
}

export interface Exchange {
  to: Side
  sent: unknown
  reply: unknown
}

export interface Recording {
  greeting: unknown
  exchanges: Exchange[]
  /** Name and data, in order; without timestamps. */
  events: Record<Side, { event: string; data?: unknown }[]>
}

interface Message {
  QMP?: unknown
  event?: string
  data?: unknown
  timestamp?: { seconds: number; microseconds: number }
  return?: unknown
}

/** A raw connection: lines out, and messages in, events apart from the rest. */
export class QmpLine {
  readonly events: { event: string; data?: unknown }[] = []
  readonly #socket: Socket
  readonly #messages: Message[] = []
  #wanted: ((message: Message) => void) | undefined
  #text = ''
  /** Everything that came, as it came. */
  raw = ''

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#hear(text))
    socket.on('error', () => {})
  }

  static async connect(where: string | { host: string; port: number }): Promise<QmpLine> {
    const socket = typeof where === 'string' ? createConnection(where) : createConnection(where)
    const line = new QmpLine(socket)
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return line
  }

  send(text: string | Uint8Array): void {
    this.#socket.write(text)
  }

  /** The next message that is no event. */
  async next(timeoutMs = 20_000): Promise<Message> {
    const message = this.#messages.shift()
    if (message) return message
    return await new Promise<Message>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no message within ${timeoutMs} ms`)), timeoutMs)
      this.#wanted = (wanted) => {
        clearTimeout(timer)
        resolve(wanted)
      }
    })
  }

  async ask(request: string | object): Promise<Message> {
    this.send(typeof request === 'string' ? request : `${JSON.stringify(request)}\n`)
    return await this.next()
  }

  /** The value that a command returns. @throws Error when it is refused */
  async command<T = unknown>(execute: string, args?: object): Promise<T> {
    const message = await this.ask({ execute, ...(args && { arguments: args }) })
    if (!('return' in message)) throw new Error(`${execute}: ${JSON.stringify(message)}`)
    return message.return as T
  }

  async waitEvent(event: string, timeoutMs = 20_000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!this.events.some((known) => known.event === event)) {
      if (performance.now() > deadline) throw new Error(`no ${event} within ${timeoutMs} ms`)
      await sleep(5)
    }
  }

  get closed(): boolean {
    return this.#socket.closed
  }

  close(): void {
    this.#socket.destroy()
  }

  #hear(text: string): void {
    this.raw += text
    const lines = (this.#text + text).split('\n')
    this.#text = lines.pop()!
    for (const line of lines) {
      const message = JSON.parse(line) as Message
      if (message.event !== undefined) {
        const { event, data } = message
        this.events.push(data === undefined ? { event } : { event, data })
        continue
      }
      const wanted = this.#wanted
      this.#wanted = undefined
      if (wanted) wanted(message)
      else this.#messages.push(message)
    }
  }
}

/** Holds one dialogue with the two sides, and tells all that was said. */
export async function hold(
  dialogue: Dialogue,
  lines: Partial<Record<Side, QmpLine>>,
  folder: string,
): Promise<Recording> {
  const exchanges: Exchange[] = []
  const sides = Object.entries(lines) as [Side, QmpLine][]
  let greeting: unknown
  for (const [, line] of sides) {
    const { QMP } = await line.next()
    greeting ??= { QMP }
    if (dialogue.negotiate !== false) await line.command('qmp_capabilities')
  }
  let uri = ''
  const fill = (text: string): string => text.replaceAll('$DIR', folder).replaceAll('$URI', uri)
  for (const step of dialogue.steps) {
    const line = lines[step.to]!
    if ('pause' in step) {
      await sleep(step.pause)
    } else if ('send' in step) {
      const sent = typeof step.send === 'string' ? fill(step.send) : JSON.parse(fill(JSON.stringify(step.send)))
      const reply = await line.ask(sent)
      exchanges.push({ to: step.to, sent: step.send, reply })
      const execute = (step.send as { execute?: string }).execute
      if (execute === 'migrate-incoming' && 'return' in reply) uri = await listeningUri(line)
    } else {
      const execute = 'until' in step ? 'query-migrate' : 'query-dirty-rate'
      const wanted = 'until' in step ? step.until : 'measured'
      const reply = await waitStatus(line, execute, wanted)
      exchanges.push({ to: step.to, sent: { execute, until: wanted }, reply: { return: reply } })
    }
  }
  // What was said last may still be on its way.
  await sleep(50)
  const events = { source: lines.source?.events ?? [], destination: lines.destination?.events ?? [] }
  return { greeting, exchanges, events }
}

async function waitStatus(line: QmpLine, execute: string, wanted: string): Promise<unknown> {
  const deadline = performance.now() + 20_000
  for (;;) {
    const info = await line.command<{ status?: string }>(execute)
    if (info.status === wanted) return info
    if (performance.now() > deadline) throw new Error(`not '${wanted}' but ${JSON.stringify(info)}`)
    await sleep(5)
  }
}

async function listeningUri(line: QmpLine): Promise<string> {
  const { 'socket-address': [address] = [] } = await line.command<{ 'socket-address'?: Record<string, string>[] }>(
    'query-migrate',
  )
  return address?.['type'] === 'inet' ? `tcp:${address['host']}:${address['port']}` : `unix:${address?.['path']}`
}
