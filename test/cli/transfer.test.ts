// multifd receive and multifd send, each a process of its own, with each other and alone.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { readSnapshot } from '../../src/snapshot/file.js'
import { blockHashes } from '../snapshot/content.js'
import { type Ended, recordedSnapshot, result, run, start } from './cli.js'

const LISTENING = /^listening on (\S+)$/m
const FAR_TOO_SLOW = ['--max-bandwidth', '1M']

/** Both commands to their ends. */
async function move(path: string, output: string, uri: string, ...options: string[]): Promise<[Ended, Ended]> {
  const receive = start('receive', uri, '-o', output, ...options)
  const send = start('send', path, await receive.says(LISTENING), ...options)
  return await Promise.all([receive.ended, send.ended])
}

/** Waits until the memory has begun to come. */
async function halfway(output: string): Promise<void> {
  while ((statSync(`${output}.partial`, { throwIfNoEntry: false })?.size ?? 0) < 1_000_000) await sleep(5)
}

function isWhole(t: Test, output: string, recorded: ReturnType<typeof recordedSnapshot>): void {
  const { meta, path } = recorded
  const expected = Object.fromEntries(meta.ram_blocks.map(({ name, sha256 }) => [name, sha256]))
  const snapshot = readSnapshot(output)
  t.strictSame(blockHashes(snapshot), expected, 'every RAM block has the recorded content')
  t.same(Buffer.compare(snapshot.deviceState, readSnapshot(path).deviceState), 0, 'and the device state is the same')
  t.notOk(existsSync(`${output}.partial`))
}

t.jobs = 2
t.setTimeout(300_000)

