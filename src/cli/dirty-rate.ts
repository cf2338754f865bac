// multifd dirty-rate: how fast another process changes its memory, asked by QMP.

import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, Option } from 'commander'
import { MultifdError } from '../errors.js'
import { DIRTY_RATE_MODES, type DirtyRateMode } from '../migration/dirty-rate.js'
import { QmpClient } from '../qmp/client.js'
import type { DirtyRateInfo } from '../qmp/dirty-rate.js'
import { QmpError } from '../qmp/error.js'
import { duration, rate } from './format.js'
import { secondsOption, whole } from './options.js'
import { makeBar } from './progress.js'
import { errorObject, failure, onInterrupt, printJson, say } from './report.js'

interface Options {
  /** ms. */
  calcTime: number
  mode: DirtyRateMode
  samplePages?: number
  json?: true
}

const MIB = 2 ** 20
const LOOK_MS = 20
const BEGIN_MS = 1000

const EXAMPLES = `
Examples:
  multifd dirty-rate unix:/tmp/qmp.sock
  multifd dirty-rate /tmp/qmp.sock --mode dirty-bitmap --calc-time 5
  multifd dirty-rate tcp:127.0.0.1:4445 --json

It asks the process that has the memory, by QMP: a program with a QmpServer, multifd serve or demo with --qmp, the
example store with --qmp, or a QEMU with -qmp. page-sampling hashes pages picked at random twice; dirty-bitmap lets
the kernel (of a QEMU: KVM or TCG) tell which pages are written. Exit status: 0 measured, 1 failed, 2 wrong usage,
130 interrupted.`

export function dirtyRateCommand(program: Command): void {
  program
    .command('dirty-rate')
    .description('how fast a process changes its memory, by its QMP socket')
    .argument('<uri>', 'where its QMP is: unix:PATH, tcp:HOST:PORT, or the path of a socket')
    .addOption(secondsOption('--calc-time <seconds>', 'for how long to measure, up to 60', 1000, 50))
    .addOption(new Option('--mode <mode>', 'how to measure').choices(DIRTY_RATE_MODES).default('page-sampling'))
    .addOption(
      new Option('--sample-pages <n>', 'page-sampling: pages a GiB to hash, 128 to 16384; default: 512').argParser(
        whole(128, 16_384),
      ),
    )
    .option('--json', 'print one JSON object, as query-dirty-rate has it')
    .addHelpText('after', EXAMPLES)
    .action(run)
}

async function run(uri: string, options: Options): Promise<void> {
  using interrupt = onInterrupt()
  try {
    const info = await measure(uri, options, interrupt.signal)
    if (options.json) printJson(info)
    else process.stdout.write(`${describe(info)}\n`)
  } catch (thrown) {
    const error =
      thrown instanceof QmpError ? new MultifdError('ERR_MULTIFD_REMOTE', thrown.message) : MultifdError.from(thrown)
    if (options.json) printJson({ error: errorObject(error) })
    process.exitCode = failure(error, interrupt.signal.aborted)
  }
}

async function measure(uri: string, options: Options, signal: AbortSignal): Promise<DirtyRateInfo> {
  const { calcTime, mode, samplePages } = options
  if (calcTime > 60_000) throw new MultifdError('ERR_MULTIFD_ARGUMENT', '--calc-time is 60 seconds at most')
  using client = await QmpClient.connect(uri, { signal })
  // A QEMU before 8.2 knows seconds only.
  const inSeconds = calcTime % 1000 === 0
  const unit = inSeconds ? {} : { 'calc-time-unit': 'millisecond' }
  await client.command('calc-dirty-rate', {
    'calc-time': inSeconds ? calcTime / 1000 : calcTime,
    ...unit,
    mode,
    ...(samplePages !== undefined && { 'sample-pages': samplePages }),
  })
  const bar = options.json ? undefined : makeBar('measuring {bar} {text}')
  if (!bar && !options.json) say(`measuring for ${duration(calcTime)}`)
  const began = performance.now()
  bar?.start(calcTime, 0, { text: '' })
  try {
    for (;;) {
      const info = await client.command<DirtyRateInfo>('query-dirty-rate', unit)
      if (info.status === 'measured') {
        checkKnown(info)
        bar?.update(calcTime, { text: 'done' })
        return info
      }
      // A QEMU answers before its thread has begun.
      if (info.status !== 'measuring' && performance.now() - began > BEGIN_MS) {
        throw new MultifdError('ERR_MULTIFD_REMOTE', 'the measurement came to nothing: a migration has begun there')
      }
      const gone = Math.min(calcTime, performance.now() - began)
      bar?.update(gone, { text: duration(calcTime - gone) })
      await sleep(LOOK_MS, undefined, { signal }).catch((cause) => {
        throw new MultifdError('ERR_MULTIFD_ABORTED', 'it was interrupted', { cause })
      })
    }
  } finally {
    bar?.stop()
  }
}

// A QEMU without memory that it measures tells -1.
function checkKnown({ 'dirty-rate': rate = 0 }: DirtyRateInfo): void {
  if (rate >= 0) return
  throw new MultifdError('ERR_MULTIFD_REMOTE', `the dirty rate is unknown there (${rate}): no memory could be measured`)
}

function describe(info: DirtyRateInfo): string {
  const how = info.mode === 'page-sampling' ? `${info.mode}, ${info['sample-pages']} pages a GiB` : info.mode
  const dirtied = (info['dirty-rate'] ?? 0) * MIB
  const unit = info['calc-time-unit'] === 'millisecond' ? 1 : 1000
  return `${rate(dirtied)} (${how}, ${duration(info['calc-time'] * unit)})`
}
