// multifd top and multifd dirty-rate, at ours and at a QEMU; top on a terminal.

import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type Look, Watch } from '../../src/cli/top/watch.js'
import { type MigrationDestination, type MigrationSource, QmpClient, SnapshotReceiver } from '../../src/index.js'
import { QmpProgram, temporaryFolder } from '../qmp/program.js'
import { fillNoise } from '../support/peers/index.js'
import { requireQemu, startQemu } from '../support/qemu/index.js'
import { hasTerminal, onTerminal, run, start } from './cli.js'

const MIB = 2 ** 20

t.setTimeout(120_000)

const folder = temporaryFolder(t)
const size = 32 * MIB
const [one, other] = await Promise.all([
  new QmpProgram(folder, { side: 'source', running: true, size }).listen(),
  new QmpProgram(folder, { side: 'destination', size }).listen(),
])
const [source, destination] = [one.migration as MigrationSource, other.migration as MigrationDestination]
t.teardown(() => Promise.all([one.close(), other.close()]))
fillNoise(one.block)

t.test('before any migration there is a state, and nothing else', async (t) => {
  const { code, stdout } = await run('top', one.path, '--once', '--interval', '0.1')
  t.equal(code, 0)
  t.match(stdout, /^multifd top {2}\S+ {2}multifd \(QMP 10\.0\.0\)\n\nstate none, program running\n$/)
})

t.test('a migration that runs: state, rates, threads with their load', async (t) => {
  source.setParameters({ multifd: true, returnPath: true, maxBandwidth: MIB, multifdCompression: 'zlib' })
  destination.setParameters({ multifd: true, multifdCompression: 'auto' })
  const migrated = source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  const ended = t.rejects(migrated, { code: 'ERR_MULTIFD_ABORTED' })
  const lost = t.rejects(destination.completed)
  const looks = (...args: string[]) => run('top', `unix:${one.path}`, '--interval', '0.3', ...args)
  const [json, text, there] = await Promise.all([
    looks('--once', '--json'),
    looks('--once'),
    run('top', other.path, '--once', '--interval', '0.1', '--json'),
  ])
  const look = JSON.parse(json.stdout)
  t.match(look, {
    version: 'multifd (QMP 10.0.0)',
    status: 'active',
    'run-state': 'running',
    ram: { total: size, 'page-size': 4096, 'dirty-sync-count': 1 },
    threads: [{ name: 'mig/src/main', cpu: Number }, { name: 'mig/src/send_0' }, { name: 'mig/src/send_1' }],
  })
  const told = source.threads().map(({ threadId }) => threadId)
  t.strictSame(
    look.threads.map((thread: { 'thread-id': number }) => thread['thread-id']),
    told,
  )
  t.ok(look.rates.transferred > 0.3 * MIB && look.rates.transferred < 3 * MIB, `${look.rates.transferred} bytes/s`)
  const takes = (look.ram.remaining / look.rates.transferred) * 1000
  t.ok(Math.abs(look['remaining-time'] - takes) < 1, `${takes} ms`)
  t.match(text.stdout, /^state active, program running$/m)
  t.match(text.stdout, /^[█░]{40} \d+% {2}\d+\.\d+ MiB of 32\.00 MiB left$/m)
  t.match(text.stdout, /^mig\/src\/send_0 +\d+ +\d+%$/m)
  t.match(JSON.parse(there.stdout), { status: 'active', threads: [{ name: 'mig/dst/main' }] })
  t.equal(there.code, 0)

  const lines = start('top', one.path, '--interval', '0.1')
  await lines.prints(/\n.*\n/)
  lines.kill('SIGINT')
  const end = await lines.ended
  t.equal(end.code, 130)
  t.match(end.stdout, /^(active, pass 1, [\d.]+ \w+ sent, [\d.]+ \w+\/s, .*mig\/src\/main \d+%.*\n)+$/)
  t.notMatch(end.stdout, '\x1b', 'nothing for a terminal')
  source.cancel()
  await Promise.all([ended, lost])
})

t.test('on a terminal it draws, and Ctrl-C leaves it as it was', async (t) => {
  if (!hasTerminal(t)) return
  const drawnThrice = (text: string): boolean => text.split('\x1b[H').length >= 4
  const { code, text } = await onTerminal(60, ['top', one.path, '--interval', '0.1'], drawnThrice)
  t.equal(code, 130)
  t.ok(text.startsWith('\x1b[?1049h\x1b[?25l'), 'the other screen, without a cursor')
  const [drawn, left] = text.split('\x1b[?25h\x1b[?1049l') as [string, string]
  t.ok(drawn.includes('state cancelled, program running'))
  t.match(left, 'state cancelled, program running', 'what was seen last stays')
  t.notMatch(left, '\x1b')
  const lines = drawn.split('\x1b[K\r\n').map((line) => line.split('\x1b[H').at(-1)!)
  const longest = Math.max(...[...lines, ...left.split('\r\n')].map((line) => line.length))
  t.ok(longest < 60, `no line is longer than the terminal: ${longest}`)
})

