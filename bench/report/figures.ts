// What the page shows: each figure a plot, a sentence, and a table of the same numbers.

import type { Ratio, Series, Spread, Summary } from '../statistics.js'
import type { Matrix, Report } from './model.js'
import type { Line, Plot } from './plot.js'

export interface Figure {
  title: string
  /** What is seen, and what stands out. */
  sentence: string
  plot: Plot
  head: string[]
  rows: string[][]
}

/** Most that a channel is to cost, MiB, and a barrier, µs. */
const CHANNEL_MIB = 12
const BARRIER_US = 200
const GIB = 1024 ** 3
const US = 'us-us'
// By pairing, so that a colour means the same in every plot.
const COLOURS: Record<string, number> = { [US]: 1, 'qemu-qemu': 2, 'us-qemu': 3, 'qemu-us': 4, bare: 5 }
const OTHER_COLOUR = 6

export function figuresOf(report: Report): Figure[] {
  const { matrices } = report
  const of = (...parts: Matrix['part'][]): Matrix[] => matrices.filter(({ part }) => parts.includes(part))
  return [
    ...of('channels').flatMap((matrix) => [rateByChannels(matrix), cpuByChannels(matrix)]),
    ...of('methods').flatMap(ratesByMethod),
    ...of('matrix').flatMap(chosen),
    ...scaleWithRam(of('ram')),
    ...of('scale').flatMap(scaleWithChannels),
    ...downtimeByRate(report),
    ...barrierByChannels(report),
  ].filter(({ plot }) => plot.lines.some(({ values }) => values.some((value) => value !== undefined)))
}

function rateByChannels({ summaries, ratios, bytes }: Matrix): Figure {
  return {
    title: 'Rate by channels',
    sentence: `How fast ${size(bytes)} of RAM without a zero page moves. ${ahead(ratios)}`,
    ...byChannels(summaries, 'GB/s', ({ transfer }) => transfer, 2),
  }
}

function cpuByChannels({ summaries, bytes }: Matrix): Figure {
  const least = summaries.toSorted((a, b) => a.cpuPerGiB.median - b.cpuPerGiB.median)[0]
  const found = least
    ? ` Least: ${least.label} with ${counted(least.channels)}, ${least.cpuPerGiB.median.toFixed(2)} s.`
    : ''
  return {
    title: 'Processor time per GiB',
    sentence: `User and system seconds of both processes together, the start of their threads included, as ${size(bytes)} move.${found}`,
    ...byChannels(summaries, 'seconds per GiB', ({ cpuPerGiB }) => cpuPerGiB, 2, 'bar'),
  }
}

function ratesByMethod({ summaries, ratios, bytes }: Matrix): Figure[] {
  return distinct(summaries.map(({ data }) => data)).map((data) => {
    const some = summaries.filter((summary) => summary.data === data)
    const methods = distinct(some.map(({ method }) => method))
    const channels = counted(some[0]!.channels)
    const plot = {
      ...{ kind: 'bar' as const, x: 'method', y: 'GB/s of RAM', places: methods },
      lines: linesOf(
        some,
        methods,
        ({ method }) => method,
        ({ transfer }) => transfer,
      ),
    }
    return {
      title: `Rate by method: ${data}`,
      sentence: `${size(bytes)} of the data set “${data}” with ${channels}, in bytes of RAM whatever goes over the wire. ${ahead(ratios.filter((ratio) => ratio.data === data))}`,
      ...{ plot, ...tableOf(plot, 2) },
    }
  })
}

function chosen(matrix: Matrix): Figure[] {
  const { summaries, bytes } = matrix
  const kinds = new Map(summaries.map((one) => [`${one.data}, ${one.method}, ${one.memory}`, one]))
  return [...kinds].map(([kind, { data, method, memory }]) => ({
    title: `Rate: ${kind}`,
    sentence: `How fast ${size(bytes)} move. ${ahead(matrix.ratios.filter((one) => one.data === data && one.method === method && one.memory === memory))}`,
    ...byChannels(
      summaries.filter((one) => one.data === data && one.method === method && one.memory === memory),
      'GB/s',
      ({ transfer }) => transfer,
      2,
    ),
  }))
}

