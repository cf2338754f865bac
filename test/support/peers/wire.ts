// One connection of a peer made by hand: sends any bytes, keeps what comes, and ends in every way there is.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

// What comes beyond this is counted and dropped: nobody looks at page data.
const KEEP_MAX = 1024 * 1024
const EDGE_SIZE = 64
// Longest wait for what must come: a busy machine may take its time.
export const PATIENCE_MS = 30_000

export class Wire {
  readonly socket: Socket
  /** Bytes received. */
  count = 0
  /** Whether the other side closed its end, or the connection is gone. */
  over = false
  readonly #parts: Buffer[] = []
  #kept = 0
  /** The first bytes received, up to 64. */
  head = Buffer.alloc(0)
  /** The last bytes received, up to 64. */
  tail = Buffer.alloc(0)
  #taken = 0
  #wake: (() => void)[] = []

  constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    // How a connection ends is looked at by `over`; a test breaks many on purpose.
    socket.on('error', () => {})
    socket.on('data', (part) => this.#hear(part))
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.over = true
        this.#notify()
      })
    }
  }

  /** Connects to `tcp:HOST:PORT` or `unix:PATH`. */
  static async to(uri: string): Promise<Wire> {
    const [, host, port] = /^tcp:(.*):(\d+)$/.exec(uri) ?? []
    const socket = host === undefined ? connect(uri.slice('unix:'.length)) : connect(Number(port), host)
    await once(socket, 'connect')
    return new Wire(socket)
  }

  #hear(part: Buffer): void {
    this.count += part.length
    if (this.#kept < KEEP_MAX) {
      this.#parts.push(part)
      this.#kept += part.length
    }
    if (this.head.length < EDGE_SIZE) this.head = Buffer.concat([this.head, part]).subarray(0, EDGE_SIZE)
    this.tail = Buffer.concat([this.tail, part.subarray(-EDGE_SIZE)]).subarray(-EDGE_SIZE)
    this.#notify()
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake()
  }

  /** The bytes received, up to about a megabyte. */
  get bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }

  /** Hands bytes to the kernel. */
  send(...parts: Uint8Array[]): void {
    if (this.socket.writable) this.socket.write(Buffer.concat(parts))
  }

  /** Resolves once `done`; rejects when the connection ends first, or after {@link PATIENCE_MS}. */
  async until(done: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS
    while (!done()) {
      if (this.over) throw new Error(`the connection ended before ${what}, after ${this.count} bytes`)
      if (performance.now() > deadline)
        throw new Error(`no ${what} within ${PATIENCE_MS} ms, after ${this.count} bytes`)
      await this.#change(100)
    }
  }

  async #change(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#wake.push(resolve)
      timer = setTimeout(resolve, timeoutMs)
    })
    clearTimeout(timer)
  }

  /** Resolves once so many bytes have come. */
  async received(count: number): Promise<void> {
    await this.until(() => this.count >= count, `${count} bytes`)
  }

  /** The next `length` bytes that were not taken yet. */
  async take(length: number): Promise<Buffer> {
    const end = this.#taken + length
    await this.received(end)
    const bytes = this.bytes.subarray(this.#taken, end)
    this.#taken = end
    return bytes
  }

  /** Resolves once the other side closed its end, or the connection is gone. */
  async ended(): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS
    while (!this.over) {
      if (performance.now() > deadline) throw new Error(`the other side did not close within ${PATIENCE_MS} ms`)
      await this.#change(100)
    }
  }

  /** Reads no more: the other side's writes come to rest once the buffers between are full. */
  stopReading(): void {
    this.socket.pause()
  }

  /** Ends the connection in order: what was sent arrives first. */
  close(): void {
    this.socket.end()
  }

  /** Ends it at once, with a reset on tcp. */
  reset(): void {
    // Node leaves a socket open for good that is to be reset while its end is under way.
    if (!this.socket.writableEnded && 'port' in this.socket.address()) this.socket.resetAndDestroy()
    else this.socket.destroy()
  }
}
