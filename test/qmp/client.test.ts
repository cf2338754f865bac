// Our QMP client: what it says of an other side that is none, refuses, or goes away.

import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { QmpClient } from '../../src/index.js'
import { QmpProgram, temporaryFolder } from './program.js'

const folder = temporaryFolder(t)

/** A server that answers a connection in its own way; returns its path. */
async function answers(t: Test, answer: (socket: Socket) => void): Promise<string> {
  const path = join(temporaryFolder(t), 'socket')
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    answer(socket)
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return path
}

t.test('commands, refusals and events', async (t) => {
  const program = await new QmpProgram(folder, { side: 'source', size: 2 ** 20 }).listen()
  t.teardown(() => program.close())
  for (const where of [program.path, `unix:${program.path}`, await program.server.listen('tcp:127.0.0.1:0')]) {
    using client = await QmpClient.connect(where)
    t.ok(client.local)
    t.match(client.version, { qemu: { major: 10 }, package: 'multifd' })
    t.match(await client.command('query-status'), { status: 'prelaunch' })
    await t.rejects(client.command('no-such'), { name: 'QmpError', errorClass: 'CommandNotFound' })
    t.match(await Promise.all([client.command('query-migrate'), client.command('query-version')]), [{}, { qemu: {} }])
  }
  using client = await QmpClient.connect(program.path)
  const heard = new Promise((resolve) => client.once('event', (name) => resolve(name)))
  const closed = new Promise<void>((resolve) => client.once('close', () => resolve()))
  await client.command('quit')
  t.equal(await heard, 'SHUTDOWN')
  await closed
  await t.rejects(client.command('query-status'), { code: 'ERR_MULTIFD_CLOSED' })
})

t.test('who is no QMP server', async (t) => {
  await t.rejects(QmpClient.connect(join(folder, 'nobody')), { code: 'ERR_MULTIFD_CONNECT', errnoName: 'ENOENT' })
  await t.rejects(QmpClient.connect('tcp:127.0.0.1:1'), { code: 'ERR_MULTIFD_CONNECT', errnoName: 'ECONNREFUSED' })
  for (const where of ['fd:3', 'tcp:nowhere']) {
    await t.rejects(QmpClient.connect(where), { code: 'ERR_MULTIFD_ARGUMENT' }, where)
  }
  const timeoutMs = 100
  const kinds: [string, (socket: Socket) => void, string][] = [
    ['says nothing', () => {}, 'ERR_MULTIFD_TIMEOUT'],
    ['closes', (socket) => socket.end(), 'ERR_MULTIFD_CLOSED'],
    ['speaks HTTP', (socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'), 'ERR_MULTIFD_PROTOCOL'],
    ['says another object', (socket) => socket.write('{"hello": 1}\n'), 'ERR_MULTIFD_PROTOCOL'],
    ['says null', (socket) => socket.write('null\n'), 'ERR_MULTIFD_PROTOCOL'],
    ['answers before it greets', (socket) => socket.write('{"return": {}}\n'), 'ERR_MULTIFD_PROTOCOL'],
    ['greets with nonsense', (socket) => socket.write('{"QMP": 5}\n'), 'ERR_MULTIFD_PROTOCOL'],
  ]
  for (const [name, answer, code] of kinds) {
    await t.rejects(QmpClient.connect(await answers(t, answer), { timeoutMs }), { code }, name)
  }
  const abort = new AbortController()
  const silent = await answers(t, () => {})
  const aborted = QmpClient.connect(silent, { signal: abort.signal })
  abort.abort()
  await t.rejects(aborted, { code: 'ERR_MULTIFD_ABORTED' })
})
