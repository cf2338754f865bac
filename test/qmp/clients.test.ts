// Clients that are not ours: socat, as a person types, and a library for Node.

import { spawn, spawnSync } from 'node:child_process'
import { type EventEmitter, once } from 'node:events'
import { createRequire } from 'node:module'
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import { type MigrationDestination, type MigrationSource, QmpServer } from '../../src/index.js'
import { QmpLine } from './dialogue.js'
import { QmpProgram, temporaryFolder } from './program.js'

/** The package qemu-qmp, which has no types. */
interface QemuQmp extends EventEmitter {
  version: unknown
  connect(path: string, connected: (error: Error | null) => void): void
  execute(command: string, args: object, done: (error: Error | null, result?: unknown) => void): void
  end(): void
}
const QemuQmp = createRequire(import.meta.url)('qemu-qmp') as new () => QemuQmp

const folder = temporaryFolder(t)
const program = await new QmpProgram(folder, { side: 'source', running: true, size: 2 ** 20 }).listen()
t.teardown(() => program.close())

t.test('several clients at once, over tcp too; every one hears the events, with their time', async (t) => {
  const uri = await program.server.listen('tcp:127.0.0.1:0')
  const port = Number(uri.split(':').at(-1))
  const [one, two, deaf] = [
    await program.connect(),
    await QmpLine.connect({ host: '127.0.0.1', port }),
    await program.connect(),
  ]
  for (const line of [one, two, deaf]) await line.next()
  for (const line of [one, two]) await line.command('qmp_capabilities')
  await one.command('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] })
  await two.command('migrate', { uri: `unix:${folder}/nobody` })
  await one.waitEvent('MIGRATION')
  await two.waitEvent('MIGRATION')
  while ((await one.command<{ status: string }>('query-migrate')).status !== 'failed') await sleep(5)
  t.equal(deaf.events.length, 0, 'not before it has negotiated')
  const [first] = two.raw.split('\r\n').filter((line) => line.includes('"event"'))
  const { timestamp } = JSON.parse(first!) as { timestamp: { seconds: number; microseconds: number } }
  t.ok(Math.abs(timestamp.seconds - Date.now() / 1000) < 60 && timestamp.microseconds < 1_000_000)
  for (const line of [one, two, deaf]) line.close()
})

t.test('migrations that the program begins itself are seen, and cancelled', async (t) => {
  const line = await program.connect()
  await line.next()
  await line.command('qmp_capabilities')
  const source = program.migration as MigrationSource
  const listener = await new QmpProgram(temporaryFolder(t), { side: 'destination', size: 2 ** 20 }).listen()
  t.teardown(() => listener.close())
  const destination = listener.migration as MigrationDestination
  source.setParameters({ maxBandwidth: 100_000 })
  const migrated = source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await new Promise((resolve) => source.once('passBegin', resolve))
  t.match(await line.command('query-migrate'), { status: 'active', ram: { total: 2 ** 20 } })
  t.match(await line.command('query-yank'), [{ type: 'migration' }])
  await line.command('migrate_cancel')
  await t.rejects(migrated, { code: 'ERR_MULTIFD_ABORTED' })
  t.match(await line.command('query-migrate'), { status: 'cancelled' })
  line.close()
})

t.test('socat', async (t) => {
  if (spawnSync('socat', ['-V']).status !== 0) {
    const missing = 'socat is not installed'
    const { MULTIFD_REQUIRE_CLIENTS } = process.env
    if (MULTIFD_REQUIRE_CLIENTS) t.fail(missing)
    else t.pass(missing, { skip: missing })
    return
  }
  const child = spawn('socat', ['-t', '5', '-', `UNIX-CONNECT:${program.path}`], { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    // It ends its side once it has what it wants.
    if (text.includes('"thread"')) child.stdin.end()
  })
  child.stdin.write("{'execute': 'qmp_capabilities'}\n{ 'execute':\n 'query-status', 'id': 'thread' }\n")
  await once(child, 'close')
  const lines = text
    .trim()
    .split('\r\n')
    .map((line) => JSON.parse(line))
  t.match(lines, [{ QMP: {} }, { return: {} }, { return: { running: true }, id: 'thread' }])
})

t.test('qemu-qmp', async (t) => {
  const qmp = new QemuQmp()
  await promisify(qmp.connect.bind(qmp))(program.path)
  const execute: (command: string, args?: object) => Promise<unknown> = promisify(
    (command: string, args: object | undefined, done: (error: Error | null, result?: unknown) => void) => {
      qmp.execute(command, args ?? {}, done)
    },
  )
  t.match(qmp.version, { qemu: { major: 10 } })
  t.match(await execute('query-status'), { running: true })
  t.strictSame(await execute('migrate-set-parameters', { 'multifd-channels': 3 }), {})
  t.match(await execute('query-migrate-parameters'), { 'multifd-channels': 3 })
  await t.rejects(execute('migrate', { uri: 'nonsense' }), { message: 'unknown migration protocol: nonsense' })
  const ended = once(qmp, 'close')
  qmp.end()
  await ended
})

t.test('a socket that somebody listens on is not taken; one that was left is', async (t) => {
  const other = new QmpServer({ source: program.migration as MigrationSource })
  await t.rejects(other.listen(`unix:${program.path}`), { code: 'ERR_MULTIFD_LISTEN' })
  await t.rejects(other.listen('fd:3'), { code: 'ERR_MULTIFD_ARGUMENT' })
  await other.close()
  await t.rejects(other.listen('tcp:127.0.0.1:0'), { code: 'ERR_MULTIFD_STATE' })
  t.throws(() => new QmpServer({}), { code: 'ERR_MULTIFD_ARGUMENT' })
})

t.test('quit: the reply, the event, the end', async (t) => {
  const line = await program.connect()
  await line.next()
  await line.command('qmp_capabilities')
  t.strictSame(await line.command('quit'), {})
  await line.waitEvent('SHUTDOWN')
  t.ok(program.hasQuit)
  await new Promise<void>((resolve) => {
    createConnection(program.path).once('error', () => resolve())
  })
})
