// What no client should send: each such line is answered with an error, and the server goes on.

import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { JsonStream, MESSAGE_MAX, NESTING_MAX } from '../../src/qmp/json-stream.js'
import type { QmpLine } from './dialogue.js'
import { QmpProgram, temporaryFolder } from './program.js'

const folder = temporaryFolder(t)
const program = await new QmpProgram(folder, { side: 'source', running: true, size: 2 ** 20 }).listen()
t.teardown(() => program.close())

async function client(negotiate = true): Promise<QmpLine> {
  const line = await program.connect()
  await line.next()
  if (negotiate) await line.command('qmp_capabilities')
  return line
}

async function alive(test: Test, line: QmpLine): Promise<void> {
  test.match(await line.command('query-status'), { status: 'running' }, 'this connection lives')
  const other = await client()
  test.match(await other.command('query-migrate'), {}, 'and the server')
  other.close()
}

type Answer = { error?: { class: string; desc: string }; return?: unknown }

t.test('10,000 random JSON lines: an error each, in their order', async (t) => {
  const line = await client()
  const names = [
    'migrate',
    'migrate_cancel',
    'migrate-set-capabilities',
    'migrate-set-parameters',
    'query-status',
    'yank',
  ]
  const request = fc.record(
    {
      execute: fc.oneof(fc.constantFrom(...names), fc.string()),
      arguments: fc.dictionary(fc.string(), fc.jsonValue(), { minKeys: 1 }),
    },
    { requiredKeys: ['execute'] },
  )
  const values = fc.sample(fc.oneof(fc.jsonValue(), request), { numRuns: 10_000, seed: 5 })
  for (const [index, value] of values.entries()) {
    line.send(`${JSON.stringify(value)}\n{"execute":"no-such-${index}"}\n`)
  }
  let errors = 0
  for (const index of values.keys()) {
    const answer = (await line.next()) as Answer
    if (answer.error) errors++
    else if (answer.return === undefined) t.fail(JSON.stringify(answer))
    const marker = (await line.next()) as Answer
    if (!marker.error?.desc.includes(`no-such-${index} `)) t.fail(`answer ${index} is out of order`)
  }
  t.ok(errors > 9000, `${errors} errors`)
  await alive(t, line)
  line.close()
})

t.test('random bytes: never silence, never the end', async (t) => {
  const line = await client()
  for (const text of fc.sample(fc.string({ unit: 'binary', minLength: 1 }), { numRuns: 1000, seed: 6 })) {
    line.send(Buffer.concat([Buffer.from(text), Buffer.from([0xff])]))
  }
  line.send('{"execute":"query-status","id":"last"}\n')
  for (;;) {
    const answer = (await line.next()) as Answer & { id?: unknown }
    if (answer.id === 'last') break
    t.equal(answer.error?.class, 'GenericError')
  }
  await alive(t, line)
  line.close()
})

t.test('lines without an end', async (t) => {
  for (const [name, start] of [
    ['a word', 'x'],
    ['a string', '"'],
    ['an array', '['],
    ['an object', '{"execute":"'],
  ] as const) {
    const line = await client()
    line.send(start)
    const megabyte = Buffer.alloc(MESSAGE_MAX, 'x')
    for (let sent = 0; sent < 8; sent++) line.send(megabyte)
    const answer = (await line.next()) as Answer
    t.match(answer.error?.desc, /size limit/, name)
    line.send('\n')
    await alive(t, line)
    t.strictSame(line.raw.match(/size limit/g)?.length, 1, 'one error, however long it is')
    line.close()
  }
})

t.test('deep nesting', async (t) => {
  const line = await client()
  t.match(await line.ask(`${'['.repeat(NESTING_MAX)}${']'.repeat(NESTING_MAX)}\n`), { error: { desc: /JSON object/ } })
  t.match(await line.ask(`${'['.repeat(NESTING_MAX + 1)}\n`), { error: { desc: /nesting/ } })
  await alive(t, line)
  line.close()
})

t.test('half lines', async (t) => {
  const line = await client()
  t.match(await line.ask('{"execute": "query-sta\n'), { error: { desc: /JSON parse error/ } })
  t.match(await line.ask('{"execute":\n{"execute":"query-status"}\n'), { error: { desc: /JSON parse error/ } })
  t.match(await line.next(), { return: { status: 'running' } }, 'the request after it is carried out')
  line.send('{"execute": "query-')
  await sleep(20)
  t.match(await line.ask('status"}'), { return: { status: 'running' } }, 'in two pieces, and without an end of line')
  line.send('{"execute": {"a": [')
  line.send(Buffer.from([0xff]))
  t.match(await line.next(), { error: { desc: /JSON parse error/ } }, 'a byte that begins anew')
  await alive(t, line)
  line.send('{"execute": "query-status"')
  line.close()
  const other = await client()
  await alive(t, other)
  other.close()
})

t.test('a client that never reads is not read from, and keeps nobody up', async (t) => {
  const { createConnection } = await import('node:net')
  const socket = createConnection(program.path)
  socket.pause()
  socket.on('error', () => {})
  let sent = 0
  const request = Buffer.from('{"execute":"query-migrate-parameters"}\n'.repeat(1000))
  while (sent < 200 && socket.write(request)) sent++
  await sleep(100)
  const line = await client()
  await alive(t, line)
  line.close()
  socket.destroy()
})

t.test('requests before the negotiation are refused, and events wait for it', async (t) => {
  const line = await client(false)
  t.match(await line.ask({ execute: 'migrate', arguments: { uri: 'unix:/nowhere' } }), {
    error: { class: 'CommandNotFound' },
  })
  await alive(t, await client())
  line.close()
})

t.test('the stream: values as they come, however they are cut', async (t) => {
  const values = [{ a: ["it's", '"', { b: null }] }, 'x', 12, [[]], { execute: "o'c", id: '{[' }]
  const quoted = `{'k': 'a"b\\'c', "d": "e'f"}`
  const text = Buffer.from([...values.map((value) => JSON.stringify(value)), quoted].join('\n'))
  const expected = [...values, { k: 'a"b\'c', d: "e'f" }]
  for (let cut = 1; cut < text.length; cut++) {
    const heard: unknown[] = []
    const stream = new JsonStream({
      value: (value) => heard.push(value),
      error: (reason) => heard.push(new Error(reason)),
    })
    for (let at = 0; at < text.length; at += cut) stream.push(text.subarray(at, at + cut))
    t.strictSame(heard, expected)
  }
})

t.test('a value of very many lines takes no longer for each of them', async (t) => {
  let errors = 0
  const stream = new JsonStream({ value: () => t.fail('no value'), error: () => errors++ })
  // Of a time that grows with the square, this were many minutes.
  stream.push(Buffer.from(`[${'\n'.repeat(MESSAGE_MAX / 4)}`))
  stream.push(Buffer.from('}\n'))
  t.equal(errors, 1)
})
