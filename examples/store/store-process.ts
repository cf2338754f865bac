// One of the store's processes, as the supervisor sees it.

import { type ChildProcess, fork } from 'node:child_process'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Order, Settings, Word } from './messages.js'

type WordOf<T extends Word['type']> = Extract<Word, { type: T }>

interface Waiting {
  type: Word['type']
  resolve(word: never): void
  reject(error: Error): void
}

export class StoreProcess {
  readonly #child: ChildProcess
  #heard: Word[] = []
  #waiting: Waiting[] = []
  #end: string | undefined

  /** @param hooks.ended is told why, unless it was this side that ended it */
  constructor(settings: Settings, hooks: { relocate(): void; ended(reason: string): void }) {
    const path = fileURLToPath(new URL('./process.js', import.meta.url))
    const child = fork(path, [JSON.stringify(settings)], { stdio: ['ignore', 2, 'inherit', 'ipc'] })
    this.#child = child
    child.on('message', (word: Word) => {
      if (word.type === 'relocate') hooks.relocate()
      else this.#hear(word)
    })
    child.on('error', (error) => this.#hear({ type: 'failed', message: error.message }))
    child.on('exit', (code, signal) => {
      const expected = this.#end !== undefined
      this.#end ??= `process ${child.pid} ended (${signal ?? code})`
      for (const { reject } of this.#waiting.splice(0)) reject(new Error(this.#end))
      if (!expected) hooks.ended(this.#end)
    })
  }

  get pid(): number {
    return this.#child.pid!
  }

  order(order: Order): void {
    // Whether it has ended meanwhile, 'exit' says.
    if (this.#child.connected) this.#child.send(order, () => {})
  }

  /** Hands a client's connection over. */
  adopt(socket: Socket): void {
    const order: Order = { type: 'client' }
    if (!this.#child.connected) socket.destroy()
    else this.#child.send(order, socket, (error) => error && socket.destroy())
  }

  /** Waits for a word; what it says before that is for whoever waits for it. @throws Error when it fails or ends instead */
  async expect<T extends Word['type']>(type: T): Promise<WordOf<T>> {
    const at = this.#heard.findIndex((word) => word.type === type || word.type === 'failed')
    if (at < 0) {
      if (this.#end !== undefined) throw new Error(this.#end)
      return await new Promise((resolve, reject) => this.#waiting.push({ type, resolve, reject }))
    }
    const [word] = this.#heard.splice(at, 1)
    if (word!.type === 'failed') throw new Error(word!.message)
    return word as WordOf<T>
  }

  end(): void {
    this.#end ??= 'it was ended'
    this.#child.kill('SIGKILL')
  }

  #hear(word: Word): void {
    if (word.type === 'failed') {
      const waiting = this.#waiting.splice(0)
      for (const { reject } of waiting) reject(new Error(word.message))
      if (waiting.length > 0) return
    }
    const at = this.#waiting.findIndex(({ type }) => type === word.type)
    if (at < 0) this.#heard.push(word)
    else this.#waiting.splice(at, 1)[0]!.resolve(word as never)
  }
}
