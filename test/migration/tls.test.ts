// Migrations over TLS, ours to ours: whole, alone and by many channels, and strangers that hold nobody up.

import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { MigrationDestination, type MigrationParameters, MigrationSource, RamBlock } from '../../src/index.js'
import type { TlsOptions } from '../../src/tls/options.js'
import { leavesNothing, misplaced, openDescriptors, stampAll, Wire } from '../support/peers/index.js'
import { Authority, pskDirectory, requireOpenssl, trusting } from '../support/tls/credentials.js'

const SIZE = 16 * 2 ** 20
const folder = t.testdir()
const psk: TlsOptions = { dir: pskDirectory(join(folder, 'psk'), 'qemu'), kind: 'psk' }
const stranger: TlsOptions = { dir: pskDirectory(join(folder, 'stranger'), 'qemu'), kind: 'psk' }

interface Told {
  warnings: string[]
  logger: { debug(): void; info(): void; warn(fields: object, text: string): void; error(): void }
}

function listener(): Told {
  const warnings: string[] = []
  return { warnings, logger: { debug() {}, info() {}, warn: (_, text) => warnings.push(text), error() {} } }
}

function blocks(): RamBlock[] {
  return ['heap', 'table'].map((idstr, i) => RamBlock.allocate({ idstr, size: SIZE >> i }))
}

/** A destination that has not got its memory yet, and a source that has. */
function pair(t: Test, parameters: Partial<MigrationParameters>, theirs: Partial<MigrationParameters> = {}) {
  const [from, to] = [blocks(), blocks()]
  stampAll(from)
  const told = listener()
  const destination = new MigrationDestination({ ram: to, parameters: { ...parameters, ...theirs }, ...told })
  const source = new MigrationSource({ ram: from, parameters })
  t.teardown(() => Promise.all([source.close(), destination.close()]))
  return { source, destination, ...told, same: () => misplaced(from, to) }
}

const shapes: [name: string, parameters: Partial<MigrationParameters>][] = [
  ['two channels', {}],
  ['one connection', { multifd: false }],
  ['more channels than processors', { multifdChannels: 8 }],
  ['no return path', { returnPath: false, multifdChannels: 3 }],
  ['compressed', { multifdCompression: 'zlib' }],
  ['the adaptive method', { multifdCompression: 'auto' }],
  ['xbzrle', { multifd: false, xbzrle: true }],
  ['a limit on the bandwidth', { maxBandwidth: 60e6 }],
]

for (const [name, parameters] of shapes) {
  t.test(`by keys, ${name}`, async (t) => {
    const { source, destination, same } = pair(t, { tls: psk, ...parameters })
    const before = openDescriptors()
    const uri = await destination.listen('tcp:127.0.0.1:0')
    t.match(await source.migrate(uri), { status: 'completed' })
    await destination.completed
    t.strictSame(same(), [], 'every page is what and where it was')
    await Promise.all([source.close(), destination.close()])
    await leavesNothing(t, before)
  })
}