t.test('who is not there, or ends', async (t) => {
  const nobody = join(folder, 'nobody')
  const [top, rate] = await Promise.all([run('top', nobody, '--json'), run('dirty-rate', nobody)])
  t.match(top, { code: 1, stderr: `multifd: ${nobody}: ENOENT, no such file or directory (ERR_MULTIFD_CONNECT)\n` })
  t.match(JSON.parse(top.stdout), { error: { code: 'ERR_MULTIFD_CONNECT' } })
  t.match(rate, { code: 1, stderr: /ENOENT, no such file or directory \(ERR_MULTIFD_CONNECT\)\n$/, stdout: '' })
  const short = await new QmpProgram(temporaryFolder(t), { side: 'source', size: MIB }).listen()
  const watching = start('top', short.path, '--interval', '0.1')
  await watching.prints(/\n/)
  await short.close()
  t.match(await watching.ended, { code: 0, stderr: 'the other side has ended\n' })
})

t.test('dirty-rate: refusals are told', async (t) => {
  const refused = await run('dirty-rate', one.path, '--mode', 'dirty-ring')
  t.match(refused, { code: 1, stderr: /dirty-ring is not enabled.* \(ERR_MULTIFD_REMOTE\)\n$/ })
  const measured = await run('dirty-rate', one.path, '--calc-time', '0.1')
  t.match(measured, {
    code: 0,
    stdout: '0 B/s (page-sampling, 512 pages a GiB, 100 ms)\n',
    stderr: 'measuring for 100 ms\n',
  })
})

t.test('dirty-rate: unknown is no rate', async (t) => {
  const path = join(temporaryFolder(t), 'socket')
  const info = { 'start-time': 1, 'calc-time': 1, 'sample-pages': 512, mode: 'page-sampling' }
  // As a QEMU without memory answers.
  const answers: Record<string, object> = {
    'query-dirty-rate': { ...info, status: 'measured', 'dirty-rate': -1 },
  }
  const server = createServer((socket) => {
    socket.write(
      '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\n',
    )
    createInterface(socket).on('line', (line) => {
      const { execute, id } = JSON.parse(line)
      socket.write(`${JSON.stringify({ return: answers[execute] ?? {}, id })}\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(() => server.close())
  for (const json of [[], ['--json']]) {
    const { code, stdout, stderr } = await run('dirty-rate', path, ...json)
    t.equal(code, 1)
    t.match(stderr, /the dirty rate is unknown there \(-1\): no memory could be measured \(ERR_MULTIFD_REMOTE\)\n$/)
    if (json.length > 0) t.match(JSON.parse(stdout), { error: { code: 'ERR_MULTIFD_REMOTE' } })
    else t.equal(stdout, '')
  }
})

/** By the command. */
async function lookOnce(path: string): Promise<Look> {
  return JSON.parse((await run('top', path, '--once', '--interval', '0.3', '--json')).stdout)
}

/** The same in this process. */
async function lookTwice(path: string): Promise<Look> {
  using client = await QmpClient.connect(path)
  const watch = new Watch(client)
  await watch.look()
  await sleep(300)
  return await watch.look()
}

for (const version of ['7.2', '10.0'] as const) {
  t.test(`QEMU ${version} is looked at as well`, async (t) => {
    if (!requireQemu(t, version)) return
    const qmp = join(folder, `qemu-${version}.sock`)
    const sink = join(folder, `sink-${version}`)
    const qemu = await startQemu({
      version,
      guest: 'running',
      extraArgs: ['-qmp', `unix:${qmp},server=on,wait=off`, '-name', 'guest,debug-threads=on'],
    })
    t.teardown(() => qemu.close())
    if (version === '10.0') {
      const rate = await run('dirty-rate', qmp, '--calc-time', '0.2', '--json')
      t.match(JSON.parse(rate.stdout), { status: 'measured', mode: 'page-sampling', 'dirty-rate': Number })
    }
    const receiver = new SnapshotReceiver(join(folder, `snapshot-${version}`), { parameters: { multifd: false } })
    t.teardown(() => receiver.close())
    const uri = await receiver.listen(`unix:${sink}`)
    await qemu.qmp.command('migrate-set-parameters', { 'max-bandwidth': 100_000 })
    await qemu.qmp.command('migrate', { uri })
    await qemu.waitPasses(1)
    const look = version === '10.0' ? await lookOnce(qmp) : await lookTwice(qmp)
    t.match(look, { version: new RegExp(`^QEMU ${version}`), status: 'active', 'run-state': 'running' })
    t.match(look.ram, { 'page-size': 4096, remaining: Number })
    t.ok(look.rates!.transferred > 0)
    if (version === '10.0') t.match(look.threads, [{ name: 'mig/src/main', cpu: Number }])
    else t.strictSame(look.threads, [], 'it does not tell them')
    await qemu.qmp.command('migrate_cancel')
    await t.rejects(receiver.completed)
  })
}