function scaleWithRam(matrices: Matrix[]): Figure[] {
  if (matrices.length === 0) return []
  const sized = matrices.flatMap(({ bytes, summaries }) => summaries.map((summary) => ({ ...summary, bytes })))
  const places = distinct(matrices.map(({ bytes }) => bytes / GIB))
  const plot: Plot = {
    ...{ kind: 'line', x: 'GiB of RAM', y: 'seconds', places, linear: true },
    lines: linesOf(sized, places, ({ bytes }) => bytes / GIB, secondsOf),
  }
  const ours = plot.lines.find(({ name }) => name.startsWith('multifd'))?.values
  const [first, last] = [ours?.[0], ours?.at(-1)]
  const found =
    first && last && places.length > 1
      ? ` ${places.at(-1)! / places[0]!} times the RAM takes ${(last.median / first.median).toFixed(1)} times as long from multifd to multifd.`
      : ''
  return [
    {
      title: 'Scale with the size of RAM',
      sentence: `Set-up and transfer of memory of which a sixteenth was ever written: 2 MiB of every 32, so that 16 GiB on both sides fit. A straight line is linear growth.${found}`,
      ...{ plot, ...tableOf(plot, 2) },
    },
  ]
}

const secondsOf = (summary: Summary & { bytes: number }): Spread => {
  const seconds = (rate: number): number => summary.bytes / 1e9 / rate
  const { median, min, max } = summary.total
  return { median: seconds(median), min: seconds(max), max: seconds(min) }
}

function scaleWithChannels({ summaries, bytes }: Matrix): Figure[] {
  const ours = summaries.filter(({ pairing }) => pairing === US).toSorted((a, b) => a.channels - b.channels)
  const memory: Plot = {
    ...{
      kind: 'line',
      x: 'channels',
      y: 'MiB beside the RAM',
      places: distinct(summaries.map(({ channels }) => channels)),
    },
    lines: [],
  }
  for (const [pairing, some] of grouped(summaries)) {
    for (const [side, dashed] of [
      ['source', false],
      ['destination', true],
    ] as const) {
      memory.lines.push({
        ...{ name: `${some[0]!.label}, ${side}`, colour: colourOf(pairing), dashed },
        values: memory.places.map((place) => some.find(({ channels }) => channels === place)?.beyondRam[side]),
      })
    }
  }
  return [
    {
      title: 'Scale with channels: rate',
      sentence: `${size(bytes)} of RAM over up to ${counted(Math.max(...summaries.map(({ channels }) => channels)))}: more of them than cores can only cost.`,
      ...byChannels(summaries, 'GB/s', ({ transfer }) => transfer, 2),
    },
    {
      title: 'Scale with channels: set-up',
      sentence: 'From the order to migrate until the first page may go: threads, connections, introductions.',
      ...byChannels(summaries, 'ms', ({ setupMs }) => setupMs, 0),
    },
    {
      title: 'Scale with channels: memory',
      sentence: `The highest resident memory of each process, less the RAM that moves. ${channelCost(ours)}`,
      ...{ plot: memory, ...tableOf(memory, 0) },
    },
  ]
}

function channelCost(ours: readonly Summary[]): string {
  const [first, last] = [ours[0], ours.at(-1)]
  if (!first || !last || first === last) return ''
  const cost = (side: 'source' | 'destination'): number =>
    (last.beyondRam[side].median - first.beyondRam[side].median) / (last.channels - first.channels)
  const [source, destination] = [cost('source'), cost('destination')]
  const holds = Math.max(source, destination) < CHANNEL_MIB ? 'below' : 'not below'
  return `A channel of multifd costs ${source.toFixed(1)} MiB on the source and ${destination.toFixed(1)} MiB on the destination: ${holds} the ${CHANNEL_MIB} MiB it may.`
}

function downtimeByRate({ downtime: points }: Report): Figure[] {
  if (points.length === 0) return []
  const { bytes, channels, maxBandwidth, downtimeLimit, runs } = points[0]!
  const line = (name: string, colour: number, values: Spread[]): Line => ({ name, colour, values })
  const plot: Plot = {
    ...{ kind: 'line', x: 'MB/s that the program dirties', y: 'ms', linear: true },
    places: points.map(({ dirtyRate }) => dirtyRate / 1e6),
    limit: { name: `downtimeLimit ${downtimeLimit} ms`, value: downtimeLimit },
    lines: [
      line(
        'downtime, by the statistics',
        1,
        points.map(({ downtime }) => downtime),
      ),
      line(
        "pause, by the program's clock",
        3,
        points.map(({ pause }) => pause),
      ),
    ],
  }
  const worst = Math.max(...points.map(({ pause }) => pause.max))
  return [
    {
      title: 'Downtime by dirty rate',
      sentence: `How long a program of ${size(bytes)} stands still that dirties its memory while it moves over a link of ${maxBandwidth / 1e6} MB/s with ${counted(channels)}, ${runs} runs a point. The longest pause was ${worst.toFixed(0)} ms.`,
      ...{ plot, ...tableOf(plot, 1) },
    },
  ]
}

