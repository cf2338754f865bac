// A source whose destination goes wrong at every stage: it fails soon, by name, and the program goes on unharmed.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { MigrationDestination, type MigrationParameters, MigrationSource } from '../../src/index.js'
import { closeDescriptor, inetAddress, localPort, openListener } from '../../src/os/socket.js'
import {
  allocate,
  checksums,
  type Expected,
  fillNoise,
  HandDestination,
  HEADER_SIZE,
  leavesNothing,
  openDescriptors,
  rejection,
  tells,
  worksAgain,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
// More than the kernel keeps between two sockets: a destination that does not read is felt.
const [memory] = allocate([{ idstr: 'heap', size: 24 * MiB }])
fillNoise(memory!)
const content = checksums([memory!])
const gone = ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_REMOTE'] as const
// A connection that is reset at once may be found so by the connect already.
const goneAtOnce = [...gone, 'ERR_MULTIFD_CONNECT'] as const
const someoneGone =
  /^(channel \d: the peer is gone \(\w+\)|main channel: the peer is gone \(\w+\)|the destination (closed|failed).*)/

interface Case extends Expected {
  title: string
  parameters?: Partial<MigrationParameters>
  /** Whether the program had been stopped when it failed; not said where it may have been or not. */
  stopped?: boolean
  /** What the destination does. */
  play(destination: HandDestination): Promise<void>
}

const cases: Case[] = [
  {
    title: 'the main channel is closed when it comes',
    code: gone,
    says: someoneGone,
    stopped: false,
    async play(destination) {
      ;(await destination.connection(0)).close()
    },
  },
  {
    title: 'the main channel is reset when it comes',
    code: goneAtOnce,
    says: /gone|closed|failed/,
    stopped: false,
    async play(destination) {
      ;(await destination.connection(0)).reset()
    },
  },
  {
    title: 'a channel is reset when it comes',
    code: goneAtOnce,
    says: /gone|closed|failed/,
    stopped: false,
    async play(destination) {
      ;(await destination.connection(1)).reset()
    },
  },
  {
    title: 'every connection is reset when it comes',
    code: goneAtOnce,
    says: /gone|closed|failed/,
    stopped: false,
    async play(destination) {
      for (let at = 0; destination.connections.length === 0 && at < 6000; at++) await delay(5)
      // The first may end it before the others come.
      for (let at = 0; at < 200; at++) {
        for (const wire of destination.connections) wire.reset()
        await delay(5)
      }
    },
  },
  {
    title: 'the destination goes before the first barrier',
    code: gone,
    says: someoneGone,
    stopped: false,
    async play(destination) {
      const main = await destination.main()
      await destination.channel(1)
      main.reset()
      for (const wire of destination.connections) wire.reset()
    },
  },
  {
    title: 'a channel is reset inside a packet header',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 0,
    says: /^channel 0: the peer is gone \(\w+\)/,
    stopped: false,
    async play(destination) {
      const channel = await destination.channel(0)
      await channel.received(64 + HEADER_SIZE + 100)
      channel.reset()
    },
  },
  {
    title: 'a channel is reset inside page data',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 1,
    says: /^channel 1: the peer is gone \(\w+\)/,
    stopped: false,
    async play(destination) {
      const channel = await destination.channel(1)
      await channel.received(64 + 2 * HEADER_SIZE + 3 * MiB + 1234)
      channel.reset()
    },
  },
  {
    title: 'the main channel is reset inside a pass',
    code: gone,
    says: /main channel|the destination/,
    parameters: { maxBandwidth: 20e6 },
    async play(destination) {
      await (await destination.channel(1)).received(MiB)
      ;(await destination.main()).reset()
    },
  },
  {
    title: 'the destination says in mid-migration that it failed',
    code: 'ERR_MULTIFD_REMOTE',
    channel: 'main',
    says: /the destination failed \(it said 1\)/,
    async play(destination) {
      HandDestination.say(await destination.main(), 1)
    },
  },
  {
    title: 'the destination says that it failed, and closes everything',
    code: gone,
    says: someoneGone,
    async play(destination) {
      const main = await destination.main()
      await (await destination.channel(0)).received(MiB)
      HandDestination.say(main, 1)
      for (const wire of destination.connections) wire.close()
    },
  },
  {
    title: 'a channel is read no more',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /^channel 0: (stalled, no byte moved|the peer took nothing) for 500 ms|^no channel took a batch for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    stopped: false,
    async play(destination) {
      ;(await destination.channel(0)).stopReading()
    },
  },
  {
    title: 'nothing is read any more',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /^channel \d: stalled, no byte moved for 500 ms|^no channel took a batch for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    stopped: false,
    async play(destination) {
      await destination.channel(1)
      for (const wire of destination.connections) wire.stopReading()
    },
  },
  {
    title: 'the main channel is read no more, and everything is on it',
    code: 'ERR_MULTIFD_TIMEOUT',
    channel: 'main',
    says: /^main channel: stalled, the peer took nothing for 500 ms/,
    parameters: { multifd: false, stallTimeoutMs: 500 },
    stopped: false,
    async play(destination) {
      ;(await destination.main()).stopReading()
    },
  },
  {
    title: 'the main channel is reset, and everything is on it',
    code: gone,
    channel: 'main',
    says: /^main channel: the peer is gone|^the destination closed the main channel/,
    parameters: { multifd: false },
    stopped: false,
    async play(destination) {
      const main = await destination.main()
      await main.received(2 * MiB)
      main.reset()
    },
  },
  {
    title: 'garbage comes on the return path',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /return-path message type is 18245/,
    async play(destination) {
      ;(await destination.main()).send(Buffer.from('GET / HTTP/1.1'))
    },
  },
  {
    title: 'the destination asks for a page, as in postcopy',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /the destination sent message 4 in precopy/,
    async play(destination) {
      ;(await destination.main()).send(Buffer.of(0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0))
    },
  },
  {
    title: 'a word on the return path has another length',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /payload of SHUT has 5 bytes, expected 4/,
    async play(destination) {
      ;(await destination.main()).send(Buffer.of(0, 1, 0, 5, 0, 0, 0, 0, 0))
    },
  },
  {
    title: 'the destination says at the end that it failed',
    code: 'ERR_MULTIFD_REMOTE',
    channel: 'main',
    says: /the destination failed \(it said 1\)/,
    stopped: true,
    async play(destination) {
      HandDestination.say(await destination.wholeStream(), 1)
    },
  },
  {
    title: 'the destination goes without a word at the end',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 'main',
    says: /closed the main channel without a word/,
    stopped: true,
    async play(destination) {
      ;(await destination.wholeStream()).close()
    },
  },
  {
    title: 'the destination is reset at the end',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 'main',
    says: /closed the main channel without a word/,
    stopped: true,
    async play(destination) {
      ;(await destination.wholeStream()).reset()
    },
  },
  {
    title: 'the destination never gives its word',
    code: 'ERR_MULTIFD_TIMEOUT',
    channel: 'main',
    says: /the destination gave no word for 400 ms/,
    parameters: { completionTimeoutMs: 400 },
    stopped: true,
    async play(destination) {
      await destination.wholeStream()
    },
  },
  {
    title: 'the destination gives half a word',
    code: 'ERR_MULTIFD_TIMEOUT',
    channel: 'main',
    says: /the destination gave no word for 400 ms/,
    parameters: { completionTimeoutMs: 400 },
    stopped: true,
    async play(destination) {
      ;(await destination.wholeStream()).send(Buffer.of(0, 1, 0, 4, 0, 0))
    },
  },
]

t.before(() => worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!]))