t.test('by certificates, over tcp, and over unix by a name of its own', async (t) => {
  if (!requireOpenssl(t)) return
  const authority = new Authority(join(folder, 'ca'))
  const dir = trusting(join(folder, 'both'), authority)
  authority.sign(dir, 'server', { altName: 'DNS:localhost,DNS:store.example' })
  authority.sign(dir, 'client')
  const overTcp = pair(t, { tls: { dir } })
  const uri = await overTcp.destination.listen('tcp:127.0.0.1:0')
  await t.rejects(overTcp.source.migrate(uri), { code: 'ERR_MULTIFD_TLS', message: /IP address mismatch/ })
  await overTcp.source.migrate(uri.replace('127.0.0.1', 'localhost'))
  await overTcp.destination.completed
  t.strictSame(overTcp.same(), [])
  t.match(overTcp.warnings, [/^a connection was refused: the source does not take us: .*bad certificate/])

  const path = join(folder, 'socket')
  const nameless = pair(t, { tls: { dir } })
  await t.rejects(nameless.source.migrate(`unix:${path}`), { code: 'ERR_MULTIFD_ARGUMENT', message: /tls.hostname/ })
  const named = pair(t, { tls: { dir, hostname: 'store.example' } })
  await named.destination.listen(`unix:${path}`)
  await named.source.migrate(`unix:${path}`)
  await named.destination.completed
  t.strictSame(named.same(), [])

  const revoked = trusting(join(folder, 'revoked'), authority)
  const certificate = authority.sign(revoked, 'client')
  authority.revoke(dir, certificate)
  const { source, destination, warnings } = pair(t, { tls: { dir: revoked } }, { tls: { dir } })
  const address = await destination.listen('tcp:127.0.0.1:0')
  await t.rejects(source.migrate(address.replace('127.0.0.1', 'localhost')), { code: /^ERR_MULTIFD_(TLS|CLOSED)$/ })
  await sleep(50)
  t.match(warnings[0], /the source's certificate is refused: certificate revoked/)
})

t.test('strangers change nothing for those who may, and each ends by its own time', async (t) => {
  const before = openDescriptors()
  const { source, destination, warnings, same } = pair(t, { tls: psk }, { helloTimeoutMs: 400 })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  // One says nothing, one half of a hello, one something else, one speaks without TLS, and one has another key.
  const silent = await Wire.to(uri)
  const half = await Wire.to(uri)
  half.send(Buffer.from([22, 3, 1, 2, 0, 1, 0]))
  const garbage = await Wire.to(uri)
  garbage.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  const plain = new MigrationSource({ ram: blocks(), parameters: { tls: undefined } })
  await t.rejects(plain.migrate(uri), { code: /^ERR_MULTIFD_(CLOSED|REMOTE)$/ })
  const other = new MigrationSource({ ram: blocks(), parameters: { tls: stranger } })
  await t.rejects(other.migrate(uri), {
    code: 'ERR_MULTIFD_TLS',
    message: /^main channel: the destination does not take us: /,
  })
  await sleep(600)
  t.equal(destination.status, 'setup', 'it waits on')
  const reasons = [
    /^a connection was refused: the source does not speak TLS \(/,
    /^a connection was refused: the TLS handshake with the source failed: binder does not verify$/,
    /^a connection was refused: no TLS handshake within 400 ms$/,
  ]
  for (const reason of reasons)
    t.ok(
      warnings.some((text) => reason.test(text)),
      `${reason}`,
    )
  t.equal(warnings.filter((text) => reasons[2]!.test(text)).length, 2, 'the silent one, and the one with half a hello')
  await Wire.to(uri)
  const { totalTime } = await source.migrate(uri)
  await destination.completed
  t.ok(totalTime < 5000, `${totalTime} ms beside one more that says nothing`)
  t.strictSame(same(), [])
  for (const wire of [silent, half, garbage]) wire.close()
  await Promise.all([source.close(), destination.close(), plain.close(), other.close()])
  await leavesNothing(t, before)
})

/** Listens, and lets each connection do as the test says. */
async function server(t: Test, meet: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const listening: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    meet(socket)
  })
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    listening.close()
  })
  return `tcp:127.0.0.1:${(listening.address() as { port: number }).port}`
}

t.test(
  'a source gives a destination that says nothing, or something else, up; and can be cancelled meanwhile',
  async (t) => {
    const before = openDescriptors()
    const ram = blocks()
    const source = new MigrationSource({ ram, parameters: { tls: psk, connectTimeoutMs: 300 } })
    const silence = await server(t, () => {})
    await t.rejects(source.migrate(silence), {
      code: 'ERR_MULTIFD_TIMEOUT',
      message: 'main channel: no TLS handshake within 300 ms',
    })
    const chatter = await server(t, (socket) => socket.write('220 here\r\n'))
    await t.rejects(source.migrate(chatter), { code: 'ERR_MULTIFD_TLS', message: /does not speak TLS/ })
    const closing = await server(t, (socket) => socket.destroy())
    await t.rejects(source.migrate(closing), { code: 'ERR_MULTIFD_TLS', message: /ended the connection/ })
    const patient = new MigrationSource({ ram, parameters: { tls: psk } })
    const began = performance.now()
    await t.rejects(patient.migrate(silence, { signal: AbortSignal.timeout(200) }), { code: 'ERR_MULTIFD_ABORTED' })
    t.ok(performance.now() - began < 3000)
    await Promise.all([source.close(), patient.close()])
    const sockets = [...openDescriptors()].filter(([fd]) => !before.has(fd))
    t.ok(sockets.length < 12, `the test's own sockets alone: ${sockets.length}`)
  },
)

t.test('a source that is cancelled in the middle leaves nothing', async (t) => {
  const before = openDescriptors()
  const { source, destination } = pair(t, { tls: psk, multifdChannels: 6, maxBandwidth: 2e6 })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const migrated = source.migrate(uri)
  await once(source, 'passBegin')
  await sleep(50)
  source.cancel()
  await t.rejects(migrated, { code: 'ERR_MULTIFD_ABORTED' })
  await t.rejects(destination.completed)
  await Promise.all([source.close(), destination.close()])
  await leavesNothing(t, before)
})

t.test(
  'a destination that anyone can reach says so in one warning, unless sources must show who they are',
  async (t) => {
    const open = async (tls: TlsOptions | undefined): Promise<string[]> => {
      const { destination, warnings } = pair(t, { tls })
      await destination.listen('tcp:0.0.0.0:0')
      await destination.close()
      return warnings
    }
    t.match(await open(undefined), [
      /^plain connections are accepted from other machines: whoever reaches the port can write/,
    ])
    t.strictSame(await open(psk), [])
    if (!requireOpenssl(t)) return
    const authority = new Authority(join(folder, 'open'))
    const dir = trusting(join(folder, 'open-dir'), authority)
    authority.sign(dir, 'server')
    t.strictSame(await open({ dir }), [])
    t.match(await open({ dir, verifyPeer: false }), [/^sources without a certificate are accepted from other machines/])
  },
)
