// The table as docs/interop.md has it: written by npm run interop, and read by the test that holds it to the rows.

import type { QemuVersion } from '../support/qemu/index.js'
import type { Outcome } from './outcome.js'
import { NONE, type Row } from './table.js'

/** Compiled, this file is two folders deeper. */
export const DOCUMENT = new URL('../../../docs/interop.md', import.meta.url)

const BEGIN = '<!-- npm run interop: from here to the end mark -->'
const END = '<!-- npm run interop: end -->'

/** A line of the table. */
export type Entry = { name: string; roles: string; version: QemuVersion | typeof NONE } & Outcome

/** Of a row in which we have no part. */
export function entriesOf({ name, without }: Row): Entry[] {
  return without === undefined ? [] : [{ name, roles: NONE, version: NONE, result: 'not applicable', seen: without }]
}

/** The document with a new table in its place. */
export function withTable(text: string, entries: readonly Entry[], releases: readonly string[], accel: string): string {
  const [before, after] = [text.indexOf(BEGIN), text.indexOf(END)]
  if (before < 0 || after < before) throw new Error('docs/interop.md has no place for the table')
  const counts = new Map<string, number>()
  for (const { result } of entries) counts.set(result, (counts.get(result) ?? 0) + 1)
  const lines = [
    `Made by \`npm run interop\` with QEMU ${releases.join(' and ')} under ${accel}: ` +
      `${[...counts].map(([result, count]) => `${count} × ${result}`).join(', ')}.`,
    '',
    '| scenario | role | QEMU | result | seen |',
    '|---|---|---|---|---|',
    ...merged(entries).map(({ name, roles, version, result, seen }) => {
      return `| ${[`\`${name}\``, roles, version, result, seen.replaceAll('|', '\\|')].join(' | ')} |`
    }),
  ]
  return `${text.slice(0, before)}${BEGIN}\n\n${lines.join('\n')}\n\n${text.slice(after)}`
}

// Two versions of which the same was seen share a line.
function merged(entries: readonly Entry[]): (Omit<Entry, 'version'> & { version: string })[] {
  const lines: (Omit<Entry, 'version'> & { version: string })[] = []
  for (const entry of entries) {
    const same = lines.find(({ name, roles, result, seen }) => {
      return name === entry.name && roles === entry.roles && result === entry.result && seen === entry.seen
    })
    if (same) same.version += `, ${entry.version}`
    else lines.push({ ...entry })
  }
  return lines
}

/** The table's entries. */
export function readTable(text: string): Entry[] {
  const table = text.slice(text.indexOf(BEGIN), text.indexOf(END))
  const lines = [...table.matchAll(/^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| (.*) \|$/gm)]
  return lines.flatMap(([, name, roles, versions = '', result, text = '']) => {
    const seen = text.replaceAll('\\|', '|')
    return versions.split(', ').map((version) => ({ name, roles, version, result, seen }) as Entry)
  })
}
