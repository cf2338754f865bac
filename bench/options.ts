// The benchmark's options.

import { tmpdir } from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import { byteCount, whole } from '../src/cli/options.js'
import { type QemuVersion, qemuVersions } from '../test/support/qemu/find.js'
import { DATA_SETS, type DataSet } from './data.js'
import { type Method, methods } from './method.js'
import { MEMORIES, type Memory } from './pairing.js'
import { PARTS, type PartName } from './parts.js'

export const PAIRS = ['us-us', 'bare', 'qemu-qemu', 'us-qemu', 'snapshot-qemu', 'qemu-us', 'qemu-bare'] as const
export type PairName = (typeof PAIRS)[number]

/** What pairings are measured in turns, and in which shapes. */
export interface MatrixOptions {
  runs: number
  channels: number[]
  size: number
  data: DataSet[]
  methods: Method[]
  pairs: PairName[]
  memory: Memory[]
  qemu: QemuVersion[]
  disk: string
}

export interface Options extends MatrixOptions {
  parts: PartName[]
  micro?: true
  quick?: true
  json?: true
  from?: string
  save?: string
  compare?: string | true
  /** Whether one of {@link CHOICES} was given: those pairings alone are measured. */
  chosen: boolean
  runsGiven: boolean
}

const CHOICES = ['pairs', 'channels', 'memory', 'methods', 'data', 'size'] as const

export const BASELINE = 'bench/baseline.json'
const QUICK = { size: 256 * 1024 ** 2, channels: [1, 4], runs: 3 }
const GUEST_UNIT = 1024 ** 2

/** A list of known words, with commas between. */
function listOf<T extends string>(known: readonly T[]): (text: string) => T[] {
  return (text) => {
    const words = text.split(',')
    if (words.every((word): word is T => (known as readonly string[]).includes(word))) return words
    throw new InvalidArgumentError(`It must be of ${known.join(', ')}.`)
  }
}

function counts(text: string): number[] {
  return text.split(',').map(whole(1, 255))
}

function guestBytes(text: string): number {
  const bytes = byteCount(text)
  if (bytes >= 32 * GUEST_UNIT && bytes <= 16384 * GUEST_UNIT && bytes % GUEST_UNIT === 0) return bytes
  throw new InvalidArgumentError('It must be a whole number of MiB, from 32M to 16G.')
}

const command = new Command('bench')
  .description(
    `One report of everything; with ${CHOICES.map((name) => `--${name}`).join(', ')}: of those pairings in those shapes.`,
  )
  .option('--runs <n>', 'how often each is measured', whole(1, 1000), 5)
  .addOption(new Option('--channels <list>', 'channel counts').argParser(counts).default([1, 2, 4, 8], '1,2,4,8'))
  .addOption(new Option('--size <bytes>', 'RAM to migrate').argParser(guestBytes).default(1024 ** 3, '1G'))
  .option('--data <list>', `what the RAM holds, of ${DATA_SETS.join(',')}`, listOf(DATA_SETS), ['random'])
  .option('--methods <list>', 'none, tls, zlib:LEVEL, zstd:LEVEL', methods, ['none'])
  .option('--parts <list>', `of the report, of ${PARTS.join(',')}`, listOf(PARTS), [...PARTS])
  .option('--micro', 'no migrations: zero pages looked for, packets encoded and decoded, on one thread')
  .option('--pairs <list>', `of ${PAIRS.join(',')}`, listOf(PAIRS), [...PAIRS])
  .option('--memory <list>', `of ${MEMORIES.join(',')}`, listOf(MEMORIES), [...MEMORIES])
  .option('--qemu <list>', `versions to measure, of ${qemuVersions.join(',')}`, listOf(qemuVersions), ['10.0'])
  .option('--disk <folder>', 'where the files of the memory "disk" go', tmpdir())
  .option('--quick', 'fewer points and runs, less memory; of chosen pairings 256 MiB, channels 1,4, 3 runs')
  .option('--json', 'the report as JSON on standard output; the table goes to standard error')
  .option('--from <file>', 'measures nothing: the report is that of a JSON file')
  .option('--save <file>', 'keeps the JSON there as well, as a baseline')
  .option('--compare [file]', `says what is slower than in a report, ${BASELINE} unless said otherwise`)

export function parseOptions(): Options {
  command.parse()
  const given = (name: string): boolean => command.getOptionValueSource(name) !== 'default'
  const chosen = CHOICES.some(given)
  const runsGiven = given('runs')
  if (command.opts<Options>().quick) {
    for (const [name, value] of Object.entries(QUICK)) if (!given(name)) command.setOptionValue(name, value)
  }
  return { ...command.opts<Options>(), chosen, runsGiven }
}
