// docs/faults.md: what is said of fault points, and the table of them.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { FAULT_POINTS, type FaultPoint } from '../../src/faults.js'

const PAGE = new URL('../../../docs/faults.md', import.meta.url)
const BEGIN = '| n | point |'

/** The page with its table as it must be. */
export function faultsPage(): { is: string; mustBe: string } {
  const is = readFileSync(PAGE, 'utf8')
  const at = is.indexOf(BEGIN)
  return { is, mustBe: `${at < 0 ? is : is.slice(0, at)}${table()}` }
}

function table(): string {
  const lines = [`${BEGIN} side | thread | needs | what breaks | outcome |`, '|---|---|---|---|---|---|---|']
  for (const [name, point] of Object.entries<FaultPoint>(FAULT_POINTS)) {
    const { number, sides, thread, needs = '', breaks } = point
    lines.push(`| ${[number, `\`${name}\``, sides.join(', '), thread, needs, breaks, outcome(point)].join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}

function outcome({ outcome, code, peer = [], lasts }: FaultPoint): string {
  const often = lasts ? ', lasts' : ''
  if (outcome !== 'fails') return `${outcome}${often}`
  const other = peer.length === 0 ? '' : `; the other side ${peer.join(', ')}`
  return `fails${often}: ${[code].flat().join(' or ')}${other}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PAGE, faultsPage().mustBe)
