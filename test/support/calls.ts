// Child processes of Node that answer calls: the parent's end and the child's.

import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { onProcessEnd } from './qemu/cleanup.js'

/** An interface of functions of at most one argument. Argument and result cross as JSON. */
export type Calls<C> = { [K in keyof C]: (argument: never) => unknown }
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

/** Something that a child says unasked. */
interface Event {
  event: string
}

interface Waiting {
  resolve(result: unknown): void
  reject(error: Error): void
}

export interface ChildOptions extends Pick<ForkOptions, 'stdio' | 'execPath' | 'execArgv' | 'env'> {
  /** Time within which a call must be answered. */
  patienceMs: number
}

/** A child process that runs a file and serves `C`. */
export class CallChild<C extends Calls<C>> {
  readonly name: string
  /** Resolves once the process has ended. */
  readonly ended: Promise<void>
  /** Called with what the child says unasked. */
  onEvent = (_event: string): void => {}
  readonly #process: ChildProcess
  readonly #patienceMs: number
  readonly #waiting = new Map<number, Waiting>()
  readonly #untrack: () => void
  #ids = 0
  #end: string | undefined

  /** @param name for messages */
  constructor(file: URL, name: string, { patienceMs, ...options }: ChildOptions) {
    const child = fork(file, { stdio: ['ignore', 2, 'inherit', 'ipc'], ...options })
    this.name = name
    this.#process = child
    this.#patienceMs = patienceMs
    this.#untrack = onProcessEnd(() => child.kill('SIGKILL'))
    child.on('message', (message) => this.#hear(message as Answer | Event))
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#end = `${name} ended (${signal ?? code})`
        for (const { reject } of this.#waiting.values()) reject(new Error(this.#end))
        this.#untrack()
        resolve()
      })
    })
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** How it ended, if it did. */
  get end(): string | undefined {
    return this.#end
  }

  /** Calls a function of the child; rejects when that throws, when the child ends, or when no answer comes. */
  call<K extends keyof C & string>(name: K, argument: Argument<C[K]>): Promise<Result<C[K]>> {
    const id = ++this.#ids
    return new Promise((resolve, reject) => {
      if (this.#end !== undefined) return reject(new Error(this.#end))
      const late = (): void => settle().reject(new Error(`${this.name}, ${name}: no answer for ${this.#patienceMs} ms`))
      const timer = setTimeout(late, this.#patienceMs)
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
      // Where it ends at this moment, `exit` says so.
      this.#process.send(question, () => {})
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.ended
  }

  #hear(message: Answer | Event): void {
    if ('event' in message) {
      this.onEvent(message.event)
      return
    }
    const { id, result, error } = message
    const waiting = this.#waiting.get(id)
    if (error === undefined) waiting?.resolve(result)
    else waiting?.reject(new Error(error))
  }
}

/** For a child: says something unasked. */
export function tell(event: string): void {
  process.send!({ event } satisfies Event)
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
