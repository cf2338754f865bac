// What one run of the stress is: everything that can be varied, drawn from a seed.

import type { MigrationParameters, MigrationStatus } from '../../src/index.js'
import { CONTENTS, type Content } from './contents.js'
import { Random } from './random.js'

const KiB = 1024
const MiB = 1024 * KiB
const PAGE = 4096

export const BLOCK_KINDS = ['allocated', 'sparse', 'adopted-shared', 'adopted', 'file'] as const
export const PATTERNS = ['sequential', 'random', 'hot', 'bursts', 'stride'] as const

/** One block of the program's memory. */
export interface BlockShape {
  idstr: string
  /** Bytes. */
  size: number
  /** At the source. */
  kind: (typeof BLOCK_KINDS)[number]
  /** At the destination; a sparse block is sparse at both. */
  kindThere: (typeof BLOCK_KINDS)[number]
  dirtyLog: 'explicit' | 'kernel'
  content: Content
  /** Of a sparse block: bytes of a granule, and which of them have content. */
  granuleSize?: number
  populated?: number[]
}

/** How the source's program writes. */
export interface WriterShape {
  pattern: (typeof PATTERNS)[number]
  /** Pages a second. */
  rate: number
  seed: number
  /** It does not say what it writes: a defect that the stress must notice. */
  forgets?: true
}

/** What the network between the two does to bytes. */
export interface NetworkShape {
  /** Of each way, ms. */
  delayMs: number
  jitterMs: number
  /** Bytes a second in each direction, 0 for no limit. */
  rate: number
  /** Of packets, where there is a link of packets. */
  lossPercent: number
  reorderPercent: number
  /** Bytes are passed on in pieces of 1 to so many, where a proxy does it. */
  fragments: number
}

/** What goes wrong, if anything does. */
export type Disturbance =
  /** The program itself cancels, or its process is killed, `afterMs` after a side came to a state. */
  | { kind: 'cancel' | 'kill'; side: 'source' | 'destination'; at: MigrationStatus; afterMs: number }
  /** The connections end, or nothing passes any more, once so many bytes have passed. */
  | { kind: 'cut' | 'hang'; afterBytes: number }

export interface Run {
  seed: number
  number: number
  blocks: BlockShape[]
  writer: WriterShape
  transport: 'tcp' | 'unix'
  /** Undefined: the two are on one machine and nothing is between them. */
  network?: NetworkShape
  tls: boolean
  /** What both sides say, and what the source alone does. */
  channels: Pick<MigrationParameters, 'multifd' | 'multifdChannels'>
  source: Partial<MigrationParameters>
  disturbance?: Disturbance
}

export interface DrawOptions {
  /** Bytes of all blocks, at most. */
  memory: number
}

const FULL: DrawOptions = { memory: 48 * MiB }

/** The run of that number. */
export function draw(seed: number, number: number, { memory } = FULL): Run {
  const random = new Random(seed, number)
  const transport = random.chance(75) ? 'tcp' : 'unix'
  const network = transport === 'tcp' && random.chance(40) ? drawNetwork(random) : undefined
  // What is slow moves less, so that a run is a matter of seconds.
  const room = network?.rate ? Math.min(memory, network.rate / 2) : network ? memory / 4 : memory
  const blocks = drawBlocks(random, room)
  const tls = random.chance(20)
  const multifd = random.chance(85)
  const channels = { multifd, multifdChannels: random.whole(1, random.chance(25) ? 32 : 6) }
  const source = drawSource(random, { multifd, tls, transport, bytes: blocks.reduce((sum, { size }) => sum + size, 0) })
  const run: Run = {
    seed,
    number,
    blocks,
    writer: { pattern: random.pick(PATTERNS), rate: random.magnitude(50, 20_000), seed: random.whole(1, 0x7fffffff) },
    transport,
    ...(network && { network }),
    tls,
    channels,
    source,
  }
  if (random.chance(45)) run.disturbance = drawDisturbance(random, run)
  return run
}

