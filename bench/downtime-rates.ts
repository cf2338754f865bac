// Downtime by the rate at which the program dirties its memory.

import { move, programMemory } from './standstill.js'
import { type Spread, spread } from './statistics.js'

export interface DowntimePlan {
  bytes: number
  runs: number
  channels: number
  /** Bytes a second that the link takes. */
  maxBandwidth: number
  /** ms. */
  downtimeLimit: number
  /** Bytes a second. */
  dirtyRates: number[]
}

/** ms; `downtime` by the statistics, `pause` by the program's clock. */
export interface DowntimePoint extends Omit<DowntimePlan, 'dirtyRates'> {
  dirtyRate: number
  downtime: Spread
  pause: Spread
  passes: Spread
}

/** Every rate in turn, round after round. @param progress is called after each run */
export async function downtimeByRate(
  { dirtyRates, ...plan }: DowntimePlan,
  progress: (text: string) => void,
): Promise<DowntimePoint[]> {
  const block = programMemory(plan.bytes)
  const points = dirtyRates.map((dirtyRate) => ({ dirtyRate, runs: [] as Awaited<ReturnType<typeof move>>[] }))
  for (let run = 0; run < plan.runs; run++) {
    for (const { dirtyRate, runs } of points) {
      const result = await move(block, { ...plan, dirtyRate })
      runs.push(result)
      progress(`downtime, ${dirtyRate / 1e6} MB/s dirtied: ${result.downtime.toFixed(1)} ms`)
    }
  }
  return points.map(({ dirtyRate, runs }) => ({
    ...plan,
    dirtyRate,
    downtime: spread(runs.map(({ downtime }) => downtime)),
    pause: spread(runs.map(({ pause }) => pause)),
    passes: spread(runs.map(({ passes }) => passes)),
  }))
}
