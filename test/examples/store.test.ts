// The store that moves: its parts, real clients of Redis, and that nothing acknowledged is lost on the way.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { ask, Load } from '../../examples/store/client.js'
import { LIMITS, ReplyWriter, RequestParser } from '../../examples/store/resp.js'
import { Store } from '../../examples/store/store.js'
import { Table, VALUE_MAX } from '../../examples/store/table.js'
import { RamBlock } from '../../src/index.js'
import { run } from '../cli/cli.js'
import { noKernelLog as skip } from '../support/kernel.js'

const MIB = 2 ** 20
// Time within which the store's processes have noticed that it was ended.
const END_MS = 5000

t.setTimeout(300_000)

function requestsOf(...chunks: string[]): string[][] {
  const parser = new RequestParser()
  const requests: string[][] = []
  for (const chunk of chunks) {
    parser.push(Buffer.from(chunk, 'latin1'))
    for (let words = parser.next(); words; words = parser.next())
      requests.push(words.map((word) => word.toString('latin1')))
  }
  return requests
}

const stream =
  '*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*0\r\n\r\n*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n  echo   x \n'
const requests = [['GET', 'a'], ['PING'], ['SET', '\r\n', ''], ['echo', 'x']]

t.test('requests are taken apart wherever they are cut', async (t) => {
  t.strictSame(requestsOf(stream), requests)
  t.strictSame(requestsOf(...stream), requests, 'byte by byte')
  for (let at = 1; at < stream.length; at++) t.strictSame(requestsOf(stream.slice(0, at), stream.slice(at)), requests)
})

t.test('what is no request is refused', async (t) => {
  for (const bytes of [
    '*-1\r\n',
    '*x\r\n',
    '*\r\n',
    '*1\n',
    '*1\r$',
    `*${LIMITS.arguments + 1}\r\n`,
    '*1\r\n+PING\r\n',
    '*1\r\n$-1\r\n',
    `*1\r\n$${LIMITS.bulkBytes + 1}\r\n`,
    '*1\r\n$4\r\nPINGS\r\n',
    'x'.repeat(LIMITS.lineBytes + 1),
  ]) {
    t.throws(() => requestsOf(bytes), { name: 'ProtocolError' }, JSON.stringify(bytes.slice(0, 30)))
  }
  const most = `*1\r\n$${LIMITS.bulkBytes}\r\n${'x'.repeat(LIMITS.bulkBytes)}\r\n`
  t.equal(requestsOf(most)[0]![0]!.length, LIMITS.bulkBytes)
  const many = `*17\r\n${`$${LIMITS.bulkBytes}\r\n${'x'.repeat(LIMITS.bulkBytes)}\r\n`.repeat(17)}`
  t.throws(() => requestsOf(many.slice(0, -1)), { name: 'ProtocolError' }, 'more than all of a request may have')
})

t.test('replies are put together', async (t) => {
  const reply = new ReplyWriter()
  t.equal(reply.take(), undefined)
  reply.ok()
  reply.error('ERR two\r\nlines, ünd more')
  reply.integer(-5)
  reply.array(2)
  reply.bulk(undefined)
  reply.bulk(Buffer.alloc(9000, 'y'))
  const text = `+OK\r\n-ERR two  lines, ünd more\r\n:-5\r\n*2\r\n$-1\r\n$9000\r\n${'y'.repeat(9000)}\r\n`
  t.equal(reply.take()!.toString(), text)
  t.equal(reply.take(), undefined)
})

const key = fc.constantFrom(
  '',
  'a',
  'b',
  'key',
  'ключ',
  'x'.repeat(300),
  ...Array.from({ length: 20 }, (_, i) => `k${i}`),
)
const change = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('set'), key, length: fc.nat(5000) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('delete'), key, length: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear'), key: fc.constant(''), length: fc.constant(0) }) },
)