// Counts what the source asks of its program.
class Program {
  stops = 0
  resumes = 0

  readonly hooks = {
    stop: async (): Promise<void> => {
      await delay(5)
      this.stops++
    },
    resume: (): void => {
      this.resumes++
    },
  }
}

async function failsAsExpected(
  t: Test,
  uri: string,
  expected: Expected & Pick<Case, 'parameters' | 'stopped'>,
): Promise<MigrationSource> {
  const source = new MigrationSource({ ram: [memory!], parameters: { stallTimeoutMs: 4000, ...expected.parameters } })
  const program = new Program()
  tells(t, await rejection(source.migrate(uri, program.hooks)), expected)
  t.equal(source.status, 'failed')
  t.strictSame(source.threads(), [], 'it lists no thread')
  t.equal(program.resumes, program.stops, 'the program runs')
  if (expected.stopped !== undefined) t.equal(program.stops, expected.stopped ? 1 : 0, 'it was stopped or not')
  t.strictSame(checksums([memory!]), content, 'its memory is as it was')
  return source
}

for (const [at, one] of cases.entries()) {
  t.test(one.title, async (t) => {
    const before = openDescriptors()
    const destination = await HandDestination.listen()
    const played = one.play(destination).catch((error: Error) => error)
    const source = await failsAsExpected(t, destination.uri, one)
    for (const wire of destination.connections) if (!wire.socket.isPaused()) await wire.ended()
    await destination.destroy()
    t.equal(await played, undefined, 'the destination came as far as it should')
    await leavesNothing(t, before)
    const { multifd = true } = one.parameters ?? {}
    if (at % 4 === 3) await worksAgain(t, source, [memory!], { multifd })
  })
}

