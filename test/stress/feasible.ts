// What was drawn, without what this machine can not do: the same seed then still draws the same everywhere.

import { hasZstd } from '../../src/method/zstd.js'
import { zeroCopySends } from '../../src/migration/zero-copy.js'
import { noKernelLog } from '../support/kernel.js'
import type { Run } from './draw.js'

/** That a run's memory is passed on in. */
const PIECES_MAX = 200_000

export function feasible(run: Run): Run {
  const blocks: Run['blocks'] = noKernelLog
    ? run.blocks.map((block) => ({ ...block, dirtyLog: 'explicit' }))
    : run.blocks
  const source = { ...run.source }
  if (source.multifdCompression === 'zstd' && !hasZstd()) source.multifdCompression = 'zlib'
  if (source.zeroCopySend) source.zeroCopySend = sendsWithoutCopying(run.channels.multifdChannels)
  const { network } = run
  // A proxy passes some 20,000 pieces a second: with more of them than that a run would be about the proxy.
  const least = Math.ceil(run.blocks.reduce((sum, { size }) => sum + size, 0) / PIECES_MAX)
  const pieces = network && { network: { ...network, fragments: Math.max(least, network.fragments) } }
  return { ...run, blocks, source, ...pieces }
}

function sendsWithoutCopying(multifdChannels: number): boolean {
  const parameters = { zeroCopySend: true, multifdChannels, multifd: true, multifdCompression: 'none' }
  try {
    return zeroCopySends(parameters, { transport: 'tcp' }) !== undefined
  } catch {
    return false
  }
}
