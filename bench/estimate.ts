// How long a report will take, by what its runs took on a machine of two cores.

import type { MatrixPlan, Plan } from './parts.js'

// Seconds.
const RUN = 0.7
const CHANNEL = 0.03
const GUEST = 4
const GUEST_PER_GB = 2
const SECONDS_PER_GB = { none: 1.2, tls: 2.5, zlib: 12, zstd: 4 } as const
const DOWNTIME_RUN = 2
const BARRIER = 2

function runSeconds(plan: MatrixPlan, method: string, channels: number): number {
  const [name = 'none'] = method.split(':')
  return RUN + channels * CHANNEL + (plan.size / 1e9) * SECONDS_PER_GB[name as keyof typeof SECONDS_PER_GB]
}

function matrixSeconds(plan: MatrixPlan): number {
  const qemu = plan.pairs.some((pair) => pair.includes('qemu')) ? plan.qemu.length : 0
  const guests = plan.data.length * qemu * (GUEST + (plan.size / 1e9) * GUEST_PER_GB)
  const shapes = plan.channels.flatMap((channels) => plan.methods.map((method) => runSeconds(plan, method, channels)))
  const pairs = plan.pairs.reduce((sum, pair) => sum + (pair.includes('qemu') ? qemu : 1), 0)
  return guests + plan.data.length * plan.memory.length * pairs * plan.runs * shapes.reduce((a, b) => a + b, 0)
}

/** Of all of it. */
export function planSeconds({ matrices, downtime, barrier }: Plan): number {
  const standstills = downtime ? downtime.dirtyRates.length * downtime.runs * DOWNTIME_RUN : 0
  return matrices.reduce(
    (sum, plan) => sum + matrixSeconds(plan),
    standstills + (barrier?.channels.length ?? 0) * BARRIER,
  )
}
