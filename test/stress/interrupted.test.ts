// What is interrupted of the long commands for developers leaves nothing.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { plainEnvironment } from '../support/environment.js'
import { onProcessEnd } from '../support/qemu/cleanup.js'

t.setTimeout(120_000)

for (const { name, args, begun } of [
  { name: 'stress', args: ['--seed', '1', '--no-namespaces', '--memory', '4'], begun: /^run 0: /m },
  { name: 'faults', args: ['--points', 'disk-full'], begun: /^ok /m },
]) {
  t.test(`npm run ${name}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'multifd-interrupted-'))
    t.teardown(() => rmSync(folder, { recursive: true, force: true }))
    const main = fileURLToPath(new URL(`../${name}/main.js`, import.meta.url))
    const child = spawn(process.execPath, [main, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...plainEnvironment(), TMPDIR: folder },
    })
    const untrack = onProcessEnd(() => child.kill('SIGKILL'))
    let written = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      written += text
      if (begun.test(written)) child.kill('SIGINT')
    })
    const [, signal] = await once(child, 'close')
    untrack()
    t.equal(signal, 'SIGINT')
    t.strictSame(readdirSync(folder), [])
  })
}