t.test('a table is a map, also where its block is copied to', async () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 200 }), (changes) => {
      const block = RamBlock.allocate({ idstr: 'store', size: MIB })
      const table = Table.create(block)
      const map = new Map<string, string>()
      for (const [at, { kind, key, length }] of changes.entries()) {
        const value = String.fromCharCode(97 + (at % 26)).repeat(length)
        if (kind === 'set') {
          if (!table.set(Buffer.from(key), Buffer.from(value))) throw new Error('no room')
          map.set(key, value)
        } else if (kind === 'delete') {
          if (table.delete(Buffer.from(key)) !== map.delete(key)) throw new Error('delete differs')
        } else {
          table.clear()
          map.clear()
        }
      }
      const other = RamBlock.allocate({ idstr: 'store', size: MIB })
      other.bytes().set(block.bytes())
      for (const one of [table, Table.open(other)]) {
        if (one.size !== map.size) throw new Error(`${one.size} keys, not ${map.size}`)
        for (const [key, value] of map) if (one.get(Buffer.from(key))?.toString() !== value) throw new Error(`'${key}'`)
      }
    }),
    { numRuns: 200 },
  )
})

t.test('a table that is full says so, loses nothing, and uses again what is given back', async (t) => {
  const block = RamBlock.allocate({ idstr: 'store', size: MIB })
  t.throws(() => Table.open(block), /no table/)
  const table = Table.create(block)
  const value = Buffer.alloc(1000, 'v')
  let count = 0
  while (table.set(Buffer.from(`key ${count}`), value)) count++
  t.ok(count > 900, `${count} values of 1000 bytes in 1 MiB`)
  t.notOk(table.set(Buffer.from('key 0'), Buffer.alloc(5000)))
  t.strictSame(table.get(Buffer.from('key 0')), value, 'what did not fit has changed nothing')
  t.notOk(table.set(Buffer.from('large'), Buffer.alloc(VALUE_MAX)))
  const used = table.usedBytes
  for (let i = 0; i < count; i++) if (!table.delete(Buffer.from(`key ${i}`))) t.fail(`key ${i}`)
  t.equal(table.usedBytes, 0)
  for (let i = 0; i < count; i++) if (!table.set(Buffer.from(`KEY ${i}`), value)) t.fail(`KEY ${i}`)
  t.equal(table.usedBytes, used)
})

async function started(t: Test, options: Record<string, string> = {}): Promise<{ store: Store; port: number }> {
  const store = new Store({ size: '64', ...options })
  t.teardown(async () => {
    const processes = childrenOf(store.pid)
    await store.end()
    const deadline = performance.now() + END_MS
    while (processes.some(isAlive)) {
      if (performance.now() > deadline) throw new Error("a process of the store's outlives it")
      await sleep(20)
    }
  })
  const { port } = await store.expect('listening')
  return { store, port }
}

t.test('commands, and what is wrong with them', { skip }, async (t) => {
  const { port } = await started(t)
  for (const [request, reply] of [
    ['PING', 'PONG'],
    ['ECHO x', 'x'],
    ['GET a', undefined],
    ['SET a 1', 'OK'],
    ['get a', '1'],
    ['SET a 1 EX 5', "-ERR wrong number of arguments for 'set' command"],
    ['MSET a 1 b', "-ERR wrong number of arguments for 'mset' command"],
    ['MSET a 1 b 22', 'OK'],
    ['STRLEN b', '2'],
    ['INCR a', '2'],
    ['INCRBY a -12', '-10'],
    ['DECR a', '-11'],
    ['INCRBY a 1.5', '-ERR value is not an integer or out of range'],
    ['SET n 9007199254740991', 'OK'],
    ['INCR n', '-ERR value is not an integer or out of range'],
    ['EXISTS a b c', '2'],
    ['DEL a c', '1'],
    ['DBSIZE', '2'],
    ['SELECT 1', '-ERR DB index is out of range'],
    ['FLUSHALL', 'OK'],
    ['DBSIZE', '0'],
    ['toString', "-ERR unknown command 'tostring'"],
  ] as const) {
    t.equal(await ask(port, ...request.split(' ')), reply, request)
  }
})

