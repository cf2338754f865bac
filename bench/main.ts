// The benchmark: multifd, QEMU and bare sockets, in turns on this machine, and how they compare.

import { mkdirSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { type Options, PAIRS, type PairName, parseOptions } from './options.js'
import { MEMORIES, type Pairing, type Session } from './pairing.js'
import { bareSockets } from './pairs/bare.js'
import { Guests } from './pairs/guests.js'
import { qemuToQemu } from './pairs/qemu-qemu.js'
import { qemuToUs } from './pairs/qemu-us.js'
import { usToQemu } from './pairs/us-qemu.js'
import { usToUs } from './pairs/us-us.js'
import { formatReport, machineFacts, makeReport, type Report } from './report.js'
import { type Comparison, type Series, transferRate } from './statistics.js'
import { backFreeMemory, tmpfsFolder } from './temporary.js'

const RESULTS = 'bench-results'
const BUSY_LOAD = 0.5

function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

function makePairings(session: Session, { pairs }: Options, guests: readonly Guests[]): Pairing[] {
  const make = {
    'us-us': () => [usToUs(session)],
    bare: () => [bareSockets(session)],
    'qemu-qemu': () => guests.map(qemuToQemu),
    'us-qemu': () => guests.map(usToQemu),
    'qemu-us': () => guests.map(qemuToUs),
  } satisfies Record<PairName, () => Pairing[]>
  return PAIRS.filter((name) => pairs.includes(name)).flatMap((name) => make[name]())
}

function comparisonsFor({ qemu }: Options): Comparison[] {
  const memories = (['touched', 'untouched'] as const).map((memory) => ({ over: memory, under: memory }))
  const received = (['untouched', 'tmpfs', 'disk'] as const).map((memory) => ({
    over: memory,
    under: 'untouched' as const,
  }))
  return [
    { over: 'us-us', under: 'bare', memories },
    ...qemu.flatMap((version) => [
      { over: 'us-us', under: `qemu-qemu-${version}`, memories },
      { over: `us-qemu-${version}`, under: `qemu-qemu-${version}`, memories },
      { over: `qemu-us-${version}`, under: `qemu-qemu-${version}`, memories: received },
    ]),
  ]
}

interface Cell {
  pairing: Pairing
  series: Series
}

/** Round after round, every pairing of a shape right after the others, so that the machine's moods meet all alike. */
async function measure(cells: readonly Cell[], { runs, size }: Options, remarks: string[]): Promise<void> {
  for (let run = 0; run < runs; run++) {
    // Nobody always comes first.
    for (const { pairing, series } of run % 2 === 0 ? cells : cells.toReversed()) {
      const { channels, memory } = series
      const what = `run ${run + 1}/${runs}: ${pairing.label}, channels: ${channels}, ${memory}`
      try {
        if (memory !== 'touched') backFreeMemory(size)
        const measurement = await pairing.run({ channels, memory })
        series.runs.push(measurement)
        say(`${what}: ${transferRate(measurement, size).toFixed(2)} GB/s`)
      } catch (error) {
        series.runs.push(undefined)
        const text = `${what}: failed: ${error instanceof Error ? error.message : String(error)}`
        remarks.push(text)
        say(text)
      }
    }
  }
}

async function main(): Promise<void> {
  const options = parseOptions()
  const session: Session = { bytes: options.size, tmpfs: tmpfsFolder(), disk: options.disk }
  const remarks: string[] = []
  const guests = options.qemu.map((version) => new Guests(session, version))
  const pairings = makePairings(session, options, guests).filter((pairing) => {
    const reason = pairing.available()
    if (reason === undefined) return true
    remarks.push(`${pairing.label}: left out, ${reason}`)
    say(remarks.at(-1)!)
    return false
  })
  const [load = 0] = loadavg()
  if (load > BUSY_LOAD) {
    remarks.push(`the machine was busy when this began (load average ${load.toFixed(1)}): times mean little, CPU more`)
    say(remarks.at(-1)!)
  }
  const cells = cellsOf(pairings, options)
  try {
    await measure(cells, options, remarks)
  } finally {
    for (const resource of [...pairings, ...guests]) await resource[Symbol.asyncDispose]()
  }
  const series = sorted(
    cells.map((cell) => cell.series),
    pairings,
  )
  const comparisons = comparisonsFor(options)
  report(makeReport({ bytes: options.size, machine: machineFacts(), series, comparisons, remarks }), options)
  if (series.some(({ runs }) => runs.includes(undefined))) process.exitCode = 1
}

function cellsOf(pairings: readonly Pairing[], options: Options): Cell[] {
  const memories = MEMORIES.filter((memory) => options.memory.includes(memory))
  return options.channels.flatMap((channels) =>
    memories.flatMap((memory) =>
      pairings
        .filter((pairing) => pairing.memories.includes(memory))
        .map((pairing) => {
          const { name, label } = pairing
          return { pairing, series: { pairing: name, label, channels, memory, runs: [] } }
        }),
    ),
  )
}

function report(made: Report, { json }: Options): void {
  const text = `${JSON.stringify(made, undefined, 2)}\n`
  mkdirSync(RESULTS, { recursive: true })
  const file = join(RESULTS, `${new Date().toISOString().replaceAll(':', '-').slice(0, 19)}.json`)
  writeFileSync(file, text)
  if (json) process.stdout.write(text)
  const stream = json ? process.stderr : process.stdout
  stream.write(`\n${formatReport(made)}`)
  say(`\nalso in ${file}`)
}

function sorted(series: Series[], pairings: readonly Pairing[]): Series[] {
  const place = ({ pairing }: Series): number => pairings.findIndex(({ name }) => name === pairing)
  const memory = (one: Series): number => MEMORIES.indexOf(one.memory)
  return series.sort((a, b) => place(a) - place(b) || memory(a) - memory(b) || a.channels - b.channels)
}

await main()
