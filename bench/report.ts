// The report: for people a table, for programs one object.

import { cpus, release, totalmem } from 'node:os'
import { qemus } from '../test/support/qemu/find.js'
import {
  type Comparison,
  compare,
  type Ratio,
  type Series,
  type Spread,
  type Summary,
  summarise,
} from './statistics.js'

/** What the figures mean: part of every report. */
export const DEFINITIONS = [
  'rate: bytes of RAM a second, whatever of it goes over the wire, 1 GB = 10^9 bytes.',
  'data: random, text, code: no page is zero, all of it goes as data; mixed: half of the pages are zero; zeros: all are.',
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
]

export interface MachineFacts {
  cpu: string
  cores: number
  memoryGiB: number
  kernel: string
  node: string
  qemu: string[]
}

export function machineFacts(): MachineFacts {
  const cores = cpus()
  return {
    cpu: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    qemu: qemus().map(({ release }) => release),
  }
}

export interface ReportInput {
  bytes: number
  machine: MachineFacts
  series: readonly Series[]
  comparisons: readonly Comparison[]
  /** Pairings that could not be measured, and runs that failed, a line each. */
  remarks: readonly string[]
}

export interface Report extends Omit<ReportInput, 'comparisons'> {
  definitions: readonly string[]
  summaries: Summary[]
  ratios: Ratio[]
}

export function makeReport({ comparisons, ...input }: ReportInput): Report {
  const summaries = input.series.flatMap((series) => summarise(series, input.bytes) ?? [])
  const ratios = comparisons.flatMap((comparison) => compare(input.series, comparison))
  return { ...input, definitions: DEFINITIONS, summaries, ratios }
}

/** The report as text. */
export function formatReport({ bytes, machine, summaries, ratios, remarks, definitions }: Report): string {
  const { cpu, cores, memoryGiB, kernel, node, qemu } = machine
  const lines = [
    `${(bytes / 1024 ** 2).toFixed(0)} MiB of RAM over tcp on this machine`,
    `${cpu}, ${cores} cores, ${memoryGiB} GiB; Linux ${kernel}; Node ${node}; QEMU ${qemu.join(', ') || '(none)'}`,
    '',
    ...table(SUMMARY_HEAD, summaries.map(summaryCells)),
  ]
  if (ratios.length > 0) lines.push('', ...table(RATIO_HEAD, ratios.map(ratioCells)))
  lines.push('', ...definitions)
  if (remarks.length > 0) lines.push('', ...remarks)
  return `${lines.join('\n')}\n`
}

const SUMMARY_HEAD = [
  'pairing',
  'data',
  'method',
  'channels',
  'memory',
  'runs',
  'transfer GB/s',
  'total GB/s',
  'set-up ms',
  'CPU s/GiB',
  'src + dst',
  'beyond RAM MiB, src',
  'dst',
]

function summaryCells(summary: Summary): string[] {
  const { label, data, method, channels, memory, runs, transfer, total, setupMs, cpuPerGiB, cpuPerGiBOf, beyondRam } =
    summary
  return [
    label,
    data,
    method,
    String(channels),
    memory,
    String(runs),
    between(transfer, 2),
    total.median.toFixed(2),
    setupMs.median.toFixed(0),
    between(cpuPerGiB, 2),
    `${cpuPerGiBOf.source.median.toFixed(2)} + ${cpuPerGiBOf.destination.median.toFixed(2)}`,
    between(beyondRam.source, 0),
    between(beyondRam.destination, 0),
  ]
}

const RATIO_HEAD = ['ratio of transfer rates', 'data', 'method', 'channels', 'memory', 'median', 'min–max']

function ratioCells({ over, under, data, method, memory, channels, best, ratio }: Ratio): string[] {
  const sameCount = channels.over === channels.under ? `${channels.over}` : `${channels.over} / ${channels.under}`
  return [
    `${over}  /  ${under}`,
    data,
    method,
    best ? `best: ${sameCount}` : sameCount,
    memory,
    ratio.median.toFixed(2),
    `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
  ]
}

function between({ median, min, max }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`
}

// The first column stands left, figures stand right.
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]): string =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  ')
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)]
}
