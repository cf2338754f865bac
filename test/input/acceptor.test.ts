// Connections that say too little, or something else, at the place where a destination tells them apart.

import { writeSync } from 'node:fs'
import t, { type Test } from 'tap'
import { Acceptor } from '../../src/migration/acceptor.js'
import { libc } from '../../src/os/libc.js'
import {
  closeDescriptor,
  inetAddress,
  localPort,
  openListener,
  POLL,
  pollDescriptors,
  startConnect,
} from '../../src/os/socket.js'
import { encodeInitialPacket, INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { encodeStreamHeader } from '../../src/wire/stream.js'
import { INITIAL_ANATOMY } from './anatomy.js'
import { damage, seededRandom } from './random.js'
import { type Ending, endingOf, FULL, PEER_CODES, Tally } from './runs.js'

const MUTATIONS = FULL ? 5000 : 250
const HELLO_MS = 20
const MAGIC_SIZE = 4
const SOL_SOCKET = 1
const SO_LINGER = 13

const MAIN = new Uint8Array(8)
encodeStreamHeader(new DataView(MAIN.buffer), 0)

function initialPacket(id: number, uuid?: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(INITIAL_PACKET_SIZE)
  encodeInitialPacket(new DataView(bytes.buffer), 0, { uuid, id })
  return bytes
}

/** A destination that waits for connections, and the sources that connect to it. */
class Reception {
  readonly #listener = openListener(inetAddress('127.0.0.1', 0), 64)
  readonly #address = inetAddress('127.0.0.1', localPort(this.#listener))
  readonly #open: number[] = []
  readonly #owned: number[] = []
  readonly acceptor: Acceptor

  constructor(channels: number, uuid?: string) {
    this.acceptor = new Acceptor({
      listener: this.#listener,
      channels,
      uuid,
      helloTimeoutMs: HELLO_MS,
      own: (connection) => {
        this.#owned.push(connection.fd)
        return connection
      },
      warn: (text) => t.fail(text),
      checkStopped() {},
    })
  }

  /** Connects and says something; the descriptor stays open unless it is ended. */
  say(bytes: Uint8Array): number {
    const { fd } = startConnect(this.#address)
    pollDescriptors([{ fd, events: POLL.out }], 1000)
    if (bytes.length > 0) writeSync(fd, bytes)
    this.#open.push(fd)
    return fd
  }

  end(fd: number, how: 'close' | 'reset'): void {
    if (how === 'reset') libc().setsockopt(fd, SOL_SOCKET, SO_LINGER, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8)
    closeDescriptor(fd)
    this.#open.splice(this.#open.indexOf(fd), 1)
  }

  collect(): Ending {
    try {
      this.acceptor.collect()
      return { code: 'end' }
    } catch (thrown) {
      return endingOf(thrown)
    }
  }

  close(): void {
    this.acceptor.close()
    for (const fd of [this.#listener, ...this.#open, ...this.#owned]) closeDescriptor(fd)
  }
}

function reception(t: Test, channels: number, uuid?: string): Reception {
  const made = new Reception(channels, uuid)
  t.teardown(() => made.close())
  return made
}

t.test(
  'an initial packet that is cut at any byte is waited for, until its end and no longer than the time for it',
  async (t) => {
    const tally = new Tally()
    for (const ended of [false, true]) {
      for (let length = 0; length < INITIAL_PACKET_SIZE; length++) {
        const destination = new Reception(1)
        destination.say(MAIN)
        const fd = destination.say(initialPacket(0).subarray(0, length))
        if (ended) destination.end(fd, 'close')
        // Of fewer bytes it is not known what they are: they are looked at and not taken, and an end behind them is not seen.
        const seen = ended && (length === 0 || length >= MAGIC_SIZE)
        const expected = seen ? 'ERR_MULTIFD_CLOSED' : 'ERR_MULTIFD_TIMEOUT'
        tally.run(
          () => destination.collect(),
          expected,
          () => `${length} bytes, ${ended ? 'closed' : 'silent'}`,
        )
        destination.close()
      }
    }
    t.comment(tally.summary)
    t.same(tally.problems, [])
  },
)

t.test('a main channel that is cut inside its magic is waited for in the same way', async (t) => {
  for (let length = 0; length < 4; length++) {
    const destination = new Reception(0)
    destination.say(MAIN.subarray(0, length))
    t.equal(destination.collect().code, 'ERR_MULTIFD_TIMEOUT', `${length} bytes`)
    destination.close()
  }
})

t.test(`${MUTATIONS} damaged initial packets`, async (t) => {
  const tally = new Tally()
  const random = seededRandom(t)
  const codes = new Set([...PEER_CODES, 'ERR_MULTIFD_CHANNEL', 'ERR_MULTIFD_TIMEOUT'])
  while (tally.runs < MUTATIONS) {
    const destination = new Reception(2)
    const id = random.below(2)
    const { bytes, what } = damage(initialPacket(id), INITIAL_ANATOMY, random)
    const order = [MAIN, initialPacket(1 - id), bytes]
    for (let i = 2; i > 0; i--) {
      const j = random.below(i + 1)
      ;[order[i], order[j]] = [order[j]!, order[i]!]
    }
    for (const said of order) destination.say(said)
    tally.run(
      () => destination.collect(),
      codes,
      () => what,
    )
    destination.close()
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
  t.ok(tally.count('end') > 0, 'some damage is harmless')
})

t.test('a connection that is reset before it said what it is', async (t) => {
  for (const said of [0, 3, 40]) {
    const destination = reception(t, 1)
    destination.say(MAIN)
    destination.end(destination.say(initialPacket(0).subarray(0, said)), 'reset')
    // What it said can still be looked at: as long as that is too little, the rest is waited for.
    const expected = said === 3 ? 'ERR_MULTIFD_TIMEOUT' : 'ERR_MULTIFD_CLOSED'
    t.equal(destination.collect().code, expected, `after ${said} bytes`)
  }
})

t.test('connections of others, once all channels are there, harm nothing', async (t) => {
  const destination = reception(t, 1)
  destination.say(MAIN)
  destination.say(initialPacket(0))
  t.equal(destination.collect().code, 'end')
  const greeting = Buffer.from('GET / HTTP/1.1')
  for (const said of [new Uint8Array(0), greeting, greeting.subarray(0, 2), MAIN.subarray(0, 3)]) {
    for (const how of ['close', 'reset', 'silence'] as const) {
      const fd = destination.say(said)
      if (how !== 'silence') destination.end(fd, how)
      const until = performance.now() + 2 * HELLO_MS
      t.doesNotThrow(() => {
        while (performance.now() < until) destination.acceptor.checkExtra()
      }, `${said.length} bytes, then ${how}`)
    }
  }
})