t.test('nobody listens', async (t) => {
  const before = openDescriptors()
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  const uri = `tcp:127.0.0.1:${port}`
  await failsAsExpected(t, uri, {
    code: 'ERR_MULTIFD_CONNECT',
    says: new RegExp(`failed to connect to '127.0.0.1:${port}': ECONNREFUSED`),
    stopped: false,
  })
  await leavesNothing(t, before)
})

t.test('there is no such socket', async (t) => {
  await failsAsExpected(t, 'unix:/tmp/there-is-no-such-socket', {
    code: 'ERR_MULTIFD_CONNECT',
    says: /failed to connect to '\/tmp\/there-is-no-such-socket': ENOENT/,
    stopped: false,
  })
})

t.test('the host is not known', async (t) => {
  const source = new MigrationSource({ ram: [memory!] })
  tells(t, await rejection(source.migrate('tcp:no-such-host.invalid:4444')), {
    code: 'ERR_MULTIFD_CONNECT',
    says: /host 'no-such-host.invalid': E/,
  })
  await worksAgain(t, source, [memory!])
})

t.test('the destination does not accept', async (t) => {
  const before = openDescriptors()
  // A listener with a place for one connection that nobody takes: the second and third are never answered.
  const listener = openListener(inetAddress('127.0.0.1', 0), 0)
  await failsAsExpected(t, `tcp:127.0.0.1:${localPort(listener)}`, {
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /no connection to 127.0.0.1:\d+ within 400 ms/,
    parameters: { connectTimeoutMs: 400 },
    stopped: false,
  })
  closeDescriptor(listener)
  await leavesNothing(t, before)
})

t.test('without a return path the source is done when everything is sent', async (t) => {
  const before = openDescriptors()
  const destination = await HandDestination.listen()
  const source = new MigrationSource({ ram: [memory!], parameters: { returnPath: false } })
  const { status, ram } = await source.migrate(destination.uri)
  t.equal(status, 'completed')
  await destination.wholeStream()
  for (const wire of destination.connections) await wire.ended()
  const bytes = destination.connections.reduce((sum, { count }) => sum + count, 0)
  t.equal(ram.transferred, bytes, 'it counted every byte')
  await destination.destroy()
  await leavesNothing(t, before)
})

t.test('without a return path the source notices a destination that goes while it sends', async (t) => {
  const destination = await HandDestination.listen()
  const played = (async () => {
    await (await destination.channel(0)).received(MiB)
    for (const wire of destination.connections) wire.reset()
  })()
  await failsAsExpected(t, destination.uri, {
    code: 'ERR_MULTIFD_CLOSED',
    says: /^(channel \d|main channel): the peer is gone/,
    parameters: { returnPath: false },
    stopped: false,
  })
  await played
  await destination.destroy()
})

t.test('a program that can not be stopped goes on', async (t) => {
  const destination = new MigrationDestination({ ram: allocate([memory!]) })
  const source = new MigrationSource({ ram: [memory!] })
  let resumed = 0
  const stop = (): Promise<void> => Promise.reject(new Error('busy'))
  const failed = source.migrate(await destination.listen('tcp:127.0.0.1:0'), { stop, resume: () => void resumed++ })
  tells(t, await rejection(failed), { code: 'ERR_MULTIFD_STATE', says: /program could not be stopped: busy/ })
  t.equal(resumed, 1)
  tells(t, await rejection(destination.completed), {
    code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_BARRIER'],
    says: /channel/,
  })
  await worksAgain(t, source, [memory!])
})
