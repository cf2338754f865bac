// Child processes of Node that answer calls: the parent's end and the child's.

import { type ChildProcess, fork } from 'node:child_process'
import { onProcessEnd } from '../test/support/qemu/cleanup.js'
import { STEP_MS } from './pairing.js'

/** An interface of functions of at most one argument. Argument and result cross as JSON. */
type Calls<C> = { [K in keyof C]: (argument: never) => unknown }
type Argument<F> = F extends (argument: infer A) => unknown ? A : never
type Result<F> = F extends (argument: never) => infer R ? Awaited<R> : never

interface Question {
  id: number
  name: string
  argument: unknown
}

interface Answer {
  id: number
  result?: unknown
  error?: string
}

interface Event {
  event: 'set-up'
}

interface Waiting {
  resolve(result: unknown): void
  reject(error: Error): void
}

/** A child process that runs a file of bench/processes and serves `C`. */
export class Child<C extends Calls<C>> {
  readonly #process: ChildProcess
  readonly #waiting = new Map<number, Waiting>()
  readonly #untrack: () => void
  readonly #ended: Promise<void>
  /** Called when the child says that it is set up: see {@link tellSetUp}. */
  onSetUp = (): void => {}
  #ids = 0
  #end: string | undefined

  constructor(name: string) {
    const child = fork(new URL(`./processes/${name}.js`, import.meta.url), { stdio: ['ignore', 2, 'inherit', 'ipc'] })
    this.#process = child
    this.#untrack = onProcessEnd(() => child.kill('SIGKILL'))
    child.on('message', (message) => this.#hear(message as Answer | Event))
    this.#ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#end = `${name} ended (${signal ?? code})`
        for (const { reject } of this.#waiting.values()) reject(new Error(this.#end))
        resolve()
      })
    })
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** Calls a function of the child; rejects when that throws, when the child ends, or after {@link STEP_MS}. */
  call<K extends keyof C & string>(name: K, argument: Argument<C[K]>): Promise<Result<C[K]>> {
    const id = ++this.#ids
    return new Promise((resolve, reject) => {
      if (this.#end !== undefined) return reject(new Error(this.#end))
      const timer = setTimeout(() => settle().reject(new Error(`${name}: no answer for ${STEP_MS} ms`)), STEP_MS)
      const settle = (): Waiting => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        return { resolve: (result) => resolve(result as Result<C[K]>), reject }
      }
      this.#waiting.set(id, {
        resolve: (result) => settle().resolve(result),
        reject: (error) => settle().reject(error),
      })
      const question: Question = { id, name, argument }
      this.#process.send(question)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#ended
    this.#untrack()
  }

  #hear(message: Answer | Event): void {
    if ('event' in message) {
      this.onSetUp()
      return
    }
    const { id, result, error } = message
    const waiting = this.#waiting.get(id)
    if (error === undefined) waiting?.resolve(result)
    else waiting?.reject(new Error(error))
  }
}

/** For a child that migrates: its set-up is over. */
export function tellSetUp(): void {
  const event: Event = { event: 'set-up' }
  process.send!(event)
}

/** Serves `calls` to the parent process, and ends with it. */
export function serve<C extends Calls<C>>(calls: C): void {
  process.on('disconnect', () => process.exit())
  // Ctrl-C reaches the whole group: the parent is the one who acts on it.
  process.on('SIGINT', () => {})
  process.on('message', async ({ id, name, argument }: Question) => {
    let answer: Answer
    try {
      answer = { id, result: await calls[name as keyof C](argument as never) }
    } catch (error) {
      answer = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
    }
    process.send!(answer)
  })
}
