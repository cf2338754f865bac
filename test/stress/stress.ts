// Many runs of the stress, one after the other, and what is told of them.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onProcessEnd } from '../support/qemu/cleanup.js'
import { pskDirectory } from '../support/tls/credentials.js'
import { type DrawOptions, draw, type Run } from './draw.js'
import { feasible } from './feasible.js'
import { type LinkKind, Namespace } from './network.js'
import type { LinkCounts } from './processes/link.js'
import { Processes } from './processes.js'
import { perform, type Result } from './run.js'

const LINKS: Record<LinkKind, string> = {
  netem: "the kernel's netem",
  tun: 'a TUN (the kernel has no netem)',
}

export interface StressOptions {
  seed: number
  /** Number of the first run. Default 0. */
  first?: number
  /** How many runs; without it as many as the time allows. */
  runs?: number
  /** ms after which no further run begins. */
  forMs?: number
  draw?: DrawOptions
  /** A network namespace is made where it can be. Default true. */
  namespaces?: boolean
  /** Of the processes. */
  environment?: NodeJS.ProcessEnv
  say(line: string): void
}

/** @returns every run that was not as it must be */
export async function stress(options: StressOptions): Promise<Result[]> {
  const { seed, first = 0, runs = Number.POSITIVE_INFINITY, forMs = Number.POSITIVE_INFINITY, say } = options
  const began = performance.now()
  const results: Result[] = []
  let failed: Result[] = []
  await withProcesses(options, async (processes, folder, keep) => {
    for (let at = 0; at < runs && performance.now() - began < forMs; at++) {
      const run = feasible(draw(seed, first + at, options.draw))
      const surroundings = { processes, folder: join(folder, 'run'), tlsDir: join(folder, 'psk') }
      const result = await perform(run, surroundings)
      results.push(result)
      say(`run ${run.number}: ${describe(result)}`)
      if (result.wrong.length === 0) continue
      keep()
      tellFailure(result, processes, options)
    }
    failed = results.filter(({ wrong }) => wrong.length > 0)
    for (const line of summary(results, await processes.namespace?.counts())) say(line)
    return failed.length === 0
  })
  return failed
}

/**
 * Gives the processes and a folder, and what is to be called once something is wrong: only then is the folder kept, for its
 * logs, also where all of it is interrupted.
 */
export async function withProcesses(
  { say, namespaces = true, environment }: Pick<StressOptions, 'say' | 'namespaces' | 'environment'>,
  act: (processes: Processes, folder: string, keep: () => void) => Promise<boolean>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-stress-'))
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  const keep = onProcessEnd(remove)
  const namespace = namespaces ? await Namespace.make() : 'no namespace was asked for'
  if (typeof namespace === 'string') say(`network: ${namespace}; a proxy delays and throttles`)
  else say(`network: a namespace of its own, with ${LINKS[namespace.kind]}; a proxy cuts connections`)
  const processes = new Processes(folder, typeof namespace === 'string' ? undefined : namespace, environment)
  pskDirectory(join(folder, 'psk'), 'qemu')
  let well = false
  try {
    well = await act(processes, folder, keep)
  } finally {
    await processes.close()
    if (typeof namespace !== 'string') await namespace.remove()
    keep()
    if (well) remove()
    else say(`logs are kept in ${folder}`)
  }
}

function tellFailure({ run, wrong }: Result, processes: Processes, options: StressOptions): void {
  const { say } = options
  const memory = options.draw ? ` --memory ${options.draw.memory / 2 ** 20}` : ''
  say(`run ${run.number} of seed ${run.seed} is NOT WELL:`)
  for (const line of wrong) say(`  ${line}`)
  say(`  drawn:  ${JSON.stringify(run)}`)
  say(`  logs:   ${processes.logs.join(' ')}`)
  say(`  repeat: npm run stress -- --seed ${run.seed} --run ${run.number}${memory}`)
}

function describe({ run, via, source, destination, wrong, inDoubt, tookMs }: Result): string {
  const { blocks, writer, channels, source: own, transport, network, tls, disturbance } = run
  const size = blocks.reduce((sum, block) => sum + block.size, 0) / 2 ** 20
  const kinds = [...new Set(blocks.map(({ kind }) => kind))].join('+')
  const extras = [tls && 'tls', own.zeroCopySend && 'zero-copy', own.xbzrle && 'xbzrle', own.switchoverAck && 'ack']
  const parts = [
    `${blocks.length} ${kinds} ${size.toFixed(1)} MiB`,
    `${writer.pattern} ${writer.rate}/s`,
    channels.multifd ? `${channels.multifdChannels} × ${methodOf(run)}` : 'one stream',
    ...extras.filter((extra) => typeof extra === 'string'),
    `${transport} ${via}${network ? ` (${networkOf(network, via)})` : ''}`,
    disturbance ? disturbanceOf(disturbance) : 'undisturbed',
  ]
  const end = (side: Result['source']): string => (side === 'killed' ? 'killed' : (side.code ?? side.status))
  const ends = `${end(source)} / ${end(destination)}${inDoubt ? ' (in doubt)' : ''}`
  return `${parts.join(', ')}: ${ends}, ${(tookMs / 1000).toFixed(1)} s${wrong.length > 0 ? ', NOT WELL' : ''}`
}

function methodOf({ source }: Run): string {
  const { multifdCompression: method, multifdZlibLevel, multifdZstdLevel } = source
  if (method === 'zlib') return `zlib-${multifdZlibLevel}`
  return method === 'zstd' ? `zstd-${multifdZstdLevel}` : method!
}

function networkOf(network: NonNullable<Run['network']>, via: Result['via']): string {
  const { delayMs, jitterMs, rate, lossPercent, reorderPercent, fragments } = network
  const speed = rate > 0 ? [`${(rate / 2 ** 20).toFixed(1)} MiB/s`] : []
  const packets =
    via === 'proxy' ? [`pieces ${fragments}`] : [`loss ${lossPercent.toFixed(1)} %`, `reorder ${reorderPercent} %`]
  return [`${delayMs}±${jitterMs} ms`, ...speed, ...packets].join(', ')
}

function disturbanceOf(disturbance: NonNullable<Run['disturbance']>): string {
  const { kind } = disturbance
  if (!('side' in disturbance)) return `${kind} after ${disturbance.afterBytes} bytes`
  return `${kind} ${disturbance.side} at ${disturbance.at}+${disturbance.afterMs} ms`
}

function summary(results: Result[], counts: LinkCounts | undefined): string[] {
  const count = (of: (result: Result) => string): string => {
    const counts = new Map<string, number>()
    for (const result of results) counts.set(of(result), (counts.get(of(result)) ?? 0) + 1)
    return [...counts].map(([name, number]) => `${number} ${name}`).join(', ')
  }
  const failed = results.filter(({ wrong }) => wrong.length > 0)
  return [
    `${results.length} runs: ${count(({ via, run }) => (via === 'loopback' ? run.transport : via))}`,
    ...(counts ? [`packets: ${counts.packets}, of them ${counts.lost} lost, and ${counts.overtook} out of order`] : []),
    `disturbed by: ${count(({ run }) => run.disturbance?.kind ?? 'nothing')}`,
    `sources became: ${count(({ source }) => (source === 'killed' ? source : (source.code ?? source.status)))}`,
    `in doubt: ${results.filter(({ inDoubt }) => inDoubt).length}`,
    failed.length === 0 ? 'all is well' : `NOT WELL: ${failed.map(({ run }) => run.number).join(', ')}`,
  ]
}