t.test('QMP tells how fast it changes, wherever it is', { skip }, async (t) => {
  const qmp = join(mkdtempSync(join(tmpdir(), 'multifd-store-')), 'qmp.sock')
  t.teardown(() => rmSync(dirname(qmp), { recursive: true, force: true }))
  const { store, port } = await started(t, { qmp })
  const load = new Load({ port, clients: 2, pipeline: 4, keys: 2000 })
  const measure = async (...args: string[]): Promise<Record<string, unknown>> => {
    const end = await run('dirty-rate', qmp, '--calc-time', '0.3', '--json', ...args)
    t.equal(end.code, 0, end.stderr)
    return JSON.parse(end.stdout)
  }
  const expected = { status: 'measured', 'calc-time': 300, 'calc-time-unit': 'millisecond' }
  const here = await measure('--mode', 'dirty-bitmap')
  t.match(here, { ...expected, mode: 'dirty-bitmap', 'sample-pages': 0 })
  t.ok(Number(here['dirty-rate']) > 0, `${here['dirty-rate']} MiB a second`)
  await ask(port, 'RELOCATE')
  await store.expect('moved')
  const there = await measure('--mode', 'dirty-bitmap')
  t.ok(Number(there['dirty-rate']) > 0, 'and after it has moved')
  t.same((await load.finish()).wrong, [])
})

const { MULTIFD_REQUIRE_CLIENTS } = process.env

for (const tool of ['redis-cli', 'redis-benchmark']) {
  const missing = spawnSync(tool, ['--version']).error && `there is no ${tool} (Debian: redis-tools)`
  if (missing && MULTIFD_REQUIRE_CLIENTS) t.fail(missing)
  t.test(`${tool} talks to it`, { skip: skip || (missing ?? false) }, async (t) => {
    const { store, port } = await started(t)
    const cli = (...args: string[]): string =>
      spawnSync('redis-cli', ['-p', `${port}`, ...args], { encoding: 'utf8' }).stdout
    if (tool === 'redis-cli') {
      t.equal(cli('set', 'greeting', 'hello, world'), 'OK\n')
      t.equal(cli('relocate'), 'Background relocation started\n')
      const { from, to } = await store.expect('moved')
      t.equal(cli('get', 'greeting'), 'hello, world\n')
      t.match(cli('info'), new RegExp(`process_id:${to}\r`))
      t.not(from, to)
      return
    }
    const args = ['-p', `${port}`, '-t', 'ping,set,get,incr,mset', '-n', '5000', '-P', '8', '-q', '--csv']
    const { status, stdout, stderr } = spawnSync(tool, args, { encoding: 'utf8' })
    t.equal(status, 0)
    t.equal(stderr, '')
    t.equal(stdout.trim().split('\n').length, 1 + 6, 'a row for each test')
  })
}

t.test('it moves to and fro under load, and nothing is lost', { skip }, async (t) => {
  const soak = fileURLToPath(new URL('../../examples/store/soak.js', import.meta.url))
  const { status, stdout, stderr } = spawnSync(process.execPath, [soak, '--migrations', '4', '--size', '64'], {
    encoding: 'utf8',
  })
  t.equal(stderr, '')
  t.match(stdout, /^wrong {10}0$/m)
  t.match(stdout, /^all is well$/m)
  t.equal(status, 0)
})

t.test('where the other process dies the store stays, and moves later', { skip }, async (t) => {
  const { store, port } = await started(t, { 'max-bandwidth': String(2 * MIB) })
  const load = new Load({ port, clients: 4, pipeline: 8, keys: 2000 })
  await sleep(500)
  const owner = Number(/process_id:(\d+)/.exec((await ask(port, 'INFO'))!)![1])
  const [other] = childrenOf(store.pid).filter((pid) => pid !== owner)
  t.equal(await ask(port, 'RELOCATE'), 'Background relocation started')
  t.equal(await ask(port, 'RELOCATE'), '-ERR the store is moving already')
  while (!/^relocation:active\r$/m.test((await ask(port, 'INFO'))!)) await sleep(20)
  await sleep(100)
  process.kill(other!, 'SIGKILL')
  const { message } = await store.expect('failed')
  t.match(message, /ended \(SIGKILL\)|the peer is gone|closed|reset/)
  await sleep(200)
  const report = await load.finish()
  t.same(report.wrong, [])
  t.ok(report.acknowledgedWrites > 1000)
  t.equal(await ask(port, 'SET', 'last', 'word'), 'OK')
  t.equal(await ask(port, 'RELOCATE'), 'Background relocation started')
  t.equal((await store.expect('moved')).from, owner)
  t.equal(await ask(port, 'GET', 'last'), 'word')
})

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
