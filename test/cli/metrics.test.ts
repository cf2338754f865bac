// --metrics of the commands.

import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { run, start } from './cli.js'

t.test('receive serves metrics while it waits, and says where', async (t) => {
  const receiving = start('receive', 'tcp:127.0.0.1:0', '-o', join(t.testdir(), 'x'), '--metrics', '127.0.0.1:0')
  const url = await receiving.says(/metrics on (http:\S+)/)
  await receiving.says(/listening on (\S+)/)
  const text = await (await fetch(url)).text()
  t.match(text, /^multifd_migration_status\{migration="destination",status="setup"\} 1$/m)
  receiving.kill('SIGINT')
  t.equal((await receiving.ended).code, 130)
  await t.rejects(fetch(url), 'and not afterwards')
})

t.test('a port that is taken, a host that nobody knows: one line, and nothing is begun', async (t) => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const dir = t.testdir()
  const receive = (at: string) => run('receive', 'tcp:127.0.0.1:0', '-o', join(dir, 'x'), '--metrics', at)
  const serve = (at: string) => run('serve', '--qmp', `unix:${dir}/qmp`, '--ram', 'a=1M', '--metrics', at)
  const [used, unknown, served, wrong] = await Promise.all([
    receive(`127.0.0.1:${port}`),
    receive('no-such-host.invalid:0'),
    serve(`127.0.0.1:${port}`),
    receive('9464'),
  ])
  t.match(used, {
    code: 1,
    stderr: /^multifd: metrics .*: EADDRINUSE, address already in use \(ERR_MULTIFD_LISTEN\)\n$/,
  })
  t.match(served, {
    code: 1,
    stderr: /^multifd: metrics .*: EADDRINUSE, address already in use \(ERR_MULTIFD_LISTEN\)\n$/,
  })
  t.match(unknown, { code: 1, stderr: /^multifd: metrics .*no-such-host.* \(ERR_MULTIFD_LISTEN\)\n$/ })
  t.match(wrong, { code: 2, stderr: /HOST:PORT/ })
  taken.close()
})
