// Many small migrations in one pair of processes, and whether anything of these grows.

import { join } from 'node:path'
import { look, type Possessions } from '../../examples/store/possessions.js'
import { draw, type Run } from './draw.js'
import { feasible } from './feasible.js'
import { mappings, type Processes } from './processes.js'
import { perform } from './run.js'
import { withProcesses } from './stress.js'
import { grows, trendOf } from './trend.js'

const KiB = 1024

export interface SoakOptions {
  seed: number
  migrations: number
  /** Migrations between two samples. */
  every: number
  /** At each sample, threads that wait for a migration are ended. Default: they are kept, as those of a user are. */
  endThreads?: boolean
  /** What must not grow. Default: everything that is sampled. */
  level?: readonly (keyof Sample)[]
  say(line: string): void
}

interface Sample extends Possessions {
  mappings: number
  /** MiB that JavaScript uses in the program's thread. */
  heap: number
}

// glibc keeps what a compressor freed, the more the larger that was, and would hide what grows.
const ENVIRONMENT = { MALLOC_TRIM_THRESHOLD_: '131072' }

/** What may be more from one thousand migrations to the next, beyond doubt. */
const LIMITS: Record<keyof Sample, number> = { memory: 1, descriptors: 0.5, threads: 0.5, mappings: 2, heap: 0.5 }
const SIDES = ['source', 'destination'] as const
type Side = (typeof SIDES)[number]
const KEYS = Object.keys(LIMITS) as (keyof Sample)[]
const UNITS: Record<keyof Sample, string> = {
  memory: 'MiB',
  heap: 'MiB of JavaScript',
  descriptors: 'descriptors',
  threads: 'threads',
  mappings: 'mappings',
}

/** One of every so many is disturbed, by a cancellation: a pair that is killed is none any more. */
function drawSmall(seed: number, number: number): Run {
  const { disturbance, network, ...run } = draw(seed, number, { memory: 256 * KiB })
  const { source, channels } = run
  const small: Run = {
    ...run,
    channels: { ...channels, multifdChannels: Math.min(channels.multifdChannels, 8) },
    source: {
      ...source,
      pauseBeforeSwitchover: false,
      autoConverge: false,
      maxPasses: Math.min(2, source.maxPasses!),
      maxBandwidth: 0,
    },
  }
  if (disturbance?.kind === 'cancel') small.disturbance = { ...disturbance, afterMs: Math.min(5, disturbance.afterMs) }
  return small
}

/** @returns whether every migration was as it must be and nothing grew */
export async function soak({
  seed,
  migrations,
  every,
  endThreads = false,
  level = KEYS,
  say,
}: SoakOptions): Promise<boolean> {
  let well = true
  await withProcesses({ say, namespaces: false, environment: ENVIRONMENT }, async (processes, folder, keep) => {
    const series = { source: [] as Sample[], destination: [] as Sample[] }
    const surroundings = { processes, folder: join(folder, 'run'), tlsDir: join(folder, 'psk') }
    let cancelled = 0
    for (let number = 1; number <= migrations; number++) {
      const run = feasible(drawSmall(seed, number))
      const { wrong, source } = await perform(run, surroundings)
      if (source !== 'killed' && source.status === 'cancelled') cancelled++
      if (wrong.length > 0) {
        well = false
        keep()
        say(`migration ${number} of seed ${seed} is NOT WELL: ${wrong.join('; ')}\n  drawn: ${JSON.stringify(run)}`)
        if (wrong.some((line) => line.startsWith('it broke off'))) return false
      }
      if (number % every > 0) continue
      const samples = await Promise.all(SIDES.map((side) => sample(processes, side, endThreads)))
      for (const [at, side] of SIDES.entries()) series[side].push(samples[at]!)
      say(
        `migration ${number} (${cancelled} cancelled): ${line('source', series.source)}; ${line('destination', series.destination)}`,
      )
    }
    for (const side of SIDES) well = verdict(side, series[side], { every, level, say }) && well
    say(well ? 'all is well' : 'NOT WELL')
    return well
  })
  return well
}

async function sample(processes: Processes, side: Side, endThreads: boolean): Promise<Sample> {
  const { child } = side === 'source' ? await processes.source() : await processes.destination()
  const heap = await (child.call as (name: 'rest', argument: boolean) => Promise<number>).call(
    child,
    'rest',
    endThreads,
  )
  return { ...look(child.pid, 0), mappings: mappings(child.pid).length, heap }
}

function line(side: string, samples: Sample[]): string {
  const { memory, heap, descriptors, threads, mappings } = samples.at(-1)!
  return `${side} ${memory.toFixed(1)} MiB (heap ${heap.toFixed(1)}), ${descriptors} descriptors, ${threads} threads, ${mappings} mappings`
}

function verdict(
  side: string,
  samples: Sample[],
  { every, level, say }: Required<Pick<SoakOptions, 'every' | 'level' | 'say'>>,
): boolean {
  let well = true
  for (const key of KEYS) {
    const values = samples.map((sample) => sample[key])
    const { slope, error } = trendOf(values.slice(Math.ceil(values.length / 5)))
    const thousand = 1000 / every
    const up = grows(values, LIMITS[key] / thousand)
    const by = `${(slope * thousand).toFixed(2)} ± ${(error * thousand).toFixed(2)} ${UNITS[key]} a thousand migrations`
    say(`${side}: ${by}, ${values[0]?.toFixed(1)} first, ${values.at(-1)?.toFixed(1)} last${up ? ': GROWS' : ''}`)
    if (level.includes(key)) well &&= !up
  }
  return well
}
