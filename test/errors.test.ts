// Every code of the closed list is reached, and an error keeps its code and fields on its way between threads.

import { existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads'
import t from 'tap'
import { ERROR_CODES, type ErrorCode, type ErrorDetails, MultifdError } from '../src/errors.js'
import { MigrationDestination, MigrationSource, RamBlock, vmstate } from '../src/index.js'
import { parseUri } from '../src/io/uri.js'
import { completeParameters } from '../src/migration/parameters.js'
import { readSnapshot } from '../src/snapshot/file.js'
import { SnapshotReceiver } from '../src/snapshot/receive.js'
import {
  allocate,
  HandDestination,
  HandSource,
  initialPacket,
  PAGE,
  packet,
  pageOf,
  rejection,
  streamHead,
  syncPacket,
} from './support/peers/index.js'

const shape = { idstr: 'heap', size: 8 * PAGE }
const ram = allocate([shape])
const folder = mkdtempSync(join(tmpdir(), 'multifd-errors-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** What a destination fails with when its source does `play`. */
async function destinationFails(
  play: (source: HandSource) => Promise<void> | void,
  options: { uuid?: string; channels?: number } = {},
): Promise<unknown> {
  const { channels = 1, uuid } = options
  const parameters = { multifdChannels: channels, helloTimeoutMs: 300 }
  const destination = new MigrationDestination({
    ram: allocate([shape]),
    parameters,
    ...(uuid === undefined ? {} : { uuid }),
  })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const failed = rejection(destination.completed)
  const source = await HandSource.connect(uri, { blocks: [shape], channels })
  try {
    await play(source)
    return await failed
  } finally {
    source.destroy()
    await destination.close()
  }
}

/** What `action` throws, now or later. */
async function thrown(action: () => unknown): Promise<unknown> {
  return await rejection((async () => await action())())
}

const damaged = join(folder, 'damaged')
writeFileSync(
  damaged,
  Buffer.concat([streamHead('pc-i440fx-10.0', { capabilities: ['mapped-ram'] }), Buffer.alloc(40, 0xff)]),
)

const reached: Record<ErrorCode, () => Promise<unknown>> = {
  ERR_MULTIFD_ABORTED: () =>
    rejection(new MigrationSource({ ram }).migrate('tcp:127.0.0.1:1', { signal: AbortSignal.abort() })),
  ERR_MULTIFD_ARGUMENT: () => thrown(() => completeParameters({ multifdChannels: 256 })),
  ERR_MULTIFD_BARRIER: () =>
    destinationFails(async (source) => {
      await source.openChannels()
      source.head()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: [[0, pageOf(1)]] }))
    }),
  ERR_MULTIFD_BLOCK: () =>
    destinationFails(async (source) => {
      await source.begin()
      source.channels[0]!.send(packet({ idstr: 'stack', pages: [[0, pageOf(1)]] }))
    }),
  ERR_MULTIFD_CHANNEL: () => destinationFails((source) => source.openChannels([1])),
  ERR_MULTIFD_CLOSED: () => destinationFails((source) => source.main.close()),
  ERR_MULTIFD_CONNECT: () => rejection(new MigrationSource({ ram }).migrate(`unix:${folder}/nobody`)),
  ERR_MULTIFD_DEVICE: () =>
    thrown(() => {
      const set = new vmstate.DeviceSet([{ idstr: 'clock', version: 1, save: () => () => {}, load: () => {} }])
      new vmstate.DeviceStateSaver(set, { firstSectionId: 1, pageSize: PAGE }).saveFull()
    }),
  ERR_MULTIFD_FILE: async () => {
    const receiver = new SnapshotReceiver(join(folder, 'missing', 'snapshot'))
    return await rejection(receiver.listen('tcp:127.0.0.1:0'))
  },
  // A defect of ours is whatever was not thrown on purpose.
  ERR_MULTIFD_INTERNAL: () => Promise.resolve(MultifdError.from(new TypeError('undefined is not a function'))),
  // Every other end of a connection says that the peer is gone: only a descriptor that is none fails otherwise.
  ERR_MULTIFD_IO: async () => {
    const path = join(folder, 'read-only')
    writeFileSync(path, 'x')
    const parameters = { multifd: false, returnPath: false }
    return await rejection(new MigrationSource({ ram, parameters }).migrate(`fd:${openSync(path, 'r')}`))
  },
  ERR_MULTIFD_LISTEN: () => rejection(new MigrationDestination({ ram }).listen('tcp:192.0.2.1:1')),
  ERR_MULTIFD_MACHINE: () =>
    destinationFails((source) => source.main.send(initialPacket(0, '00112233-4455-6677-8899-aabbccddeeff')), {
      uuid: 'ffeeddcc-bbaa-9988-7766-554433221100',
    }),
  ERR_MULTIFD_PROTOCOL: () => destinationFails((source) => source.main.send(Buffer.from('GET /'))),
  ERR_MULTIFD_REMOTE: async () => {
    const destination = await HandDestination.listen()
    const failed = rejection(new MigrationSource({ ram }).migrate(destination.uri))
    HandDestination.say(await destination.main(), 1)
    const error = await failed
    await destination.destroy()
    return error
  },
  ERR_MULTIFD_SNAPSHOT: () => thrown(() => readSnapshot(damaged)),
  ERR_MULTIFD_STATE: () => rejection(new MigrationDestination({ ram }).completed),
  ERR_MULTIFD_TIMEOUT: () => destinationFails(() => {}),
  ERR_MULTIFD_TLS: () => {
    writeFileSync(join(folder, 'keys.psk'), 'qemu:not hexadecimal')
    const parameters = { tls: { dir: folder, kind: 'psk' as const } }
    return rejection(new MigrationSource({ ram, parameters }).migrate('tcp:127.0.0.1:1'))
  },
  ERR_MULTIFD_TRUNCATED: () =>
    destinationFails(async (source) => {
      await source.openChannels()
      source.head()
      source.channels[0]!.send(syncPacket().subarray(0, 100))
      source.channels[0]!.close()
    }),
  ERR_MULTIFD_UNSUPPORTED: () => thrown(() => parseUri('rdma:10.0.0.1:4444')),
}

