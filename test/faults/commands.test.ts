// Commands that are broken from outside, by the environment: one line, the exit status, and nothing left.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { MigrationSource } from '../../src/index.js'
import { FAULTS_VARIABLE } from '../../src/shm/fault-points.js'
import { start } from '../cli/cli.js'
import { allocate, fillMixed, rejection, worksAgain } from '../support/peers/index.js'
import { faultsPage } from './table.js'

const folder = mkdtempSync(join(tmpdir(), 'multifd-broken-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** What a command ends with that has something armed. */
async function broken(order: string) {
  const ram = allocate([{ idstr: 'heap', size: 2 ** 20 }])
  ram.forEach(fillMixed)
  const source = new MigrationSource({ ram })
  process.env[FAULTS_VARIABLE] = order
  const command = start('receive', 'tcp:127.0.0.1:0', '-o', join(folder, 'snapshot'))
  delete process.env[FAULTS_VARIABLE]
  const uri = await command.says(/listening on (tcp:\S+)/)
  await rejection(source.migrate(uri))
  return { ended: await command.ended, source, ram }
}

for (const [order, says] of [
  ['disk-full', /full/],
  ['destination:disk-sync-fails', /EIO/],
  ['channel-dies@2', /thread of channel \d died/],
  ['main-dies', /coordinator thread died/],
] as const) {
  t.test(`multifd receive with ${order}`, async (t) => {
    const { ended, source, ram } = await broken(order)
    t.equal(ended.code, 1)
    t.match(ended.stderr, says)
    t.strictSame(readdirSync(folder), [], 'no file is left')
    await worksAgain(t, source, ram)
  })
}

t.test('what is armed and no point is refused', async (t) => {
  process.env[FAULTS_VARIABLE] = 'typo'
  const command = start('receive', 'tcp:127.0.0.1:0', '-o', join(folder, 'snapshot'))
  delete process.env[FAULTS_VARIABLE]
  const { code, stderr } = await command.ended
  t.equal(code, 2)
  t.match(stderr, /no fault point 'typo'/)
})

t.test('docs/faults.md has the table', async (t) => {
  const { is, mustBe } = faultsPage()
  t.equal(is, mustBe, 'node dist/test/faults/table.js writes it')
})
