// The store as a program that starts it sees it: its port, and its moves as they happen.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Move } from './messages.js'

export interface Moved extends Move {
  /** Process ids. */
  from: number
  to: number
}

type Event = { event: 'listening'; port: number } | ({ event: 'moved' } & Moved) | { event: 'failed'; message: string }

export class Store {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  /** @param options of main.ts, without dashes */
  constructor(options: Record<string, string>) {
    const main = fileURLToPath(new URL('./main.js', import.meta.url))
    const args = Object.entries({ port: '0', ...options }).flatMap(([name, value]) => [`--${name}`, value])
    // It ends when its standard input does: with this process, whatever ends that.
    this.#child = spawn(process.execPath, [main, '--json', ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface(this.#child.stdout!)[Symbol.asyncIterator]()
  }

  /** Of the supervisor. */
  get pid(): number {
    return this.#child.pid!
  }

  /** The next event, which must be of that name. @throws Error otherwise, and at the store's end */
  async expect<E extends Event['event']>(name: E): Promise<Extract<Event, { event: E }>> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('the store has ended')
    const event = JSON.parse(value) as Event
    if (event.event !== name) throw new Error(`'${name}' was expected: ${value}`)
    return event as Extract<Event, { event: E }>
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return
    this.#child.kill()
    await once(this.#child, 'exit')
  }
}
