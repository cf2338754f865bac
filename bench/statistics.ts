// From single runs to medians, and ratios of runs that were made one right after the other.

import type { DataSet } from './data.js'
import type { Method } from './method.js'
import { MEMORIES, type Measurement, type Memory, type Shape, type Side } from './pairing.js'

/** Every run of one pairing in one shape; undefined where a run failed. */
export interface Series extends Shape {
  data: DataSet
  pairing: string
  label: string
  runs: (Measurement | undefined)[]
}

export interface Spread {
  median: number
  min: number
  max: number
}

export interface Summary extends Shape {
  data: DataSet
  pairing: string
  label: string
  runs: number
  /** GB/s of RAM, the set-up left out. */
  transfer: Spread
  /** GB/s of RAM, the set-up counted. */
  total: Spread
  setupMs: Spread
  /** Seconds a GiB of RAM, both processes. */
  cpuPerGiB: Spread
  cpuPerGiBOf: Side<Spread>
  /** MiB. */
  beyondRam: Side<Spread>
}

/** The rate of one pairing over another's, run by run. `channels` is a count, or both at their best. */
export interface Ratio {
  data: DataSet
  method: Method
  over: string
  under: string
  memory: Memory
  channels: { over: number; under: number }
  best: boolean
  /** Pairs of runs. */
  runs: number
  ratio: Spread
  /** Of the processor time that both sides took: below 1, the first took less. */
  cpu: Spread
}

/** Which pairings are compared, by name: where their memory is of the same kind. */
export interface Comparison {
  over: string
  under: string
}

const GIGA = 1e9
const MIB = 1024 ** 2
const GIB = 1024 ** 3

/** Of numbers, of which there is at least one. */
export function spread(numbers: readonly number[]): Spread {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}

/** GB/s, the set-up left out. */
export function transferRate({ transferMs }: Measurement, bytes: number): number {
  return bytes / GIGA / (transferMs / 1000)
}

/** The figures of a series; undefined when no run of it succeeded. */
export function summarise(series: Series, bytes: number): Summary | undefined {
  const { pairing, label, channels, memory, method, data } = series
  const runs = series.runs.filter((run) => run !== undefined)
  if (runs.length === 0) return undefined
  const of = (value: (run: Measurement) => number): Spread => spread(runs.map(value))
  const perGiB = bytes / GIB
  return {
    pairing,
    label,
    channels,
    memory,
    method,
    data,
    runs: runs.length,
    transfer: of((run) => transferRate(run, bytes)),
    total: of(({ setupMs, transferMs }) => bytes / GIGA / ((setupMs + transferMs) / 1000)),
    setupMs: of(({ setupMs }) => setupMs),
    cpuPerGiB: of(({ cpu }) => (cpu.source + cpu.destination) / perGiB),
    cpuPerGiBOf: {
      source: of(({ cpu }) => cpu.source / perGiB),
      destination: of(({ cpu }) => cpu.destination / perGiB),
    },
    beyondRam: {
      source: of(({ beyondRam }) => beyondRam.source / MIB),
      destination: of(({ beyondRam }) => beyondRam.destination / MIB),
    },
  }
}

/** The ratios of a comparison: of every data set and method, see {@link compareAlike}. */
export function compare(all: readonly Series[], comparison: Comparison): Ratio[] {
  const kinds = new Map(all.map((series) => [`${series.data} ${series.method}`, series]))
  return [...kinds.values()].flatMap(({ data, method }) =>
    compareAlike(
      all.filter((series) => series.data === data && series.method === method),
      comparison,
    ),
  )
}

// At every channel count, and with each pairing at the count that suits it best.
function compareAlike(all: readonly Series[], { over, under }: Comparison): Ratio[] {
  const ratios: Ratio[] = []
  for (const memory of MEMORIES) {
    const overs = all.filter((series) => series.pairing === over && series.memory === memory)
    const unders = all.filter((series) => series.pairing === under && series.memory === memory)
    const add = (a: Series, b: Series, best: boolean): void => {
      const pairs = a.runs.flatMap((run, i) => {
        const other = b.runs[i]
        return run && other ? [{ rate: other.transferMs / run.transferMs, cpu: cpuOf(run) / cpuOf(other) }] : []
      })
      if (pairs.length === 0) return
      const channels = { over: a.channels, under: b.channels }
      const { data, method } = a
      ratios.push({
        ...{ data, method, over: a.label, under: b.label, memory, channels, best, runs: pairs.length },
        ratio: spread(pairs.map(({ rate }) => rate)),
        cpu: spread(pairs.map(({ cpu }) => cpu)),
      })
    }
    for (const series of overs) {
      const other = unders.find(({ channels }) => channels === series.channels)
      if (other) add(series, other, false)
    }
    const [bestOver, bestUnder] = [fastest(overs), fastest(unders)]
    if (overs.length > 1 && bestOver && bestUnder) add(bestOver, bestUnder, true)
  }
  return ratios
}

// The clock has a resolution of 10 ms.
function cpuOf({ cpu }: Measurement): number {
  return Math.max(0.01, cpu.source + cpu.destination)
}

function fastest(series: readonly Series[]): Series | undefined {
  let best: { series: Series; ms: number } | undefined
  for (const candidate of series) {
    const times = candidate.runs.flatMap((run) => (run ? [run.transferMs] : []))
    if (times.length === 0) continue
    const ms = spread(times).median
    if (!best || ms < best.ms) best = { series: candidate, ms }
  }
  return best?.series
}
