// What was drawn, without what this machine can not do: the same seed then still draws the same everywhere.

import { hasZstd } from '../../src/method/zstd.js'
import { zeroCopySends } from '../../src/migration/zero-copy.js'
import { noKernelLog } from '../support/kernel.js'
import type { NetworkShape, Run } from './draw.js'

/** That a run's memory is passed on in, by a proxy. */
const PIECES_MAX = 200_000
// What a lossy network's first pass may take, and what a packet carries.
const LOSSY_MS = 8000
const SEGMENT = 8900

export function feasible(run: Run): Run {
  const blocks: Run['blocks'] = noKernelLog
    ? run.blocks.map((block) => ({ ...block, dirtyLog: 'explicit' }))
    : run.blocks
  const source = { ...run.source }
  if (source.multifdCompression === 'zstd' && !hasZstd()) source.multifdCompression = 'zlib'
  if (source.zeroCopySend) source.zeroCopySend = sendsWithoutCopying(run.channels.multifdChannels)
  return { ...run, blocks, source, ...(run.network && { network: passable(run, run.network) }) }
}

function passable({ blocks, channels }: Run, network: NetworkShape): NetworkShape {
  const bytes = blocks.reduce((sum, { size }) => sum + size, 0)
  // A proxy passes some 20,000 pieces a second: with more of them than that a run would be about the proxy.
  const fragments = Math.max(Math.ceil(bytes / PIECES_MAX), network.fragments)
  // What loss leaves a connection of tcp is segment / round trip × 1.22 / √loss (Mathis et al. 1997).
  const roundTripMs = Math.max(1, 2 * network.delayMs)
  const connections = channels.multifd ? channels.multifdChannels : 1
  const wanted = bytes / LOSSY_MS
  const most = 100 * ((connections * (SEGMENT / roundTripMs) * 1.22) / wanted) ** 2
  return { ...network, fragments, lossPercent: Math.min(network.lossPercent, most) }
}

function sendsWithoutCopying(multifdChannels: number): boolean {
  const parameters = { zeroCopySend: true, multifdChannels, multifd: true, multifdCompression: 'none' }
  try {
    return zeroCopySends(parameters, { transport: 'tcp' }) !== undefined
  } catch {
    return false
  }
}
