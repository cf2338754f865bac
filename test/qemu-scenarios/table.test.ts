// docs/interop.md agrees with the rows, and with what comes of running those that no other test of the default run covers.

import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { requireQemu } from '../support/qemu/index.js'
import { requireOpenssl } from '../support/tls/credentials.js'
import { DOCUMENT, entriesOf, readTable } from './document.js'
import { outcome } from './outcome.js'
import { ROWS } from './rows/index.js'
import { NONE, versionsOf } from './table.js'

const VERSION = '10.0'
const table = readTable(readFileSync(DOCUMENT, 'utf8'))

function line(name: string, roles: string, version: string) {
  return table.find((line) => line.name === name && line.roles === roles && line.version === version)
}

t.test('the document has every row, and no other', async (t) => {
  const expected = ROWS.flatMap((row) => [
    ...entriesOf(row).map(({ name, roles, version }) => `${name} ${roles} ${version}`),
    ...row.runs.flatMap((run) => versionsOf(run).map((version) => `${row.name} ${run.roles.join(' ')} ${version}`)),
  ])
  const there = table.map(({ name, roles, version }) => `${name} ${roles} ${version}`)
  t.strictSame(there.sort(), expected.sort())
  t.notOk(
    table.find(({ result }) => result === 'fails'),
    'no row fails',
  )
  for (const { name, without } of ROWS) if (without !== undefined) t.match(line(name, NONE, NONE), { seen: without })
})

t.test('tests that cover a row are there', async (t) => {
  for (const path of new Set(ROWS.flatMap(({ runs }) => runs.flatMap(({ covered }) => covered ?? [])))) {
    t.ok(existsSync(new URL(`../../../${path}`, import.meta.url)), path)
  }
})

t.setTimeout(290_000)
t.test(`with QEMU ${VERSION}`, { jobs: 3, timeout: 280_000 }, async (t) => {
  if (!requireQemu(t, VERSION) || !requireOpenssl(t)) return
  for (const { name, runs } of ROWS) {
    for (const run of runs) {
      if (run.covered !== undefined) continue
      const roles = run.roles.join(' ')
      t.test(`${name} [${roles}]`, async (t) => {
        const { result, seen } = await outcome(run, VERSION)
        t.match(line(name, roles, versionsOf(run)[0]!), { result, seen }, `${result}: ${seen}`)
      })
    }
  }
})
