// The examples do what they say.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { plainEnvironment } from '../support/environment.js'
import { findQemu, qemuVersions, requireQemu } from '../support/qemu/index.js'

const execute = promisify(execFile)

t.setTimeout(300_000)

async function run(name: string, ...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return await execute(process.execPath, [example(name), ...args], { env: plainEnvironment() })
}

function example(name: string): string {
  return fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url))
}

t.test('embedded: a program goes on in another process', async (t) => {
  const { stdout, stderr } = await run('embedded')
  t.equal(stderr, '')
  t.match(stdout, /^pass 1: 9216 pages sent, \d+ became dirty meanwhile\n/)
  t.match(stdout, /^left after \d+ ticks; the program stood still for \d+ ms$/m)
  const [, left] = /left after (\d+) ticks/.exec(stdout) ?? []
  t.match(stdout, new RegExp(`^arrived with ${left} ticks, went on to \\d+, all of them right$`, 'm'))
})

t.test('devices: state moves with the memory', async (t) => {
  const { stdout, stderr } = await run('devices')
  t.equal(stderr, '')
  t.match(stdout, /^port 1 has Hi, the session is \{"user":"ada","tabs":\[1,2\]\}$/m)
})

t.test('qmp: a manager moves a program that it knows by its socket only', async (t) => {
  const { stdout, stderr } = await run('qmp')
  t.equal(stderr, '')
  t.match(stdout, /^before: \{ status: 'running', running: true \}$/m)
  const events = [...stdout.matchAll(/^event: MIGRATION \{"status":"([\w-]+)"\}$/gm)].map(([, status]) => status)
  t.strictSame(events, ['setup', 'active', 'device', 'completed'])
  t.match(stdout, /^event: STOP/m)
  t.match(stdout, /^moved 16 MiB; after: \{ status: 'postmigrate', running: false \}$/m)
  t.match(stdout, /^there: came with \d+, went on to \d+, all of it right$/m)
})

for (const version of qemuVersions) {
  t.test(`save-and-revive: a guest of QEMU ${version}`, async (t) => {
    if (!requireQemu(t, version)) return
    const { binary, args } = findQemu(version)!
    const { stdout } = await run('save-and-revive', binary, ...args)
    t.match(stdout, /^the first machine is running$/m)
    t.match(stdout, /^saved: \d{2,} pages with data, \d{4,} zero pages$/m)
    t.match(stdout, new RegExp(`^the snapshot: machine type pc-i440fx-${version}, running when it was saved$`, 'm'))
    t.match(stdout, /^revived in \d+ ms: the second machine is running$/m)
  })
}

t.test('what can not work is one line, and no stack trace', async (t) => {
  for (const [name, args, code, stderr] of [
    ['save-and-revive', ['/nonexistent'], 1, /^spawn \/nonexistent ENOENT\n$/],
    ['store/client', ['1'], 1, /^connect ECONNREFUSED \S+\n$/],
    ['store/main', ['--bogus'], 2, /^Unknown option '--bogus'[^\n]*\nUsage: main\.js [^\n]+\n$/],
  ] as const) {
    await t.rejects(run(name, ...args), { code, stderr }, name)
  }
})
