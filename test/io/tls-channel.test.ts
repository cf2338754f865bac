// A channel over TLS, both ends of a tcp connection in this thread: bytes, ends, strangers, and what a peer that never
// reads must not find.

import { randomBytes } from 'node:crypto'
import { writeSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { MultifdError } from '../../src/errors.js'
import type { WaitHook } from '../../src/io/channel.js'
import { IoVector } from '../../src/io/iovec.js'
import { TlsChannel } from '../../src/io/tls-channel.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { closeDescriptor, receiveNow, setNonBlocking, shutdownBoth } from '../../src/os/socket.js'
import { TlsContext } from '../../src/tls/context.js'
import type { TlsOptions } from '../../src/tls/options.js'
import { handshakeStep, makeTls } from '../../src/tls/session.js'
import { pskDirectory } from '../support/tls/credentials.js'
import { connection } from './connection.js'

const dir = pskDirectory(t.testdir(), 'qemu')
const KEYS: TlsOptions = { dir, kind: 'psk' }
const STALL_MS = 150
const ALERT = 21

const stalls: WaitHook = (waitedMs) => {
  if (waitedMs > STALL_MS) throw new Error('stalled')
}

interface Pair {
  client: TlsChannel
  server: TlsChannel
}

function contexts(t: Test, options: Partial<TlsOptions> = {}): { client: TlsContext; server: TlsContext } {
  const client = new TlsContext({ ...KEYS, ...options }, 'client')
  const server = new TlsContext({ ...KEYS, ...options }, 'server')
  t.teardown(() => {
    client.close()
    server.close()
  })
  return { client, server }
}

/** Two channels whose handshake is over. */
function opened(t: Test, options: Partial<TlsOptions> = {}, clientWaits = stalls): Pair {
  const context = contexts(t, options)
  const fds = connection()
  const tls = {
    client: makeTls(fds.ours, context.client.handle),
    server: makeTls(fds.theirs, context.server.handle),
  }
  for (const fd of [fds.ours, fds.theirs]) setNonBlocking(fd, true)
  const done = { client: false, server: false }
  for (let step = 0; step < 10 && !(done.client && done.server); step++) {
    done.client ||= handshakeStep(tls.client.ssl, context.client.handle) === 'done'
    done.server ||= handshakeStep(tls.server.ssl, context.server.handle) === 'done'
  }
  t.strictSame(done, { client: true, server: true }, 'the handshake is over')
  const client = new TlsChannel(fds.ours, tls.client, 3, clientWaits)
  const server = new TlsChannel(fds.theirs, tls.server, 'main', stalls)
  t.teardown(() => {
    client.close()
    client.close()
    server.close()
  })
  return { client, server }
}

/** A list of pieces of one buffer, and the buffer. */
function pieces(bytes: Uint8Array, ...lengths: number[]): { vector: IoVector; buffer: PinnedBuffer } {
  const buffer = new PinnedBuffer(bytes.length)
  buffer.bytes.set(bytes)
  const vector = new IoVector(64)
  const range = { address: buffer.address, size: bytes.length }
  let at = 0
  for (const length of [...lengths, bytes.length]) {
    const next = Math.min(length, bytes.length - at)
    if (next <= 0) break
    vector.push(range, at, next)
    at += next
  }
  return { vector, buffer }
}

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`${maxVersion}: what is written is read, however it is cut`, (t) => {
    const { client, server } = opened(t, { maxVersion })
    const sent = randomBytes(200_000)
    client.writeFull(pieces(sent, 1, 64, 4096, 50_000).vector)
    const { vector, buffer } = pieces(new Uint8Array(sent.length), 3, 16_000, 70_001)
    t.equal(server.readFull(vector, 0), sent.length)
    t.equal(Buffer.compare(sent, buffer.bytes), 0)
    t.equal(server.readNow(512), undefined, 'nothing is left')
    t.notOk(server.waitReadable(0))
    const answer = pieces(randomBytes(40))
    server.writeFull(answer.vector)
    t.ok(client.waitReadable(1000))
    t.strictSame([client.readNow(30)?.length, client.waitReadable(0), client.readNow(30)?.length], [30, true, 10])
    client.writeFull(pieces(sent).vector)
    const some = pieces(new Uint8Array(sent.length)).vector
    const got = server.readSome(some)
    t.ok(got > 0 && got <= sent.length && some.length === sent.length - got, 'some of it')
    t.end()
  })

  t.test(`${maxVersion}: an end, with and without a word, is an end, and no error`, (t) => {
    for (const word of [true, false]) {
      const { client, server } = opened(t, { maxVersion })
      client.writeFull(pieces(randomBytes(100)).vector)
      if (word) client.end()
      else client.shutdown()
      t.equal(server.readFull(pieces(new Uint8Array(5000)).vector, 0), 100, 'what came before the end')
      t.equal(server.readFull(pieces(new Uint8Array(5000)).vector, 0), 0)
      t.equal(server.readNow(10)?.length, 0)
    }
    t.end()
  })
}

