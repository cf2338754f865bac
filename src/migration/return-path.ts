// The source's end of the return path: what the destination says on the main connection.

import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { viewOf } from '../wire/bytes.js'
import { decodeReturnMessage, RETURN_HEADER_SIZE, RETURN_MESSAGE } from '../wire/return-path.js'

const READ_SIZE = 512

export class ReturnPath {
  readonly #main: Channel
  #pending = new Uint8Array()
  #succeeded = false
  #pong: number | undefined
  #acknowledged = false

  constructor(main: Channel) {
    this.#main = main
  }

  /** Whether the destination said that it has everything. */
  get succeeded(): boolean {
    return this.#succeeded
  }

  /** Whether its devices agree to the switchover. */
  get acknowledged(): boolean {
    return this.#acknowledged
  }

  /** The value of the last PONG. */
  get pong(): number | undefined {
    return this.#pong
  }

  /**
   * Reads what has come, without waiting.
   *
   * @throws MultifdError ERR_MULTIFD_REMOTE when the destination says that it failed, ERR_MULTIFD_CLOSED when it goes
   * without a word, ERR_MULTIFD_PROTOCOL for what may not come in precopy
   */
  poll(): void {
    for (;;) {
      let more: Uint8Array | undefined
      try {
        more = this.#main.readNow(READ_SIZE)
      } catch (cause) {
        if (this.#succeeded) return
        throw closed(cause)
      }
      if (more === undefined) return
      if (more.length === 0) {
        if (this.#succeeded) return
        throw closed(undefined)
      }
      this.#hear(more)
    }
  }

  /** Waits up to `timeoutMs` for more to come. */
  wait(timeoutMs: number): void {
    this.#main.waitReadable(timeoutMs)
  }

  #hear(more: Uint8Array): void {
    const bytes = new Uint8Array(this.#pending.length + more.length)
    bytes.set(this.#pending)
    bytes.set(more, this.#pending.length)
    let at = 0
    for (;;) {
      const message = decodeReturnMessage(viewOf(bytes), at, bytes.length - at)
      if (!message) break
      at += RETURN_HEADER_SIZE + message.length
      switch (message.type) {
        case RETURN_MESSAGE.shut:
          if (message.error !== 0) {
            const text = `the destination failed (it said ${message.error}); its own log has the reason`
            throw new MultifdError('ERR_MULTIFD_REMOTE', text, { channel: 'main' })
          }
          this.#succeeded = true
          break
        case RETURN_MESSAGE.pong:
          this.#pong = message.value
          break
        case RETURN_MESSAGE.switchoverAck:
          this.#acknowledged = true
          break
        default:
          throw new MultifdError('ERR_MULTIFD_PROTOCOL', `the destination sent message ${message.type} in precopy`)
      }
    }
    this.#pending = bytes.slice(at)
  }
}

function closed(cause: unknown): MultifdError {
  const text = 'the destination closed the main channel without a word: it failed, or its process died'
  return new MultifdError('ERR_MULTIFD_CLOSED', text, { channel: 'main', cause })
}
