// A process that carries packets between two interfaces of its own (TUN), and delays, loses and reorders them on the way: what
// `tc netem` does, for a kernel without it.

import { openSync, read, writeSync } from 'node:fs'
import { errno, errnoName, libc } from '../../../src/os/libc.js'
import { PinnedBuffer } from '../../../src/os/memory.js'
import { serve } from '../../support/calls.js'
import type { NetworkShape } from '../draw.js'
import { Random } from '../random.js'

// linux/if_tun.h: packets of IP, without a header of the device's own.
const TUNSETIFF = 0x400454ca
const IFF_TUN_WITHOUT_HEADER = 0x1001
const IFREQ_SIZE = 40
const IFREQ_FLAGS_AT = 16
const PACKET_MAX = 65536
// A packet that would wait longer than this for the line is dropped, as by a router whose buffer is full.
const BUFFER_MS = 200
const MILLION = 1_000_000

export interface LinkCounts {
  packets: number
  lost: number
  /** Passed on before one that came earlier. */
  overtook: number
}

interface Packet {
  number: number
  bytes: Buffer
  dueMs: number
}

const counts: LinkCounts = { packets: 0, lost: 0, overtook: 0 }

/** What both directions share. */
let shape: NetworkShape | undefined
let random = new Random(0)

/** One direction. */
class Direction {
  readonly #from: number
  readonly #to: number
  readonly #buffer = Buffer.alloc(PACKET_MAX)
  /** By the time at which they are due. */
  readonly #waiting: Packet[] = []
  #timer: NodeJS.Timeout | undefined
  #freeMs = 0
  #taken = 0
  #latest = 0

  constructor(from: number, to: number) {
    this.#from = from
    this.#to = to
    this.#read()
  }

  #read(): void {
    read(this.#from, this.#buffer, 0, PACKET_MAX, null, (error, length) => {
      if (error) throw error
      this.#take(length)
      this.#read()
    })
  }

  #take(length: number): void {
    const number = ++this.#taken
    counts.packets++
    const dueMs = this.#due(length)
    if (dueMs === undefined) {
      counts.lost++
      return
    }
    const packet = { number, bytes: Buffer.from(this.#buffer.subarray(0, length)), dueMs }
    let at = this.#waiting.length
    while (at > 0 && this.#waiting[at - 1]!.dueMs > dueMs) at--
    this.#waiting.splice(at, 0, packet)
    if (at === 0) this.#pass()
  }

  /** When it is to be passed on; undefined: never. */
  #due(bytes: number): number | undefined {
    const now = performance.now()
    if (!shape) return now
    const { delayMs, jitterMs, rate, lossPercent, reorderPercent } = shape
    const happens = (percent: number): boolean =>
      percent > 0 && random.whole(0, MILLION - 1) < percent * (MILLION / 100)
    if (happens(lossPercent)) return undefined
    const begins = Math.max(now, this.#freeMs)
    if (begins > now + BUFFER_MS) return undefined
    this.#freeMs = begins + (rate > 0 ? (bytes / rate) * 1000 : 0)
    // One that overtakes goes at once, as netem has it.
    if (happens(reorderPercent)) return now
    return this.#freeMs + delayMs + (jitterMs > 0 ? random.whole(-jitterMs * 1000, jitterMs * 1000) / 1000 : 0)
  }

  #pass(): void {
    clearTimeout(this.#timer)
    for (;;) {
      const first = this.#waiting[0]
      if (!first) return
      const leftMs = first.dueMs - performance.now()
      if (leftMs > 0) {
        this.#timer = setTimeout(() => this.#pass(), leftMs)
        return
      }
      this.#waiting.shift()
      if (first.number < this.#latest) counts.overtook++
      this.#latest = Math.max(this.#latest, first.number)
      this.#write(first.bytes)
    }
  }

  #write(bytes: Buffer): void {
    try {
      writeSync(this.#to, bytes)
    } catch (error) {
      // The other interface is not up yet, or has no room.
      if (!['EIO', 'ENOBUFS', 'EAGAIN'].includes((error as NodeJS.ErrnoException).code!)) throw error
      counts.lost++
    }
  }
}

function openInterface(name: string): number {
  const fd = openSync('/dev/net/tun', 'r+')
  const request = new PinnedBuffer(IFREQ_SIZE)
  request.bytes.set(new TextEncoder().encode(name))
  request.view.setUint16(IFREQ_FLAGS_AT, IFF_TUN_WITHOUT_HEADER, true)
  if (libc().ioctl(fd, TUNSETIFF, request.address) !== 0) throw new Error(`TUNSETIFF: ${errnoName(errno())}`)
  return fd
}

const calls = {
  /** Makes the two interfaces, which go with this process. */
  open(names: [string, string]): void {
    const [near, far] = names.map(openInterface)
    new Direction(near!, far!)
    new Direction(far!, near!)
  },

  /** What happens to packets from now on; null: nothing. */
  shape(to: { network: NetworkShape; seed: number } | null): void {
    shape = to?.network
    random = new Random(to?.seed ?? 0)
  },

  counts: (): LinkCounts => counts,
}

export type LinkCalls = typeof calls

// A thread that reads a packet can not be ended, and an exit in order would wait for it.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))
serve(calls)
