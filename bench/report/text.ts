// The report as text: tables.

import type { Ratio, Spread, Summary } from '../statistics.js'
import { librariesLine, machineLine } from './machine.js'
import type { Matrix, Report } from './model.js'
import { table } from './table.js'

const TITLES: Record<Matrix['part'], string> = {
  matrix: 'Chosen pairings',
  channels: 'Rate by channels',
  methods: 'Rate by method and data set',
  ram: 'Scale with RAM',
  scale: 'Scale with channels',
  downtime: 'Downtime by dirty rate',
  barrier: 'Barrier by channels',
}

/** The report as text. */
export function formatReport(report: Report): string {
  const { machine, date, form, seconds, remarks, definitions } = report
  const lines = [
    `${date}, ${form}, ${seconds} s`,
    machineLine(machine),
    librariesLine(machine),
    ...report.matrices.flatMap(formatMatrix),
    ...formatDowntime(report),
    ...formatBarrier(report),
    '',
    ...definitions,
  ]
  if (remarks.length > 0) lines.push('', ...remarks)
  return `${lines.join('\n')}\n`
}

function formatMatrix({ part, bytes, summaries, ratios }: Matrix): string[] {
  const lines = [
    '',
    `${TITLES[part]}: ${(bytes / 1024 ** 2).toFixed(0)} MiB of RAM over tcp on this machine`,
    '',
    ...table(SUMMARY_HEAD, summaries.map(summaryCells)),
  ]
  if (ratios.length > 0) lines.push('', ...table(RATIO_HEAD, ratios.map(ratioCells)))
  return lines
}

function formatDowntime({ downtime }: Report): string[] {
  if (downtime.length === 0) return []
  const { bytes, channels, maxBandwidth, downtimeLimit, runs } = downtime[0]!
  return [
    '',
    `${TITLES.downtime}: ${bytes / 1024 ** 2} MiB, ${channels} channels, a link of ${maxBandwidth / 1e6} MB/s, limit ${downtimeLimit} ms, ${runs} runs`,
    '',
    ...table(
      ['MB/s dirtied', 'downtime ms', "pause ms, the program's clock", 'passes'],
      downtime.map(({ dirtyRate, downtime, pause, passes }) => [
        (dirtyRate / 1e6).toFixed(0),
        between(downtime, 1),
        between(pause, 1),
        between(passes, 0),
      ]),
    ),
  ]
}

function formatBarrier({ barrier }: Report): string[] {
  if (barrier.length === 0) return []
  return [
    '',
    `${TITLES.barrier}: from the order to send SYNC until the destination lets every channel go on, both sides in one process`,
    '',
    ...table(
      ['channels', 'median µs (min–max)', '95 of 100 within', 'rounds'],
      barrier.map(({ channels, rounds, latency, percentile95 }) => [
        String(channels),
        between(latency, 0),
        percentile95.toFixed(0),
        String(rounds),
      ]),
    ),
  ]
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

const RATIO_HEAD = [
  'ratio of transfer rates',
  'data',
  'method',
  'channels',
  'memory',
  'runs',
  'median',
  'min–max',
  'of CPU',
]

function ratioCells({ over, under, data, method, memory, channels, best, runs, ratio, cpu }: Ratio): string[] {
  const sameCount = channels.over === channels.under ? `${channels.over}` : `${channels.over} / ${channels.under}`
  return [
    `${over}  /  ${under}`,
    data,
    method,
    best ? `best: ${sameCount}` : sameCount,
    memory,
    String(runs),
    ratio.median.toFixed(2),
    `${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)}`,
    between(cpu, 2),
  ]
}

function between({ median, min, max }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`
}
