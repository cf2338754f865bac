// A process between source and destination that delays bytes, breaks them into odd pieces, throttles, and ends connections.

import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { serve } from '../../support/calls.js'
import type { Disturbance, NetworkShape } from '../draw.js'
import { Random } from '../random.js'

// What may be on its way at once in each direction of a connection, beside what the rate and the delay come to.
const WINDOW = 256 * 1024
const LEAST_WAIT_MS = 1

interface Task {
  /** Where the destination listens. */
  host: string
  port: number
  network: NetworkShape
  disturbance?: Disturbance
  seed: number
}

interface Piece {
  bytes: Buffer
  dueMs: number
}

/** What all connections share. */
class Link {
  readonly network: NetworkShape
  readonly random: Random
  readonly #disturbance: Extract<Disturbance, { kind: 'cut' | 'hang' }> | undefined
  readonly #pairs = new Set<[Socket, Socket]>()
  // When the line is free again, in each direction.
  readonly #free = [0, 0]
  #passed = 0
  hangs = false

  constructor({ network, disturbance, seed }: Task) {
    this.network = network
    this.random = new Random(seed)
    this.#disturbance = disturbance && !('side' in disturbance) ? disturbance : undefined
  }

  add(near: Socket, far: Socket): void {
    const pair: [Socket, Socket] = [near, far]
    this.#pairs.add(pair)
    for (const socket of pair) {
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => {
        near.destroy()
        far.destroy()
        this.#pairs.delete(pair)
      })
    }
    new Direction(this, near, far, 0)
    new Direction(this, far, near, 1)
  }

  /** When bytes that come now are to be passed on, ms. */
  due(bytes: number, way: 0 | 1): number {
    const now = performance.now()
    const { rate, delayMs, jitterMs } = this.network
    const begins = Math.max(now, this.#free[way]!)
    this.#free[way] = begins + (rate > 0 ? (bytes / rate) * 1000 : 0)
    return this.#free[way]! + delayMs + (jitterMs > 0 ? this.random.whole(0, jitterMs) : 0)
  }

  passes(bytes: number): void {
    this.#passed += bytes
    if (!this.#disturbance || this.#passed < this.#disturbance.afterBytes || this.hangs) return
    if (this.#disturbance.kind === 'hang') this.hangs = true
    else this.cut()
  }

  /** Ends every connection, in order or by a reset. */
  cut(): void {
    const reset = this.random.chance(50)
    for (const [near, far] of [...this.#pairs]) {
      for (const socket of [near, far]) {
        if (reset) socket.resetAndDestroy()
        else socket.destroy()
      }
    }
  }
}

/** One direction of one connection. */
class Direction {
  readonly #link: Link
  readonly #from: Socket
  readonly #to: Socket
  readonly #way: 0 | 1
  readonly #pieces: Piece[] = []
  #queued = 0
  #timer: NodeJS.Timeout | undefined
  #ended = false
  #last = 0

  constructor(link: Link, from: Socket, to: Socket, way: 0 | 1) {
    this.#link = link
    this.#from = from
    this.#to = to
    this.#way = way
    from.on('data', (bytes) => this.#take(bytes))
    from.on('end', () => {
      this.#ended = true
      this.#pass()
    })
    to.on('drain', () => this.#pass())
    to.on('connect', () => this.#pass())
  }

  #take(bytes: Buffer): void {
    const { fragments } = this.#link.network
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(bytes.length - at, this.#link.random.whole(1, fragments))
      // Jitter does not change the order of one connection's bytes.
      this.#last = Math.max(this.#last, this.#link.due(length, this.#way))
      this.#pieces.push({ bytes: bytes.subarray(at, at + length), dueMs: this.#last })
      at += length
    }
    this.#queued += bytes.length
    if (this.#queued > WINDOW) this.#from.pause()
    this.#pass()
  }

  #pass(): void {
    clearTimeout(this.#timer)
    const now = performance.now()
    while (!this.#link.hangs && this.#pieces.length > 0) {
      const { bytes, dueMs } = this.#pieces[0]!
      if (this.#to.destroyed || this.#to.connecting || this.#to.writableNeedDrain) return
      if (dueMs > now) {
        this.#timer = setTimeout(() => this.#pass(), Math.max(LEAST_WAIT_MS, dueMs - now))
        return
      }
      this.#pieces.shift()
      this.#queued -= bytes.length
      this.#to.write(bytes)
      this.#link.passes(bytes.length)
    }
    if (this.#link.hangs) return
    if (this.#ended) this.#to.end()
    else if (this.#queued < WINDOW) this.#from.resume()
  }
}

let server: Server | undefined
let link: Link | undefined

const calls = {
  /** Listens; returns the URI that leads to the destination. */
  async begin(task: Task): Promise<string> {
    await calls.end()
    const current = new Link(task)
    // Who ends a direction ends that one only.
    server = createServer({ allowHalfOpen: true }, (near) => {
      current.add(near, createConnection({ host: task.host, port: task.port, allowHalfOpen: true }))
    })
    link = current
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
    return `tcp:127.0.0.1:${(server.address() as { port: number }).port}`
  },

  async end(): Promise<void> {
    link?.cut()
    const closed = server
    server = undefined
    if (closed) await new Promise((resolve) => closed.close(resolve))
  },
}

export type ProxyCalls = typeof calls

serve(calls)
