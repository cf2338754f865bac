// The benchmark: multifd, QEMU and bare sockets, in turns on this machine, and how they compare.

import { mkdirSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { makeCredentials } from './credentials.js'
import type { DataSet } from './data.js'
import type { Method } from './method.js'
import { micro } from './micro.js'
import { type Options, PAIRS, type PairName, parseOptions } from './options.js'
import { MEMORIES, type Pairing, type Session } from './pairing.js'
import { bareSockets } from './pairs/bare.js'
import { Guests } from './pairs/guests.js'
import { qemuToBare } from './pairs/qemu-bare.js'
import { qemuToQemu } from './pairs/qemu-qemu.js'
import { qemuToUs } from './pairs/qemu-us.js'
import { snapshotToQemu } from './pairs/snapshot-qemu.js'
import { usToQemu } from './pairs/us-qemu.js'
import { usToUs } from './pairs/us-us.js'
import { formatReport, machineFacts, makeReport, type Report } from './report.js'
import { type Comparison, type Series, transferRate } from './statistics.js'
import { tmpfsFolder } from './temporary.js'

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
    'snapshot-qemu': () => guests.map(snapshotToQemu),
    'qemu-us': () => guests.map(qemuToUs),
    'qemu-bare': () => guests.map(qemuToBare),
  } satisfies Record<PairName, () => Pairing[]>
  return PAIRS.filter((name) => pairs.includes(name)).flatMap((name) => make[name]())
}

function comparisonsFor({ qemu }: Options): Comparison[] {
  return [
    { over: 'us-us', under: 'bare' },
    ...qemu.flatMap((version) => [
      { over: 'us-us', under: `qemu-qemu-${version}` },
      { over: `us-qemu-${version}`, under: `qemu-qemu-${version}` },
      { over: `snapshot-qemu-${version}`, under: `qemu-qemu-${version}` },
      { over: `qemu-us-${version}`, under: `qemu-qemu-${version}` },
      { over: `qemu-bare-${version}`, under: `qemu-qemu-${version}` },
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
      const { channels, memory, method, data } = series
      const how = `${data}, ${method}, channels: ${channels}, ${memory}`
      const what = `run ${run + 1}/${runs}: ${pairing.label}, ${how}`
      try {
        const measurement = await pairing.run({ channels, memory, method })
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
  if (options.micro) return micro(say)
  const remarks: string[] = []
  const [load = 0] = loadavg()
  if (load > BUSY_LOAD) {
    remarks.push(`the machine was busy when this began (load average ${load.toFixed(1)}): times mean little, CPU more`)
    say(remarks.at(-1)!)
  }
  if (options.methods.includes('tls')) makeCredentials(tmpfsFolder())
  const series: Series[] = []
  for (const data of options.data) series.push(...(await measureData(data, options, remarks)))
  const comparisons = comparisonsFor(options)
  report(makeReport({ bytes: options.size, machine: machineFacts(), series, comparisons, remarks }), options)
  if (series.some(({ runs }) => runs.includes(undefined))) process.exitCode = 1
}

/** A session for each data set: guests and sources hold it. */
async function measureData(data: DataSet, options: Options, remarks: string[]): Promise<Series[]> {
  const session: Session = { data, bytes: options.size, tmpfs: tmpfsFolder(), disk: options.disk }
  const guests = options.qemu.map((version) => new Guests(session, version))
  const pairings = makePairings(session, options, guests).filter((pairing) => {
    const reason = pairing.available()
    if (reason === undefined) return true
    const remark = `${pairing.label}: left out, ${reason}`
    if (!remarks.includes(remark)) say(remark)
    remarks.push(...(remarks.includes(remark) ? [] : [remark]))
    return false
  })
  const cells = cellsOf(data, pairings, options)
  try {
    await measure(cells, options, remarks)
  } finally {
    for (const resource of [...pairings, ...guests]) await resource[Symbol.asyncDispose]()
  }
  return sorted(
    cells.map((cell) => cell.series),
    pairings,
    options.methods,
  )
}

function cellsOf(data: DataSet, pairings: readonly Pairing[], options: Options): Cell[] {
  const memories = MEMORIES.filter((memory) => options.memory.includes(memory))
  const shapes = options.channels.flatMap((channels) =>
    memories.flatMap((memory) => options.methods.map((method) => ({ channels, memory, method }))),
  )
  return shapes.flatMap((shape) =>
    pairings
      .filter(
        ({ memories, name }) => memories.includes(shape.memory) && (!name.includes('bare') || shape.method === 'none'),
      )
      .map((pairing) => ({
        pairing,
        series: { pairing: pairing.name, label: pairing.label, data, ...shape, runs: [] },
      })),
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

function sorted(series: Series[], pairings: readonly Pairing[], methods: readonly Method[]): Series[] {
  const place = ({ pairing }: Series): number => pairings.findIndex(({ name }) => name === pairing)
  const memory = (one: Series): number => MEMORIES.indexOf(one.memory)
  const method = (one: Series): number => methods.indexOf(one.method)
  return series.sort(
    (a, b) => place(a) - place(b) || method(a) - method(b) || memory(a) - memory(b) || a.channels - b.channels,
  )
}

await main()
