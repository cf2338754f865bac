// The demo's two helpers as the source sees them: the destination process and the writing thread.

import { type ChildProcess, fork } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { MultifdError } from '../../errors.js'
import type { RamBlock } from '../../ram/block.js'
import type { DestinationAnswer, DestinationOrder } from './destination.js'
import type { WriterAnswer, WriterOrder, WriterTask } from './writer.js'

const END_MS = 2000

/** The destination, a process of its own. */
export class DemoDestination {
  readonly #child: ChildProcess
  readonly #answers = new EventEmitter<{ answer: [DestinationAnswer] }>()
  readonly #exited: Promise<unknown>

  constructor(order: DestinationOrder) {
    this.#child = fork(new URL('../../../workers/demo-destination.js', import.meta.url), {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      execArgv: [],
    })
    this.#exited = once(this.#child, 'exit')
    this.#child.on('message', (answer: DestinationAnswer) => this.#answers.emit('answer', answer))
    this.#child.on('exit', (code, signal) => {
      const message = `the destination process ended early (${signal ?? code})`
      const error = new MultifdError('ERR_MULTIFD_INTERNAL', message).toPlain()
      this.#answers.emit('answer', { type: 'failed', error })
    })
    this.#child.send(order)
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** @throws MultifdError the destination's own error, ERR_MULTIFD_ABORTED */
  async uri(signal: AbortSignal): Promise<string> {
    return (await this.#expect('listening', signal)).uri
  }

  /** @throws as {@link uri} */
  async checksum(signal: AbortSignal): Promise<string> {
    return (await this.#expect('checksum', signal)).sha256
  }

  async close(): Promise<void> {
    // It ends by itself once nobody talks to it.
    if (this.#child.connected) this.#child.disconnect()
    await Promise.race([this.#exited, sleep(END_MS, undefined, { ref: false })])
    this.#child.kill('SIGKILL')
  }

  async #expect<T extends DestinationAnswer['type']>(
    type: T,
    signal: AbortSignal,
  ): Promise<Extract<DestinationAnswer, { type: T }>> {
    const [answer] = (await once(this.#answers, 'answer', { signal })) as [DestinationAnswer]
    if (answer.type === 'failed') throw MultifdError.fromPlain(answer.error)
    if (answer.type !== type) throw new MultifdError('ERR_MULTIFD_INTERNAL', `'${answer.type}' instead of '${type}'`)
    return answer as Extract<DestinationAnswer, { type: T }>
  }
}

/** The program that goes on writing, a thread of this process. */
export class DemoWriter {
  readonly #worker: Worker
  readonly #bytesPerSecond: number

  constructor(block: RamBlock, bytesPerSecond: number) {
    const task: WriterTask = { block: block.handle, bytesPerSecond }
    this.#bytesPerSecond = bytesPerSecond
    this.#worker = new Worker(new URL('../../../workers/demo-writer.js', import.meta.url), {
      workerData: task,
      execArgv: [],
    })
  }

  /** Waits until the memory is filled. */
  async filled(signal: AbortSignal): Promise<void> {
    await once(this.#worker, 'message', { signal })
  }

  start(): void {
    this.#order({ type: 'start' })
  }

  /** Takes so many percent of its rate from it. Returns what is left, bytes a second. */
  throttle(percentage: number): number {
    const bytesPerSecond = (this.#bytesPerSecond * (100 - percentage)) / 100
    this.#order({ type: 'rate', bytesPerSecond })
    return bytesPerSecond
  }

  /** After this nothing changes any more. Returns how many pages it wrote to, some of them several times. */
  async stop(): Promise<number> {
    const stopped = once(this.#worker, 'message') as Promise<[WriterAnswer]>
    this.#order({ type: 'stop' })
    const [answer] = await stopped
    return answer.type === 'stopped' ? answer.writes : 0
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }

  #order(order: WriterOrder): void {
    this.#worker.postMessage(order)
  }
}
