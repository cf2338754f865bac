// Output that nobody takes: a pipe whose reader has gone, a disk that is full.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { readSnapshot } from '../../src/snapshot/file.js'
import { plainEnvironment } from '../support/environment.js'
import { onProcessEnd } from '../support/qemu/index.js'
import { cli, type Ended, recordedSnapshot, start } from './cli.js'

/** Where a stream goes: to a full disk, to a pipe that is closed after the first piece, or here. */
type Place = 'full' | 'closed' | 'read'

/** The command with its streams at such places. */
function startInto(stdout: Place, stderr: Place, ...args: string[]): { ended: Promise<Ended>; pid: number } {
  const full = openSync('/dev/full', 'w')
  const stdio = [stdout, stderr].map((place) => (place === 'full' ? full : 'pipe'))
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', ...stdio], env: plainEnvironment() })
  closeSync(full)
  const untrack = onProcessEnd(() => child.kill('SIGKILL'))
  const written = ['', '']
  for (const [at, place] of [stdout, stderr].entries()) {
    const stream = child.stdio[at + 1] as NodeJS.ReadableStream & { destroy(): void }
    stream?.on('data', (data) => {
      written[at] += data
      if (place === 'closed') stream.destroy()
    })
  }
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    untrack()
    return { code, signal, stdout: written[0]!, stderr: written[1]! }
  })
  return { ended, pid: child.pid! }
}

const FULL = 'multifd: standard output: ENOSPC, no space left on device (ERR_MULTIFD_FILE)\n'

function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)
}

t.jobs = 2
t.setTimeout(300_000)

t.test('a full standard output is one line and a failure', async (t) => {
  const { path } = recordedSnapshot(t.testdir())
  for (const args of [
    ['--help'],
    ['--version'],
    ['inspect', path],
    ['inspect', path, '--json'],
    ['demo', '--size', '16M'],
    ['demo', '--size', '16M', '--json'],
  ]) {
    const { code, stderr } = await startInto('full', 'read', ...args).ended
    t.equal(code, 1, args.join(' '))
    t.equal(stderr, FULL)
  }
})

t.test('a demo whose reader goes ends without a word, and takes its other process along', async (t) => {
  const demo = startInto('closed', 'read', 'demo', '--size', '64M')
  let children: string[] = []
  const look = setInterval(() => {
    if (children.length === 0) children = childrenOf(demo.pid)
  }, 5)
  const { code, stdout, stderr } = await demo.ended
  clearInterval(look)
  t.equal(code, 141, 'as of a process that SIGPIPE ends')
  t.match(stdout, /^A live migration on this machine/)
  t.equal(stderr, '')
  t.equal(children.length, 1)
  for (const pid of children) t.notOk(existsSync(`/proc/${pid}`))
})

t.test('a top whose reader goes ends without a word', async (t) => {
  const socket = join(t.testdir(), 'q')
  const serve = start('serve', '--qmp', `unix:${socket}`, '--ram', 'heap=1M')
  await serve.says(/QMP on/)
  for (const json of [[], ['--json']]) {
    const { code, stderr } = await startInto('closed', 'read', 'top', socket, '--interval', '0.1', ...json).ended
    t.equal(code, 141)
    t.equal(stderr, '')
  }
  serve.kill('SIGTERM')
  await serve.ended
})

for (const place of ['full', 'closed'] as const) {
  t.test(`a migration does not mind that its standard error is ${place}`, async (t) => {
    const dir = t.testdir()
    const { path } = recordedSnapshot(dir)
    // A socket's path may have 107 bytes.
    const folder = mkdtempSync(join(tmpdir(), 'multifd-test-'))
    t.teardown(() => rmSync(folder, { recursive: true }))
    const [socket, output] = [join(folder, 's'), join(dir, 'received')]
    const receive = startInto('read', place, 'receive', `unix:${socket}`, '-o', output, '--log-level', 'debug')
    while (!existsSync(socket)) await sleep(5)
    const send = startInto('read', place, 'send', path, `unix:${socket}`, '--log-level', 'trace')
    t.equal((await send.ended).code, 0)
    t.equal((await receive.ended).code, 0)
    t.equal(readSnapshot(output).blocks.length, readSnapshot(path).blocks.length)
    const missing = await startInto('read', place, 'send', join(dir, 'missing'), `unix:${socket}`).ended
    t.equal(missing.code, 1, 'nor does a failure become anything else')
  })
}
