// The destination's end of the return path: what it says on the main connection, once the source has opened it.

import type { Channel } from '../io/channel.js'
import { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import { protocolError } from '../wire/bytes.js'
import { encodePong, encodeShut, encodeSwitchoverAck } from '../wire/return-path.js'
import type { Coordinator } from './coordinator.js'

const PEER_CLOSE_MS = 2000
const LOOK_MS = 10
const SUCCEEDED = 0
const FAILED = 1
const ROOM = 16

export class ReturnPathWriter {
  readonly #coordinator: Coordinator
  readonly #main: Channel
  readonly #packet = new PinnedBuffer(ROOM)
  readonly #vector = new IoVector(1)
  #opened = false
  #acknowledged = false

  constructor(coordinator: Coordinator, main: Channel) {
    this.#coordinator = coordinator
    this.#main = main
  }

  /** Whether the source listens: whatever is said before would only be in its way. */
  get opened(): boolean {
    return this.#opened
  }

  open(): void {
    this.#opened = true
  }

  /** @throws MultifdError ERR_MULTIFD_PROTOCOL before {@link open} */
  pong(value: number): void {
    if (!this.#opened) throw protocolError('PING without a return path')
    this.#say((view) => encodePong(view, 0, value))
  }

  /** Says that all devices agree to the switchover, if they do; once, and to a source that waits for it. */
  acknowledge(agreed: () => boolean): void {
    if (this.#acknowledged || !this.#opened || !this.#coordinator.parameters.switchoverAck || !agreed()) return
    this.#acknowledged = true
    this.#say((view) => encodeSwitchoverAck(view, 0))
  }

  /** Says that everything is there and kept. */
  succeed(): void {
    if (this.#opened) this.#say((view) => encodeShut(view, 0, SUCCEEDED))
  }

  /** Says that it is not, to a source that is there still. */
  fail(): void {
    if (!this.#opened) return
    try {
      this.#say((view) => encodeShut(view, 0, FAILED))
    } catch {
      // The source is gone as well.
    }
  }

  /** Lets the source close first: what it still sends would make our close a reset, and hide the word from it. */
  awaitClose(): void {
    if (!this.#opened) return
    const { shm } = this.#coordinator
    const deadline = performance.now() + PEER_CLOSE_MS
    while (performance.now() < deadline && !shm.stopped) {
      try {
        const rest = this.#main.readNow(512)
        if (rest?.length === 0) return
        if (rest === undefined) shm.coordinator.wait(LOOK_MS)
      } catch {
        return
      }
    }
  }

  #say(encode: (view: DataView) => number): void {
    this.#vector.reset()
    this.#vector.push({ address: this.#packet.address, size: ROOM }, 0, encode(this.#packet.view))
    this.#main.writeFull(this.#vector)
  }
}
