// What was drawn, without what this machine can not do: the same seed then still draws the same everywhere.

import { hasZstd } from '../../src/method/zstd.js'
import { zeroCopySends } from '../../src/migration/zero-copy.js'
import { noKernelLog } from '../support/kernel.js'
import type { Run } from './draw.js'

export function feasible(run: Run): Run {
  const blocks: Run['blocks'] = noKernelLog
    ? run.blocks.map((block) => ({ ...block, dirtyLog: 'explicit' }))
    : run.blocks
  const source = { ...run.source }
  if (source.multifdCompression === 'zstd' && !hasZstd()) source.multifdCompression = 'zlib'
  if (source.zeroCopySend) source.zeroCopySend = sendsWithoutCopying(run.channels.multifdChannels)
  return { ...run, blocks, source }
}

function sendsWithoutCopying(multifdChannels: number): boolean {
  const parameters = { zeroCopySend: true, multifdChannels, multifd: true, multifdCompression: 'none' }
  try {
    return zeroCopySends(parameters, { transport: 'tcp' }) !== undefined
  } catch {
    return false
  }
}