for (const code of ERROR_CODES) {
  t.test(`${code} is reached`, async (t) => {
    const error = await reached[code]()
    t.ok(error instanceof MultifdError, `${error}`)
    t.equal((error as MultifdError).code, code)
    t.match((error as MultifdError).message, /^[^\n]+$/, 'one line')
    t.equal((error as MultifdError).name, 'MultifdError')
  })
}

t.test('the list has no code twice, and only codes of this package', (t) => {
  t.equal(new Set(ERROR_CODES).size, ERROR_CODES.length)
  for (const code of ERROR_CODES) t.match(code, /^ERR_MULTIFD_[A-Z]+$/)
  t.end()
})

t.test('an error keeps its code and fields when it crosses threads', (t) => {
  const details: ErrorDetails[] = [
    {},
    { channel: 'main' },
    { channel: 0, packetNum: 0 },
    { channel: 254, packetNum: 2 ** 40, errno: 104, errnoName: 'ECONNRESET', syscall: 'recvmsg' },
  ]
  const { port1, port2 } = new MessageChannel()
  for (const code of ERROR_CODES) {
    for (const detail of details) {
      const error = new MultifdError(code, 'what went wrong', { ...detail, cause: new Error('why') })
      port1.postMessage(error.toPlain())
      const received = MultifdError.fromPlain(receiveMessageOnPort(port2)!.message)
      t.ok(received instanceof MultifdError)
      t.strictSame(received.toPlain(), error.toPlain())
      t.match(received, { code, message: 'what went wrong', ...detail })
    }
  }
  port1.close()
  t.end()
})

t.test('a channel is named once, by who knows it first', (t) => {
  const cause = new Error('why')
  const error = new MultifdError('ERR_MULTIFD_IO', 'text', { packetNum: 7, errno: 5, syscall: 'recvmsg', cause })
  const named = error.onChannel(3)
  t.match(named.toPlain(), { channel: 3, packetNum: 7, errno: 5, syscall: 'recvmsg', message: 'text' })
  t.equal(named.cause, cause)
  t.equal(named.onChannel('main'), named)
  t.end()
})

