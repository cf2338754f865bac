// Pairings in turns, in every shape that a plan names.

import { makeCredentials } from './credentials.js'
import type { DataSet } from './data.js'
import type { Method } from './method.js'
import { PAIRS, type PairName } from './options.js'
import { MEMORIES, type Pairing, type Session } from './pairing.js'
import { bareSockets } from './pairs/bare.js'
import { Guests } from './pairs/guests.js'
import { qemuToBare } from './pairs/qemu-bare.js'
import { qemuToQemu } from './pairs/qemu-qemu.js'
import { qemuToUs } from './pairs/qemu-us.js'
import { snapshotToQemu } from './pairs/snapshot-qemu.js'
import { usToQemu } from './pairs/us-qemu.js'
import { usToUs } from './pairs/us-us.js'
import type { MatrixPlan } from './parts.js'
import type { MatrixInput } from './report/model.js'
import { type Comparison, type Series, transferRate } from './statistics.js'
import { tmpfsFolder } from './temporary.js'

interface Cell {
  pairing: Pairing
  series: Series
}

/** What a part says while it is measured. */
export interface Voice {
  /** A run is over. */
  step(text: string): void
  /** Something that the report has to tell. */
  remark(text: string): void
}

/** A session for each data set: guests and sources hold it. */
export async function measureMatrix(plan: MatrixPlan, voice: Voice): Promise<MatrixInput> {
  if (plan.methods.includes('tls')) makeCredentials(tmpfsFolder())
  const series: Series[] = []
  for (const data of plan.data) series.push(...(await measureData(data, plan, voice)))
  return { part: plan.part, bytes: plan.size, series, comparisons: comparisonsFor(plan) }
}

async function measureData(data: DataSet, plan: MatrixPlan, voice: Voice): Promise<Series[]> {
  const session: Session = { data, bytes: plan.size, tmpfs: tmpfsFolder(), disk: plan.disk }
  const guests = plan.qemu.map((version) => new Guests(session, version))
  const pairings = makePairings(session, plan, guests).filter((pairing) => {
    const reason = pairing.available()
    if (reason !== undefined) voice.remark(`${pairing.label}: left out, ${reason}`)
    return reason === undefined
  })
  const cells = cellsOf(data, pairings, plan)
  try {
    await measure(cells, plan, voice)
  } finally {
    for (const resource of [...pairings, ...guests]) await resource[Symbol.asyncDispose]()
  }
  return sorted(
    cells.map((cell) => cell.series),
    pairings,
    plan.methods,
  )
}

function makePairings(session: Session, { pairs }: MatrixPlan, guests: readonly Guests[]): Pairing[] {
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

function comparisonsFor({ qemu }: MatrixPlan): Comparison[] {
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

/** Round after round, every pairing of a shape right after the others, so that the machine's moods meet all alike. */
async function measure(cells: readonly Cell[], { runs, size }: MatrixPlan, voice: Voice): Promise<void> {
  for (let run = 0; run < runs; run++) {
    // Nobody always comes first.
    for (const { pairing, series } of run % 2 === 0 ? cells : cells.toReversed()) {
      const { channels, memory, method, data } = series
      const how = `${data}, ${method}, channels: ${channels}, ${memory}`
      const what = `run ${run + 1}/${runs}: ${pairing.label}, ${size / 1024 ** 2} MiB, ${how}`
      try {
        const measurement = await pairing.run({ channels, memory, method })
        series.runs.push(measurement)
        voice.step(`${what}: ${transferRate(measurement, size).toFixed(2)} GB/s`)
      } catch (error) {
        series.runs.push(undefined)
        const text = `${what}: failed: ${error instanceof Error ? error.message : String(error)}`
        voice.remark(text)
        voice.step(text)
      }
    }
  }
}

function cellsOf(data: DataSet, pairings: readonly Pairing[], plan: MatrixPlan): Cell[] {
  const memories = MEMORIES.filter((memory) => plan.memory.includes(memory))
  const shapes = plan.channels.flatMap((channels) =>
    memories.flatMap((memory) => plan.methods.map((method) => ({ channels, memory, method }))),
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

function sorted(series: Series[], pairings: readonly Pairing[], methods: readonly Method[]): Series[] {
  const place = ({ pairing }: Series): number => pairings.findIndex(({ name }) => name === pairing)
  const memory = (one: Series): number => MEMORIES.indexOf(one.memory)
  const method = (one: Series): number => methods.indexOf(one.method)
  return series.sort(
    (a, b) => place(a) - place(b) || method(a) - method(b) || memory(a) - memory(b) || a.channels - b.channels,
  )
}
