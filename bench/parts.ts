// The parts of the report, and how much of each a form measures.

import type { BarrierPlan } from './barrier.js'
import { RESIDENT_PART } from './data.js'
import type { DowntimePlan } from './downtime-rates.js'
import type { MatrixOptions, Options } from './options.js'
import { availableMemory } from './report/machine.js'

export const PARTS = ['channels', 'methods', 'ram', 'scale', 'downtime', 'barrier'] as const
export type PartName = (typeof PARTS)[number]

export interface MatrixPlan extends MatrixOptions {
  part: PartName | 'matrix'
}

export interface Plan {
  matrices: MatrixPlan[]
  downtime: DowntimePlan | undefined
  barrier: BarrierPlan | undefined
}

type Form = Record<'channels' | 'methods' | 'ram' | 'scale', Partial<MatrixPlan>> & {
  /** Of the part `ram`. */
  sizes: number[]
  downtime: DowntimePlan
  barrier: BarrierPlan
}

const MIB = 1024 ** 2
const GIB = 1024 ** 3
const DOWNTIME = { channels: 4, maxBandwidth: 500e6, downtimeLimit: 300 }

const QUICK: Form = {
  channels: { runs: 3, size: 256 * MIB, channels: [1, 4] },
  methods: { runs: 2, size: 64 * MIB, data: ['text', 'mixed'] },
  ram: { runs: 1 },
  sizes: [1 * GIB, 4 * GIB],
  scale: { runs: 1, size: 128 * MIB, channels: [1, 8, 64] },
  downtime: { ...DOWNTIME, bytes: 128 * MIB, runs: 2, dirtyRates: [0, 200e6, 400e6] },
  barrier: { channels: [1, 2, 4, 8, 16], rounds: 200 },
}

const FULL: Form = {
  channels: { runs: 5, size: GIB, channels: [1, 2, 4, 8] },
  methods: { runs: 3, size: 256 * MIB, data: ['text', 'code', 'mixed'] },
  ram: { runs: 3 },
  sizes: [1, 2, 4, 8, 16].map((size) => size * GIB),
  scale: { runs: 3, size: 256 * MIB, channels: [1, 2, 4, 8, 16, 32, 64] },
  downtime: { ...DOWNTIME, bytes: 512 * MIB, runs: 5, dirtyRates: [0, 50e6, 100e6, 200e6, 300e6, 400e6] },
  barrier: { channels: [1, 2, 4, 8, 16, 32, 64], rounds: 2000 },
}

/** What a report measures; with options of the matrix given, that alone. */
export function planOf(options: Options): Plan {
  if (options.chosen) return { matrices: [{ part: 'matrix', ...options }], downtime: undefined, barrier: undefined }
  const form = options.quick ? QUICK : FULL
  const { parts, qemu, disk } = options
  const runs = options.runsGiven ? { runs: options.runs } : {}
  const matrix = (part: PartName, plan: Omit<MatrixPlan, 'part' | 'qemu' | 'disk'>): MatrixPlan[] =>
    parts.includes(part) ? [{ part, qemu, disk, ...plan, ...runs }] : []
  const common = { ...options, memory: ['touched' as const], methods: ['none' as const], data: ['random' as const] }
  return {
    matrices: [
      ...matrix('channels', {
        ...common,
        pairs: ['us-us', 'bare', 'qemu-qemu', 'us-qemu', 'qemu-us'],
        ...form.channels,
      }),
      ...matrix('methods', {
        ...common,
        pairs: ['us-us', 'qemu-qemu'],
        methods: ['none', 'zlib:1', 'zstd:1', 'tls'],
        channels: [2],
        ...form.methods,
      }),
      ...form.sizes.flatMap((size) =>
        matrix('ram', {
          ...common,
          ...{ pairs: ['us-us', 'qemu-qemu'], data: ['sparse'], memory: ['untouched'], channels: [2], size },
          ...form.ram,
        }),
      ),
      ...matrix('scale', { ...common, pairs: ['us-us', 'qemu-qemu'], ...form.scale }),
    ],
    downtime: parts.includes('downtime') ? { ...form.downtime, ...runs } : undefined,
    barrier: parts.includes('barrier') ? form.barrier : undefined,
  }
}

/** Why the machine has no room for it, or undefined. */
export function tooLarge({ size, data, memory, pairs }: MatrixPlan): string | undefined {
  const held = size * Math.max(...data.map((set) => RESIDENT_PART[set]))
  // A source of each kind, a snapshot beside a QEMU's; a destination, and as much again that is kept free for it.
  const sources = pairs.length + (pairs.some((pair) => pair.includes('qemu')) ? 2 : 0)
  const needed = sources * held + (memory.includes('touched') ? size : held) + 1.25 * held
  const available = availableMemory()
  const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`
  // The kernel refuses what could never be there, touched or not.
  if (needed < available && size < 0.9 * available) return undefined
  return `${gib(size)} of RAM takes ${gib(Math.max(needed, size))} of memory, and ${gib(available)} are free`
}
