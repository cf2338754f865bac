// npm run interop: runs every row of the table, and writes what came of it into docs/interop.md.
//
// With words of rows' names as arguments only those rows are run, and their lines replaced.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { endIdleThreads } from '../../src/index.js'
import { findQemu, kvmWorks } from '../support/qemu/index.js'
import { DOCUMENT, type Entry, entriesOf, readTable, withTable } from './document.js'
import { outcome } from './outcome.js'
import { ROWS } from './rows/index.js'
import { versionsOf } from './table.js'

const command = new Command('interop')
  .description(
    "Runs QEMU's own migration scenarios with us at one of the ends, and writes what came of them into docs/interop.md.",
  )
  .argument('[names...]', 'run only the scenarios with one of these in their names')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse()

const wanted = command.args
const strange = wanted.find((word) => !ROWS.some(({ name }) => name.includes(word)))
if (strange !== undefined) command.error(`error: no scenario has '${strange}' in its name`)
const rows = ROWS.filter(({ name }) => wanted.length === 0 || wanted.some((word) => name.includes(word)))
const entries: Entry[] = []
let failed = 0

for (const row of rows) {
  if (row.without !== undefined) entries.push(...entriesOf(row))
  for (const run of row.runs) {
    for (const version of versionsOf(run)) {
      const began = performance.now()
      const seen = await outcome(run, version)
      if (seen.result === 'fails') failed++
      entries.push({ name: row.name, roles: run.roles.join(' '), version, ...seen })
      const seconds = ((performance.now() - began) / 1000).toFixed(1)
      console.log(`${row.name} [${run.roles.join(' ')}] QEMU ${version}: ${seen.result}: ${seen.seen} (${seconds} s)`)
    }
  }
}
await endIdleThreads()

const path = fileURLToPath(DOCUMENT)
const text = readFileSync(path, 'utf8')
const others = wanted.length === 0 ? [] : readTable(text).filter(({ name }) => !rows.some((row) => row.name === name))
const order = ROWS.map(({ name }) => name)
const all = [...others, ...entries].sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name))
const releases = (['7.2', '10.0'] as const).map((version) => findQemu(version)!.release)
writeFileSync(path, withTable(text, all, releases, kvmWorks() ? 'KVM' : 'TCG'))
console.log(`${entries.length} entries, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
