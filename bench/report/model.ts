// The report as an object: what the JSON files have. Their `version` changes whenever a reader has to.

import type { BarrierPoint } from '../barrier.js'
import type { DowntimePoint } from '../downtime-rates.js'
import type { PartName } from '../parts.js'
import { type Comparison, compare, type Ratio, type Series, type Summary, summarise } from '../statistics.js'
import type { MachineFacts } from './machine.js'

export const SCHEMA = 'multifd-bench'
export const VERSION = 1

/** What the figures mean: part of every report. */
export const DEFINITIONS = [
  'rate: bytes of RAM a second, whatever of it goes over the wire, 1 GB = 10^9 bytes.',
  'data: random, text, code: no page is zero, all of it goes as data; mixed: half of the pages are zero; sparse: 2 MiB of 32 are data,',
  '  the rest was never written; zeros: all of it.',
  '  Made from a seed, 32 MiB of it, and repeated; random bytes are not repeated.',
  'transfer: from the end of the set-up until the source knows that the destination has everything and the migration',
  '  is "completed"; QEMU: total-time minus setup-time. total: the set-up counted too.',
  "set-up: from the order to migrate until the first page may go (threads, connections, the stream's introduction);",
  '  QEMU: setup-time. With the return path on, on both kinds of peer. The source alone holds the clock.',
  'QEMU → bare sockets: threads of Node that read a packet a call and do nothing else. Without a return path: what is on its',
  '  way at the end is not waited for.',
  "bare sockets: set-up until all threads of both sides stand ready; then until every socket's receiver answered one byte.",
  'method tls: x509 on every connection, both sides show a certificate; ciphers are what the two agree on.',
  'multifd, as source: times as the embedding program sees them.',
  "touched/untouched: the destination's memory is resident before, or fresh (with huge pages asked for, on every side).",
  'tmpfs/disk: a new file in memory, or on a disk. A QEMU has its RAM there, mapped; multifd writes a snapshot there, and',
  '  on a disk waits for it (fsync), which QEMU does not.',
  'fresh memory: as much is touched beforehand, and freed when the set-up is over: what a host took back is not measured.',
  'CPU: user and system seconds a GiB of RAM, source + destination; from the order to migrate, and from the order to',
  '  listen, to the end: starting threads is included on both sides. The source starts when the destination is at rest.',
  "beyond RAM: highest resident memory during a run minus the RAM's bytes, the runtime's own included. min–max in brackets.",
  'ratios: of transfer rates, run by run (one after the other in the same round), then the median. Above 1: the first is faster.',
  'ratio of CPU: of both sides together, run by run. Below 1: the first takes less.',
]

/** Pairings in turns over one size of RAM. */
export interface MatrixInput {
  part: PartName | 'matrix'
  /** Of RAM. */
  bytes: number
  series: readonly Series[]
  comparisons: readonly Comparison[]
}

export interface Matrix extends Omit<MatrixInput, 'comparisons'> {
  summaries: Summary[]
  ratios: Ratio[]
}

export interface ReportInput {
  /** ISO 8601. */
  date: string
  /** How much was measured: `quick`, `full`, or `chosen` by options. */
  form: 'quick' | 'full' | 'chosen'
  /** How long it took. */
  seconds: number
  machine: MachineFacts
  matrices: readonly MatrixInput[]
  downtime: readonly DowntimePoint[]
  barrier: readonly BarrierPoint[]
  /** Pairings that could not be measured, and runs that failed, a line each. */
  remarks: readonly string[]
}

export interface Report extends Omit<ReportInput, 'matrices'> {
  schema: typeof SCHEMA
  version: typeof VERSION
  matrices: Matrix[]
  definitions: readonly string[]
}

export function makeMatrix({ comparisons, ...input }: MatrixInput): Matrix {
  return {
    ...input,
    summaries: input.series.flatMap((series) => summarise(series, input.bytes) ?? []),
    ratios: comparisons.flatMap((comparison) => compare(input.series, comparison)),
  }
}

export function makeReport({ matrices, ...input }: ReportInput): Report {
  return { schema: SCHEMA, version: VERSION, ...input, matrices: matrices.map(makeMatrix), definitions: DEFINITIONS }
}

/** As JSON; what has no further level is on one line, so that a baseline's changes can be read. */
export function formatJson(report: Report): string {
  const text = JSON.stringify(report, undefined, 1)
  return `${text.replaceAll(/[{[][^{}[\]]*[}\]]/g, (inner) => inner.replaceAll(/\s*\n\s*/g, ' '))}\n`
}

/** @throws Error where the text is no report that this version reads */
export function parseReport(text: string): Report {
  const { schema, version } = JSON.parse(text) as Partial<Report>
  if (schema !== SCHEMA) throw new Error('it is no report of this benchmark')
  if (version !== VERSION) throw new Error(`it is version ${version} of the report, and ${VERSION} is read`)
  return JSON.parse(text) as Report
}