for (const { name, options } of [
  { name: 'two channels', options: [] },
  { name: 'eight channels', options: ['-c', '8'] },
  { name: 'one connection', options: ['--no-multifd'] },
]) {
  for (const transport of ['tcp', 'unix']) {
    t.test(`a snapshot is sent and received over ${name}, ${transport}`, async (t) => {
      const dir = t.testdir()
      const recorded = recordedSnapshot(dir)
      const output = join(dir, 'received.snapshot')
      // A socket's path may have 107 bytes.
      const folder = mkdtempSync(join(tmpdir(), 'multifd-test-'))
      t.teardown(() => rmSync(folder, { recursive: true }))
      const socket = join(folder, 'socket')
      const uri = transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${socket}`
      const [receive, send] = await move(recorded.path, output, uri, ...options)
      t.equal(receive.code, 0, receive.stderr)
      t.equal(send.code, 0, send.stderr)
      t.match(
        send.stderr,
        /(^|\n)sent: 408\.00 KiB of data, 4076 zero pages \(all passes\), in [\d.]+ m?s at [\d.]+ \wiB\/s\n$/,
      )
      t.match(receive.stderr, new RegExp(`\\n${output}: .* KiB of data, 4076 zero pages \\(all passes\\), in .*/s\\n$`))
      t.equal(receive.stdout + send.stdout, '')
      isWhole(t, output, recorded)
      t.notOk(existsSync(socket), 'no socket is left')
    })
  }
}

t.test('--json prints one object of query-migrate names', async (t) => {
  const dir = t.testdir()
  const recorded = recordedSnapshot(dir)
  const output = join(dir, 'received.snapshot')
  const ends = await move(recorded.path, output, 'tcp:127.0.0.1:0', '--json')
  isWhole(t, output, recorded)
  for (const end of ends) {
    t.equal(end.code, 0, end.stderr)
    const { status, ram, error, ...times } = result(end)
    t.equal(status, 'completed')
    t.equal(error, undefined)
    t.ok(times['total-time']! >= times['setup-time']!)
    const total = recorded.meta.ram_blocks.reduce((sum, block) => sum + block.used_length, 0)
    t.match(ram, { total, 'page-size': 4096, remaining: 0, normal: 102, duplicate: total / 4096 - 102 })
    t.ok(ram!.transferred >= ram!['normal-bytes']!)
  }
  t.type(result(ends[1]).downtime, 'number', 'the source knows the downtime')
  t.notMatch(ends[1].stderr, /sent:/, 'and nothing of it is said twice')
})

t.test('--json has the figures of XBZRLE', async (t) => {
  const dir = t.testdir()
  const recorded = recordedSnapshot(dir)
  const output = join(dir, 'received.snapshot')
  const receive = start('receive', 'tcp:127.0.0.1:0', '-o', output, '--no-multifd', '--json')
  const uri = await receive.says(LISTENING)
  const send = await run('send', recorded.path, uri, '--no-multifd', '--xbzrle', '--xbzrle-cache-size', '1M', '--json')
  t.equal(send.code, 0, send.stderr)
  t.equal((await receive.ended).code, 0)
  isWhole(t, output, recorded)
  t.strictSame((result(send) as { 'xbzrle-cache'?: object })['xbzrle-cache'], {
    'cache-size': 1024 * 1024,
    bytes: 0,
    pages: 0,
    'cache-miss': 0,
    overflow: 0,
    'cache-miss-rate': 0,
    'encoding-rate': 0,
  })
  t.notOk('xbzrle-cache' in result(await receive.ended), 'nothing of it came')
})

t.test('a snapshot that is missing, or none', async (t) => {
  const dir = t.testdir({ text: 'This is no snapshot.\n', empty: '' })
  for (const { file, code, says } of [
    { file: 'missing', code: 'ERR_MULTIFD_FILE', says: /missing: ENOENT/ },
    { file: '.', code: 'ERR_MULTIFD_FILE', says: /EISDIR/ },
    { file: 'text', code: 'ERR_MULTIFD_SNAPSHOT', says: /text is not a whole snapshot/ },
    { file: 'empty', code: 'ERR_MULTIFD_SNAPSHOT', says: /empty is not a whole snapshot/ },
  ]) {
    const end = await run('send', join(dir, file), 'tcp:127.0.0.1:1', '--json')
    t.equal(end.code, 1)
    t.match(result(end), { status: 'failed', error: { code, message: says } })
    t.match(end.stderr, /^multifd: [^\n]+\n$/, 'one line')
  }
})

t.test('nobody listens', async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  const end = await run('send', path, `tcp:127.0.0.1:${port}`, '--json')
  t.equal(end.code, 1)
  t.match(result(end), { status: 'failed', error: { code: 'ERR_MULTIFD_CONNECT', message: /ECONNREFUSED/ } })
  t.match(
    end.stderr,
    /^(sending: [^\n]*\n)*multifd: failed to connect to '127.0.0.1:\d+': ECONNREFUSED, connection refused \(ERR_MULTIFD_CONNECT\)\n$/,
  )
})

t.test('the address is taken', async (t) => {
  const dir = t.testdir()
  const first = start('receive', 'tcp:127.0.0.1:0', '-o', join(dir, 'first'))
  const uri = await first.says(LISTENING)
  const second = await run('receive', uri, '-o', join(dir, 'second'), '--json')
  t.equal(second.code, 1)
  t.match(result(second), { status: 'failed', error: { code: 'ERR_MULTIFD_LISTEN' } })
  first.kill('SIGINT')
  t.equal((await first.ended).code, 130)
})

t.test('the output can not be made', async (t) => {
  const dir = t.testdir({ folder: {} })
  for (const [output, says] of [
    [join(dir, 'nowhere', 'x'), /ENOENT/],
    [join(dir, 'folder'), /no regular file/],
    ['/dev/null', /no regular file/],
    ['/proc/x', /x\.partial: ENOENT/],
    [`${join(dir, 'new')}/`, /ENOENT/],
  ] as const) {
    const end = await run('receive', 'tcp:127.0.0.1:0', '-o', output, '--json')
    t.equal(end.code, 1)
    t.match(result(end), { status: 'failed', error: { code: 'ERR_MULTIFD_FILE', message: says } })
    t.notMatch(end.stderr, LISTENING, 'nobody is asked to connect')
  }
  t.ok(statSync('/dev/null').isCharacterDevice())
})

t.test('two can not receive into one file, and nobody else reads it', async (t) => {
  const output = join(t.testdir(), 'x')
  const first = start('receive', 'tcp:127.0.0.1:0', '-o', output)
  await first.says(LISTENING)
  while (!existsSync(`${output}.partial`)) await sleep(5)
  const second = await run('receive', 'tcp:127.0.0.1:0', '-o', output, '--json')
  t.equal(second.code, 1)
  t.notMatch(second.stderr, LISTENING)
  t.match(result(second), {
    status: 'failed',
    error: { code: 'ERR_MULTIFD_FILE', message: /somebody else is writing/ },
  })
  t.equal(statSync(`${output}.partial`).mode & 0o777, 0o600, 'the first one has its file')
  first.kill('SIGINT')
  t.equal((await first.ended).code, 130)
  t.notOk(existsSync(`${output}.partial`))
  writeFileSync(`${output}.partial`, 'left by one that was killed')
  const third = start('receive', 'tcp:127.0.0.1:0', '-o', output)
  await third.says(LISTENING)
  third.kill('SIGINT')
  t.equal((await third.ended).code, 130)
})

t.test('a name that can not be taken at the end fails both sides, and nothing is left', async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  const output = join(dir, 'x')
  const receive = start('receive', 'tcp:127.0.0.1:0', '-o', output)
  const uri = await receive.says(LISTENING)
  // The partial file is made by then, so the place of the name is looked at no more before the end.
  while (!existsSync(`${output}.partial`)) await sleep(5)
  mkdirSync(output)
  const send = await run('send', path, uri)
  t.equal(send.code, 1)
  t.match(send.stderr, /ERR_MULTIFD_REMOTE/)
  const end = await receive.ended
  t.equal(end.code, 1)
  t.match(end.stderr, /multifd: .*x: EISDIR, illegal operation on a directory \(ERR_MULTIFD_FILE\)\n$/)
  t.notOk(existsSync(`${output}.partial`))
})

t.test('another machine type or uuid is refused on both sides', async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  for (const [theirs, ours, says] of [
    [['--machine-type', 'pc-q35-9.0'], [], /machine type 'pc-i440fx-10.0' is not the expected 'pc-q35-9.0'/],
    [['--uuid', '00000000-0000-0000-0000-000000000001'], ['--uuid', '00000000-0000-0000-0000-000000000002'], /uuid/],
  ] as const) {
    const receive = start('receive', 'tcp:127.0.0.1:0', '-o', join(dir, 'x'), ...theirs)
    const send = await run('send', path, await receive.says(LISTENING), ...ours)
    const end = await receive.ended
    t.equal(end.code, 1)
    t.match(end.stderr, says)
    t.match(end.stderr, /ERR_MULTIFD_MACHINE/)
    t.equal(send.code, 1)
    t.notOk(existsSync(join(dir, 'x')))
    t.notOk(existsSync(join(dir, 'x.partial')))
  }
})

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  t.test(`${signal} in the middle: 130, and nothing is left of it`, async (t) => {
    const dir = t.testdir()
    const { path } = recordedSnapshot(dir)
    const output = join(dir, 'x')
    writeFileSync(output, 'what was there before')
    const receive = start('receive', 'tcp:127.0.0.1:0', '-o', output, '--json')
    const send = start('send', path, await receive.says(LISTENING), ...FAR_TOO_SLOW)
    await halfway(output)
    const began = performance.now()
    receive.kill(signal)
    const end = await receive.ended
    t.ok(performance.now() - began < 5000, 'it ends promptly')
    t.equal(end.code, 130)
    t.match(end.stderr, /multifd: interrupted\n$/)
    t.match(result(end), { status: 'cancelled', error: { code: 'ERR_MULTIFD_ABORTED' } })
    t.notOk(existsSync(`${output}.partial`))
    t.equal(readFileSync(output, 'utf8'), 'what was there before')
    t.equal((await send.ended).code, 1, 'the source is told')
  })
}

t.test('the source is interrupted', async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  const receive = start('receive', 'tcp:127.0.0.1:0', '-o', join(dir, 'x'))
  const send = start('send', path, await receive.says(LISTENING), '--json', ...FAR_TOO_SLOW)
  await halfway(join(dir, 'x'))
  send.kill('SIGINT')
  const end = await send.ended
  t.equal(end.code, 130)
  t.match(result(end), { status: 'cancelled', error: { code: 'ERR_MULTIFD_ABORTED' } })
  const other = await receive.ended
  t.equal(other.code, 1)
  t.match(other.stderr, /multifd: [^\n]+\(ERR_MULTIFD_\w+\)\n$/)
  t.notOk(existsSync(join(dir, 'x')))
})

t.test('--verbose logs to standard error, in JSON where that is no terminal', async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  const [receive, send] = await move(path, join(dir, 'x'), 'tcp:127.0.0.1:0', '--verbose')
  for (const { code, stdout, stderr } of [receive, send]) {
    t.equal(code, 0)
    t.equal(stdout, '')
    const logged = stderr.split('\n').filter((line) => line.startsWith('{'))
    t.ok(logged.length > 2)
    t.ok(logged.some((line) => JSON.parse(line).msg === 'migration status'))
  }
})
