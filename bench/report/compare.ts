// What became slower since another report, beyond the noise of both.
//
// Absolute figures of two machines, or of two days, say nothing: what is compared is each ratio to a peer of the same run
// (QEMU, the bare sockets). A ratio's noise is the standard error of its median, estimated from its range and its number
// of runs; as few runs may lie close together by chance, it is taken to be no less than the middle one of its report.

import type { Ratio, Spread } from '../statistics.js'
import { spread } from '../statistics.js'
import { machineLine } from './machine.js'
import type { Report } from './model.js'
import { table } from './table.js'

// Expected range of n values of a normal distribution, in standard deviations.
const RANGE = [Number.NaN, Number.NaN, 1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.97, 3.078]
// Standard error of a median, in those of a mean.
const MEDIAN = 1.25
// Standard errors of the difference: among a hundred ratios that did not change, one in three reports has one beyond.
const BEYOND = 3
// What nobody has to look at, however sure it is.
const LEAST = 0.05
// Where no ratio of a report was measured more than once.
const UNKNOWN = 0.1

export interface Change {
  /** What is compared, for people. */
  what: string
  before: Spread
  after: Spread
  /** Relative, above 0: better than before. */
  change: number
  /** Relative: changes up to here are chance. */
  noise: number
}

export interface ReportComparison {
  before: Report
  after: Report
  compared: number
  /** Ratios that only one of the reports has. */
  alone: number
  slower: Change[]
  faster: Change[]
}

interface Entry {
  what: string
  runs: number
  value: Spread
  /** 1 where more is better, and -1 where less is. */
  better: 1 | -1
}

export function compareReports(before: Report, after: Report): ReportComparison {
  const [old, now] = [entriesOf(before), entriesOf(after)]
  const deviations = [typicalDeviation(old), typicalDeviation(now)] as const
  const changes: Change[] = []
  for (const [key, a] of old) {
    const b = now.get(key)
    if (!b) continue
    const noise = BEYOND * Math.hypot(standardError(a, deviations[0]), standardError(b, deviations[1]))
    const change = a.better * (b.value.median / a.value.median - 1)
    changes.push({ what: a.what, before: a.value, after: b.value, change, noise: Math.max(LEAST, noise) })
  }
  const beyond = changes.filter(({ change, noise }) => Math.abs(change) > noise)
  return {
    ...{ before, after, compared: changes.length },
    alone: old.size + now.size - 2 * changes.length,
    slower: beyond.filter(({ change }) => change < 0),
    faster: beyond.filter(({ change }) => change > 0),
  }
}

export function formatComparison({ before, after, compared, alone, slower, faster }: ReportComparison): string {
  const rest = alone > 0 ? `; ${alone} that only one of them has` : ''
  const lines = [
    `compared with ${before.date}, ${machineLine(before.machine)}`,
    `${compared} ratios to peers of the same run${rest}`,
  ]
  if (compared === 0) lines.push('nothing to compare: the two have no ratio in common')
  if (machineLine(before.machine) !== machineLine(after.machine)) lines.push('not the same machine, or other versions')
  if (slower.length > 0) lines.push('', 'SLOWER beyond the noise:', ...changeTable(slower))
  else if (compared > 0) lines.push('nothing is slower beyond the noise')
  if (faster.length > 0) lines.push('', 'faster beyond the noise:', ...changeTable(faster))
  return lines.join('\n')
}

function changeTable(changes: readonly Change[]): string[] {
  const range = ({ median, min, max }: Spread): string => `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`
  const percent = (value: number): string => `${(100 * value).toFixed(0)} %`
  return table(
    ['ratio', 'before', 'now', 'change', 'noise'],
    changes.map(({ what, before, after, change, noise }) => [
      what,
      range(before),
      range(after),
      percent(change),
      `± ${percent(noise)}`,
    ]),
  )
}

// The ratio of the best channel counts is one of the others, picked by chance.
function entriesOf({ matrices }: Report): Map<string, Entry> {
  const entries = new Map<string, Entry>()
  for (const { part, bytes, ratios } of matrices) {
    for (const ratio of ratios) {
      if (ratio.best) continue
      const what = `${part}: ${nameOf(ratio, bytes)}`
      entries.set(`${what}, rate`, { what: `${what}, rate`, runs: ratio.runs, value: ratio.ratio, better: 1 })
      entries.set(`${what}, CPU`, { what: `${what}, CPU`, runs: ratio.runs, value: ratio.cpu, better: -1 })
    }
  }
  return entries
}

function nameOf({ over, under, data, method, memory, channels }: Ratio, bytes: number): string {
  return `${over} / ${under}, ${bytes / 1024 ** 2} MiB ${data}, ${method}, channels ${channels.over}, ${memory}`
}

/** Relative, of one run; undefined where there was only one. */
function deviation({ value: { median, min, max }, runs }: Entry): number | undefined {
  return runs < 2 ? undefined : (max - min) / median / RANGE[Math.min(runs, RANGE.length - 1)]!
}

function typicalDeviation(entries: ReadonlyMap<string, Entry>): number {
  const known = [...entries.values()].map(deviation).filter((one) => one !== undefined)
  return known.length === 0 ? UNKNOWN : spread(known).median
}

function standardError(entry: Entry, typical: number): number {
  const median = entry.runs > 2 ? MEDIAN : 1
  return (median * Math.max(deviation(entry) ?? typical, typical)) / Math.sqrt(entry.runs)
}