t.test('what was not an error of ours is one afterwards, with its cause', (t) => {
  const own = new MultifdError('ERR_MULTIFD_STATE', 'text')
  t.equal(MultifdError.from(own), own)
  const cause = new RangeError('out of range')
  t.match(MultifdError.from(cause), { code: 'ERR_MULTIFD_INTERNAL', message: /out of range/, cause })
  t.match(MultifdError.from('text'), { code: 'ERR_MULTIFD_INTERNAL', message: /text/ })
  t.end()
})

t.test('arguments are refused where they are given', async (t) => {
  const refusals: [string, () => unknown, RegExp][] = [
    ['no block to send', () => new MigrationSource({ ram: [] }), /no RAM block/],
    ['no block to receive into', () => new MigrationDestination({ ram: [] }), /no RAM block/],
    ['two blocks of one name', () => new MigrationSource({ ram: [...ram, ...ram] }), /two RAM blocks have one name/],
    ['a uuid that is none', () => new MigrationSource({ ram, uuid: 'mine' }), /uuid/i],
    ['no channel', () => new MigrationSource({ ram, parameters: { multifdChannels: 0 } }), /from 1 to 255/],
    ['half a channel', () => new MigrationSource({ ram, parameters: { multifdChannels: 1.5 } }), /from 1 to 255/],
    ['a limit below zero', () => completeParameters({ downtimeLimit: -1 }), /from 0 to 2000000/],
    ['a limit that is text', () => completeParameters({ maxBandwidth: '1G' as never }), /whole number/],
    ['a switch that is none', () => completeParameters({ multifd: 1 as never }), /true or false/],
    ['a detection that is none', () => completeParameters({ zeroPageDetection: 'x' as never }), /one of none, legacy/],
    ['a parameter that is none', () => completeParameters({ channels: 2 } as never), /no parameter 'channels'/],
    ['a parameter of every object', () => completeParameters({ toString: 1 } as never), /no parameter 'toString'/],
    ['a URI that is none', () => new MigrationSource({ ram }).migrate('localhost:4444'), /not a migration URI/],
    ['a port that is none', () => new MigrationSource({ ram }).migrate('tcp:localhost:65536'), /not a migration URI/],
    ['channels over one descriptor', () => new MigrationSource({ ram }).migrate('fd:0'), /fd: is one connection/],
    ['channels into one descriptor', () => new MigrationDestination({ ram }).listen('fd:0'), /fd: is one connection/],
    ['a name that is empty', () => RamBlock.allocate({ idstr: '', size: PAGE }), /name has 0 bytes/],
    ['a name that is too long', () => RamBlock.allocate({ idstr: 'x'.repeat(256), size: PAGE }), /name has 256 bytes/],
    ['half a page', () => RamBlock.allocate({ idstr: 'x', size: PAGE / 2 }), /multiple of 4096/],
    ['no page', () => RamBlock.allocate({ idstr: 'x', size: 0 }), /multiple of 4096/],
    ['a block too large', () => RamBlock.allocate({ idstr: 'x', size: 2 ** 32 + PAGE }), /up to 4 GiB/],
    ['a change outside', () => ram[0]!.markDirty(8 * PAGE, 1), /outside/],
    ['a change that is no number', () => ram[0]!.markDirty(Number.NaN, 1), /outside/],
  ]
  for (const [what, action, says] of refusals) {
    const error = await thrown(action)
    t.match(error, { code: 'ERR_MULTIFD_ARGUMENT', message: says }, `${what}: ${(error as Error).message}`)
  }
})

t.test('a file that is not there is not made to be read', async (t) => {
  const path = join(folder, 'nothing')
  const error = await thrown(() => RamBlock.mapFile({ idstr: 'x', path, size: PAGE, writable: false }))
  t.match(error, { code: 'ERR_MULTIFD_FILE', errnoName: 'ENOENT' })
  t.notOk(existsSync(path))
})