function barrierByChannels({ barrier }: Report): Figure[] {
  if (barrier.length === 0) return []
  const plot: Plot = {
    ...{ kind: 'line', x: 'channels', y: 'µs', logarithmic: true, places: barrier.map(({ channels }) => channels) },
    limit: { name: `${BARRIER_US} µs`, value: BARRIER_US },
    lines: [
      {
        name: 'median, and lowest to 95 of 100',
        colour: 1,
        values: barrier.map((one) => ({ ...one.latency, max: one.percentile95 })),
      },
    ],
  }
  const eight = barrier.find(({ channels }) => channels === 8)
  const holds = eight && (eight.latency.median < BARRIER_US ? 'below' : 'not below')
  const found = eight
    ? ` With 8 channels ${eight.latency.median.toFixed(0)} µs: ${holds} the ${BARRIER_US} µs aimed at.`
    : ''
  return [
    {
      title: 'Barrier by channels',
      sentence: `From the order to send SYNC on every channel until the destination lets every channel go on, both sides in one process, ${barrier[0]!.rounds} barriers one after the other.${found}`,
      plot,
      head: ['channels', 'median', 'lowest', '95 of 100', 'highest'],
      rows: barrier.map(({ channels, latency: { median, min, max }, percentile95 }) =>
        [channels, ...[median, min, percentile95, max].map((value) => value.toFixed(0))].map(String),
      ),
    },
  ]
}

function byChannels(
  summaries: readonly Summary[],
  y: string,
  value: (summary: Summary) => Spread,
  digits: number,
  kind: Plot['kind'] = 'line',
): Pick<Figure, 'plot' | 'head' | 'rows'> {
  const places = distinct(summaries.map(({ channels }) => channels)).sort((a, b) => a - b)
  const plot: Plot = {
    kind,
    x: 'channels',
    y,
    places,
    lines: linesOf(summaries, places, ({ channels }) => channels, value),
  }
  return { plot, ...tableOf(plot, digits) }
}

function linesOf<S extends Summary, P>(
  summaries: readonly S[],
  places: readonly P[],
  placeOf: (summary: S) => P,
  value: (summary: S) => Spread,
): Line[] {
  return [...grouped(summaries)].map(([pairing, some]) => ({
    ...{ name: some[0]!.label, colour: colourOf(pairing), dashed: pairing === 'bare' },
    values: places.map((place) => {
      const summary = some.find((one) => placeOf(one) === place)
      return summary && value(summary)
    }),
  }))
}

function grouped<S extends Pick<Series, 'pairing'>>(summaries: readonly S[]): Map<string, S[]> {
  const groups = new Map<string, S[]>()
  for (const summary of summaries) groups.set(summary.pairing, [...(groups.get(summary.pairing) ?? []), summary])
  return groups
}

/** A row for each place, a column for each line: median, and lowest to highest. */
function tableOf({ x, places, lines }: Plot, digits: number): Pick<Figure, 'head' | 'rows'> {
  return {
    head: [x, ...lines.map(({ name }) => name)],
    rows: places.map((place, at) => [
      String(place),
      ...lines.map(({ values }) => {
        const value = values[at]
        if (!value) return ''
        const [median, min, max] = [value.median, value.min, value.max].map((one) => one.toFixed(digits))
        return min === max ? median! : `${median} (${min}–${max})`
      }),
    ]),
  }
}

/** Ours over the peers', each the middle of its ratios. */
function ahead(ratios: readonly Ratio[]): string {
  const ours = ratios.filter(({ over, best }) => over === 'multifd → multifd' && !best)
  const peers = distinct(ours.map(({ under }) => under))
  return peers
    .map((peer) => {
      const medians = ours.filter(({ under }) => under === peer).map(({ ratio }) => ratio.median)
      return `multifd → multifd has ${range(medians)} times the rate of ${peer} in the same rounds.`
    })
    .join(' ')
}

function range(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(2))
  return low === high ? low! : `${low} to ${high}`
}

function colourOf(pairing: string): number {
  return COLOURS[pairing.replace(/-[\d.]+$/, '')] ?? OTHER_COLOUR
}

function distinct<T>(values: readonly T[]): T[] {
  return [...new Set(values)]
}

function counted(channels: number): string {
  return channels === 1 ? '1 channel' : `${channels} channels`
}

function size(bytes: number): string {
  return bytes >= GIB ? `${bytes / GIB} GiB` : `${bytes / 1024 ** 2} MiB`
}