function drawBlocks(random: Random, room: number): BlockShape[] {
  const count = random.chance(10) ? random.whole(8, 24) : random.whole(1, 5)
  return Array.from({ length: count }, (_, at) => {
    const most = Math.max(PAGE, Math.floor(room / count / PAGE) * PAGE)
    const kind = random.pick(BLOCK_KINDS)
    // WebAssembly's memories have pages of 64 KiB.
    const unit = kind.startsWith('adopted') ? 64 * KiB : PAGE
    const size = Math.max(unit, Math.floor(random.magnitude(PAGE, most) / unit) * unit)
    const shape: BlockShape = {
      idstr: `block-${at}`,
      size,
      kind,
      kindThere: kind === 'sparse' ? 'sparse' : random.pick(['allocated', 'file'] as const),
      dirtyLog: random.chance(65) ? 'kernel' : 'explicit',
      content: random.pick(CONTENTS),
    }
    return kind === 'sparse' ? { ...shape, ...drawGranules(random, size) } : shape
  })
}

function drawGranules(random: Random, size: number): Pick<BlockShape, 'granuleSize' | 'populated' | 'size'> {
  const granuleSize = PAGE << random.whole(0, 8)
  const granules = Math.max(1, Math.floor(size / granuleSize))
  const share = random.whole(0, 100)
  const populated = Array.from({ length: granules }, (_, granule) => granule).filter(() => random.chance(share))
  return { granuleSize, size: granules * granuleSize, populated: populated.length > 0 ? populated : [0] }
}

interface Circumstances {
  multifd: boolean
  tls: boolean
  transport: Run['transport']
  bytes: number
}

function drawSource(random: Random, { multifd, tls, transport, bytes }: Circumstances): Run['source'] {
  const compression = multifd ? random.pick(['none', 'none', 'none', 'zlib', 'zstd', 'auto'] as const) : 'none'
  const source: Partial<MigrationParameters> = {
    multifdCompression: compression,
    multifdZlibLevel: random.whole(0, 9),
    multifdZstdLevel: random.whole(0, random.chance(80) ? 5 : 20),
    zeroPageDetection: random.pick(['auto', 'none', 'legacy', 'multifd'] as const),
    // From an eighth of a second to four for all of it.
    maxBandwidth: random.chance(40) ? Math.round(bytes / (random.whole(1, 32) / 8)) : 0,
    downtimeLimit: random.magnitude(1, 1000),
    pauseBeforeSwitchover: random.chance(20),
    switchoverAck: random.chance(15),
    autoConverge: random.chance(15),
    // A program that always writes is stopped in the end all the same.
    maxPasses: random.whole(1, 8),
    timeoutMs: random.whole(1000, 4000),
    atLimit: 'switchover',
  }
  if (!multifd && random.chance(60)) {
    source.xbzrle = true
    source.xbzrleCacheSize = PAGE << random.whole(0, 13)
  }
  if (multifd && compression === 'none' && !tls && transport === 'tcp') source.zeroCopySend = random.chance(30)
  return source
}

function drawNetwork(random: Random): NetworkShape {
  const delayMs = random.chance(60) ? random.magnitude(1, 60) : 0
  return {
    delayMs,
    jitterMs: delayMs > 0 && random.chance(50) ? Math.ceil(delayMs / random.whole(1, 4)) : 0,
    rate: random.chance(50) ? random.magnitude(1 * MiB, 64 * MiB) : 0,
    lossPercent: random.chance(30) ? random.whole(1, 30) / 10 : 0,
    reorderPercent: delayMs > 0 && random.chance(30) ? random.whole(1, 25) : 0,
    fragments: random.chance(50) ? random.magnitude(1, 64 * KiB) : 64 * KiB,
  }
}

function drawDisturbance(random: Random, { blocks, transport, source }: Run): Disturbance {
  const states: MigrationStatus[] = ['setup', 'active', 'active', 'active', 'device', 'completed']
  if (source.pauseBeforeSwitchover) states.push('pre-switchover')
  const kind = random.pick(['cancel', 'cancel', 'kill', 'kill', 'cut', 'hang'] as const)
  // Only a proxy cuts, and it speaks tcp.
  if ((kind === 'cut' || kind === 'hang') && transport === 'tcp') {
    const bytes = blocks.reduce((sum, { size }) => sum + size, 0)
    return { kind, afterBytes: random.magnitude(1, Math.max(2, bytes)) }
  }
  const side = random.pick(['source', 'destination'] as const)
  const at = random.pick(side === 'destination' ? (['setup', 'active', 'active', 'completed'] as const) : states)
  // Once it is over, a moment later is too late; and a destination says first where it listens.
  const least = side === 'destination' && at === 'setup' ? 5 : 0
  const afterMs = at === 'completed' ? 0 : random.chance(30) ? least : random.magnitude(Math.max(1, least), 400)
  return { kind: random.chance(50) ? 'cancel' : 'kill', side, at, afterMs }
}
