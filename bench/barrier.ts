// How long a barrier takes: from the order to send SYNC on every channel until the destination lets every channel go on.
//
// Threads, sockets, records and waits are a migration's own, without pages: the source's coordinator ends one section after
// another, the destination's reads them and notes when it has released the barrier. A channel whose next packet comes
// after that is not held up by it.

import { availableParallelism } from 'node:os'
import { endIdleThreads } from '../src/index.js'
import { noLogger } from '../src/log.js'
import { completeParameters, sendMethodOptions } from '../src/migration/parameters.js'
import { MigrationThreads, type ThreadsOptions } from '../src/migration/threads.js'
import { closeDescriptor, inetAddress, localPort, openListener } from '../src/os/socket.js'
import { RamBlock } from '../src/ram/block.js'
import { pagesPerPacket } from '../src/wire/multifd-packet.js'
import { makeClock, type SectionsPlan } from './processes/barrier-clock.js'
import { type Spread, spread } from './statistics.js'

const PAGE = 4096
const BACKLOG = 255
// Until the engine has compiled what runs.
const WARM_UP = 50

export interface BarrierPlan {
  channels: number[]
  rounds: number
}

export interface BarrierPoint {
  channels: number
  rounds: number
  /** µs. */
  latency: Spread
  /** µs: of 100 rounds, 95 took no longer. */
  percentile95: number
}

/** @param progress is called after each count */
export async function barriersByChannels(
  { channels, rounds }: BarrierPlan,
  progress: (text: string) => void,
): Promise<BarrierPoint[]> {
  const points: BarrierPoint[] = []
  for (const count of channels) {
    const latencies = await barrierLatencies(count, rounds)
    const latency = spread(latencies)
    const sorted = latencies.toSorted((a, b) => a - b)
    points.push({ channels: count, rounds, latency, percentile95: sorted[Math.ceil(rounds * 0.95) - 1]! })
    progress(`barrier, ${count} channels: ${latency.median.toFixed(0)} µs`)
  }
  await endIdleThreads()
  return points
}

/** The rounds' latencies, µs. */
export async function barrierLatencies(channels: number, rounds: number): Promise<number[]> {
  const clock = makeClock(WARM_UP + rounds)
  const listener = openListener(inetAddress('127.0.0.1', 0), BACKLOG)
  try {
    const plan: SectionsPlan = {
      clock,
      listener,
      port: localPort(listener),
      block: RamBlock.allocate({ idstr: 'heap', size: PAGE }).handle,
    }
    const sides = [threads('dst', plan, channels), threads('src', plan, channels)]
    for (const error of await Promise.all(sides.map(({ ended }) => ended))) if (error) throw error
  } finally {
    closeDescriptor(listener)
  }
  return [...new Float64Array(clock.latencies)].slice(WARM_UP).map((ms) => ms * 1000)
}

function threads(side: 'src' | 'dst', plan: SectionsPlan, channels: number): MigrationThreads {
  const role = side === 'src' ? 'source' : 'destination'
  const parameters = completeParameters({ multifdChannels: channels }, role)
  const options: ThreadsOptions = {
    side,
    coordinator: new URL(`./processes/barrier-${role}.js`, import.meta.url),
    channel: new URL(`../workers/${side === 'src' ? 'send' : 'recv'}.js`, import.meta.url),
    channels,
    pagesPerPacket: pagesPerPacket(PAGE),
    dirtyWords: side === 'src' ? 1 : 0,
    startAtOnce: side === 'src' ? Math.max(2, availableParallelism()) : channels,
    parameters,
    tls: undefined,
    plan,
    channelPlan:
      side === 'src' ? { findZeroPages: false, compression: sendMethodOptions(parameters) } : { compression: 'none' },
    onMessage: () => {},
    logger: noLogger,
  }
  return new MigrationThreads(options)
}