t.test('the word at the end is close_notify', (t) => {
  const { client, server } = opened(t, { maxVersion: 'TLSv1.2' })
  t.equal(receiveNow(server.fd, 1, true), undefined)
  client.end()
  t.equal(receiveNow(server.fd, 1, true)?.[0], ALERT)
  t.end()
})

t.test(
  'a destination says nothing after its handshake: a source that never reads loses nothing when it closes',
  (t) => {
    const { client, server } = opened(t, { minVersion: 'TLSv1.3' })
    t.equal(receiveNow(client.fd, 1, true), undefined, 'no session ticket')
    const sent = randomBytes(500_000)
    client.writeFull(pieces(sent).vector)
    client.close()
    const { vector, buffer } = pieces(new Uint8Array(sent.length + 1))
    t.equal(server.readFull(vector, 0), sent.length, 'all of it, and then the end')
    t.equal(Buffer.compare(sent, buffer.bytes.subarray(0, sent.length)), 0)
    t.end()
  },
)

t.test('a write that has to wait goes on where it was, as the peer reads', (t) => {
  const sent = randomBytes(8_000_000)
  const { vector: into, buffer } = pieces(new Uint8Array(sent.length))
  let pair: Pair | undefined
  let waits = 0
  // Reads only when the writer waits: a little each time.
  const reads: WaitHook = () => {
    waits++
    if (into.length > 0) pair!.server.readSome(into)
  }
  pair = opened(t, {}, reads)
  pair.client.writeFull(pieces(sent).vector)
  t.ok(waits > 10, `it waited ${waits} times`)
  const left = into.length
  t.equal(pair.server.readFull(into, 0), left)
  t.equal(Buffer.compare(sent, buffer.bytes), 0)
  t.end()
})

t.test('a peer that is gone, bytes that nobody encrypted, and silence', (t) => {
  const gone = opened(t)
  gone.server.close()
  const write = (): void => {
    for (let i = 0; i < 100; i++) gone.client.writeFull(pieces(randomBytes(100_000)).vector)
  }
  t.throws(write, { code: 'ERR_MULTIFD_CLOSED', channel: 3, message: /^channel 3: the peer is gone/ })

  const forged = opened(t)
  writeSync(forged.client.fd, Buffer.concat([Buffer.from([23, 3, 3, 0, 40]), randomBytes(40)]))
  t.throws(() => forged.server.readFull(pieces(new Uint8Array(10)).vector, 0), {
    code: 'ERR_MULTIFD_TLS',
    channel: 'main',
    message: /^main channel: TLS: decryption failed or bad record mac$/,
  })
  t.throws(() => forged.client.readFull(pieces(new Uint8Array(10)).vector, 0), {
    code: 'ERR_MULTIFD_TLS',
    message: /^channel 3: the peer refuses: .*alert bad record mac$/,
  })

  const silent = opened(t)
  t.throws(() => silent.server.readFull(pieces(new Uint8Array(10)).vector, 0), { message: 'stalled' })
  t.equal(silent.client.writeFile(), false)
  t.throws(() => silent.client.enableZeroCopy(), { code: 'ERR_MULTIFD_UNSUPPORTED' })
  t.end()
})

t.test('a handshake with somebody who speaks something else, or nothing', (t) => {
  const context = contexts(t)
  for (const role of ['client', 'server'] as const) {
    const attempt = (act: (fd: number) => void): MultifdError => {
      const { ours, theirs } = connection()
      const { handle } = context[role]
      const channel = new TlsChannel(ours, makeTls(ours, handle), 0, () => {})
      act(theirs)
      try {
        channel.handshake(handle, 200)
        throw new Error('it is over')
      } catch (error) {
        return error as MultifdError
      } finally {
        channel.close()
        closeDescriptor(theirs)
      }
    }
    const peer = role === 'client' ? 'destination' : 'source'
    const garbage = attempt((fd) => writeSync(fd, 'GET / HTTP/1.1\r\nHost: here\r\n\r\n'))
    t.match(garbage, { code: 'ERR_MULTIFD_TLS', channel: 0 })
    t.match(garbage.message, new RegExp(`^channel 0: the ${peer} does not speak TLS \\(`), role)
    const silence = attempt(() => {})
    t.match(silence, { code: 'ERR_MULTIFD_TIMEOUT', message: 'channel 0: no TLS handshake within 200 ms' })
    const end = attempt((fd) => shutdownBoth(fd))
    t.match(end, {
      code: 'ERR_MULTIFD_TLS',
      message: `channel 0: the ${peer} ended the connection in the TLS handshake`,
    })
  }
  t.end()
})
