// multifd demo: a live migration on this machine, from this process to another, of memory that is written to.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { MultifdError } from '../errors.js'
import type { MetricsServer } from '../metrics/server.js'
import { AT_LIMIT, DEFAULT_PARAMETERS, type MigrationParameters } from '../migration/parameters.js'
import { MigrationSource } from '../migration/source.js'
import type { MigrationStatistics, PassInfo } from '../migration/statistics.js'
import type { ProgramHooks } from '../migration/switchover.js'
import { QmpServer } from '../qmp/server.js'
import { RamBlock } from '../ram/block.js'
import { type DirtyLogKind, requireDirtyLog } from '../ram/dirty-log.js'
import { DEMO_BLOCK } from './demo/destination.js'
import { checksum, MIXTURE } from './demo/memory.js'
import { DemoDestination, DemoWriter } from './demo/peers.js'
import { Screen } from './demo/screen.js'
import { bytes, duration, kebabKeys, rate } from './format.js'
import { byteCount, channelsOption, type HostPort, metricsOption, secondsOption, whole } from './options.js'
import { EXIT, failure, onInterrupt, printJson, resultObject, serveMetrics } from './report.js'

interface Options {
  size: number
  channels: number
  dirtyRate: number
  maxBandwidth: number
  downtimeLimit: number
  dirtyLog: DirtyLogKind | 'auto'
  autoConverge: boolean
  maxPasses: number
  timeout: number
  atLimit: MigrationParameters['atLimit']
  qmp?: string
  metrics?: HostPort
  json?: true
}

/** How the migration learns what the program changes. */
interface ChosenLog {
  kind: DirtyLogKind
  /** Why it is not the kernel's, where that was to be had if possible. */
  reason?: string
}

interface Outcome {
  statistics: MigrationStatistics
  passes: PassInfo[]
  checksums: { source: string; destination: string; equal: boolean }
}

const MIB = 1024 * 1024
/** Largest block of a program: see RamBlock.allocate. */
const MOST_MIB = 4096
/** Percent of its rate that a program loses first which writes faster than it can be sent: QEMU's 20 take long to help. */
const FIRST_THROTTLE = 50

const NOTES = `
Examples:
  multifd demo
  multifd demo --size 4G --channels 8 --dirty-rate 500M
  multifd demo --max-bandwidth 50M --qmp unix:/tmp/qmp.sock, and meanwhile: multifd top /tmp/qmp.sock

The source is this process, the destination another one. A thread goes on writing to the memory until what is
left fits the downtime limit; then it stops, the rest goes, and the checksums of both sides are compared. The
kernel tells what the thread writes; where it can not (before Linux 6.7, or not allowed) the thread says it.
Exit status: 0 equal, 1 failed, 2 wrong usage, 130 interrupted.`

export function demoCommand(program: Command): void {
  program
    .command('demo')
    .description('a live migration on this machine, of memory that a program goes on writing to')
    .addOption(new Option('--size <bytes>', 'memory to move, 1M to 4G').default(1024 * MIB, '1G').argParser(sizeOption))
    .addOption(channelsOption(4))
    .addOption(
      new Option('--dirty-rate <bytes>', 'how fast the program dirties memory, bytes a second')
        .default(200 * MIB, '200M')
        .argParser(byteCount),
    )
    .addOption(
      new Option('--max-bandwidth <bytes>', 'bytes a second, such as 500M; 0: no limit')
        .default(DEFAULT_PARAMETERS.maxBandwidth, 'no limit')
        .argParser(byteCount),
    )
    .addOption(
      new Option('--downtime-limit <ms>', 'longest time that the program may stand still, in milliseconds')
        .default(20)
        .argParser(whole(0, 2_000_000)),
    )
    .addOption(
      new Option('--dirty-log <kind>', "who tells what the program changes: the kernel, or the program ('explicit')")
        .choices(['auto', 'kernel', 'explicit'])
        .default('auto'),
    )
    .option('--no-auto-converge', 'do not slow the program down where it dirties memory faster than it can be sent')
    .addOption(
      new Option('--max-passes <n>', 'passes after which it ends as --at-limit says; 0: no limit')
        .default(DEFAULT_PARAMETERS.maxPasses)
        .argParser(whole(0, 2 ** 31 - 1)),
    )
    .addOption(secondsOption('--timeout <seconds>', 'the same by time; 0: no limit', DEFAULT_PARAMETERS.timeoutMs, 0))
    .addOption(
      new Option('--at-limit <what>', 'fail, or stop the program for as long as the rest takes')
        .choices(AT_LIMIT)
        .default(DEFAULT_PARAMETERS.atLimit),
    )
    .option('--qmp <uri>', 'have QMP look at it, and steer it: unix:PATH or tcp:HOST:PORT')
    .addOption(metricsOption())
    .option('--json', 'print one JSON object at the end on standard output, and nothing else there')
    .addHelpText('after', NOTES)
    .action(run)
}

function sizeOption(text: string): number {
  const size = byteCount(text)
  if (size < MIB || size > MOST_MIB * MIB) throw new InvalidArgumentError('It must be from 1M to 4G.')
  return Math.ceil(size / MIB) * MIB
}

async function run(options: Options): Promise<void> {
  using interrupt = onInterrupt()
  const screen = new Screen(options.json ?? false)
  let source: MigrationSource | undefined
  let metrics: MetricsServer | undefined
  let log: ChosenLog | undefined
  let outcome: Outcome | undefined
  let error: MultifdError | undefined
  try {
    log = chooseLog(options.dirtyLog)
    const block = RamBlock.allocate({ idstr: DEMO_BLOCK, size: options.size, dirtyLog: log.kind })
    const { channels: multifdChannels, maxBandwidth, downtimeLimit, autoConverge, maxPasses, atLimit } = options
    const { timeout: timeoutMs } = options
    const limits = {
      maxBandwidth,
      downtimeLimit,
      autoConverge,
      cpuThrottleInitial: FIRST_THROTTLE,
      maxPasses,
      timeoutMs,
      atLimit,
    }
    source = new MigrationSource({ ram: [block], parameters: { multifdChannels, ...limits } })
    const observed = { source }
    metrics = await serveMetrics(options.metrics, () => observed)
    outcome = await new Demo(options, log, block, source, screen).run(interrupt.signal)
    if (!outcome.checksums.equal) error = new MultifdError('ERR_MULTIFD_INTERNAL', 'the two memories differ')
  } catch (thrown) {
    error = interrupt.signal.aborted ? aborted(thrown) : MultifdError.from(thrown)
  } finally {
    await metrics?.close()
  }
  if (options.json) {
    const { passes = [], checksums } = outcome ?? {}
    const result = resultObject(source?.statistics(), error)
    const dirtyLog = log && { 'dirty-log': log }
    printJson({ ...result, ...dirtyLog, passes: kebabKeys(passes), ...(checksums === undefined ? {} : { checksums }) })
  }
  process.exitCode = error ? failure(error, interrupt.signal.aborted) : EXIT.completed
}

/** @throws MultifdError ERR_MULTIFD_UNSUPPORTED where the kernel's was asked for and can not be had */
function chooseLog(wanted: Options['dirtyLog']): ChosenLog {
  if (wanted === 'explicit') return { kind: 'explicit' }
  try {
    requireDirtyLog('kernel')
    return { kind: 'kernel' }
  } catch (error) {
    if (wanted === 'kernel') throw error
    return { kind: 'explicit', reason: (error as Error).message }
  }
}

function aborted(cause: unknown): MultifdError {
  return new MultifdError('ERR_MULTIFD_ABORTED', 'the demo was interrupted', { cause })
}

function describeLog({ kind, reason }: ChosenLog): string {
  if (kind === 'kernel') return 'kernel: the program writes as it likes'
  return `explicit: the program says what it writes${reason === undefined ? '' : `; the kernel's: ${reason}`}`
}

class Demo {
  readonly #options: Options
  readonly #log: ChosenLog
  readonly #block: RamBlock
  readonly #source: MigrationSource
  readonly #screen: Screen
  readonly #passes: PassInfo[] = []

  constructor(options: Options, log: ChosenLog, block: RamBlock, source: MigrationSource, screen: Screen) {
    this.#options = options
    this.#log = log
    this.#block = block
    this.#source = source
    this.#screen = screen
  }

  async run(signal: AbortSignal): Promise<Outcome> {
    const { size, channels, dirtyRate, downtimeLimit } = this.#options
    const screen = this.#screen
    const destination = new DemoDestination({ size, channels })
    const writer = new DemoWriter(this.#block, dirtyRate)
    const qmp = new QmpServer({ source: this.#source, ...this.#hooks(writer) })
    try {
      screen.line('A live migration on this machine, of memory that a program goes on writing to.\n')
      screen.line(`  source       process ${process.pid}: ${bytes(size)}, ${MIXTURE}`)
      screen.live('  filling the memory …')
      const [uri] = await Promise.all([destination.uri(signal), writer.filled(signal)])
      screen.line(`  destination  process ${destination.pid}: ${uri}, ${channels} channels`)
      screen.line(`  program      a thread that dirties ${rate(dirtyRate)}, may stand still for ${downtimeLimit} ms`)
      screen.line(`  dirty log    ${describeLog(this.#log)}`)
      if (this.#options.qmp !== undefined) screen.line(`  QMP          ${await qmp.listen(this.#options.qmp)}`)
      screen.line()
      writer.start()
      const statistics = await this.#migrate(uri, writer, signal)
      screen.live('  comparing …')
      const [source, theirs] = await Promise.all([checksum(this.#block, signal), destination.checksum(signal)])
      const checksums = { source, destination: theirs, equal: source === theirs }
      this.#conclude(statistics, checksums)
      return { statistics, passes: this.#passes, checksums }
    } finally {
      screen.stop()
      await qmp.close()
      await Promise.all([this.#source.close(), writer.close(), destination.close()])
    }
  }

  async #migrate(uri: string, writer: DemoWriter, signal: AbortSignal): Promise<MigrationStatistics> {
    const screen = this.#screen
    screen.header()
    screen.follow(this.#source)
    this.#source.on('pass', (info) => {
      screen.pass(info, this.#block.pageSize)
      this.#passes.push(info)
    })
    const statistics = await this.#source.migrate(uri, { signal, ...this.#hooks(writer) })
    screen.stop()
    screen.last(this.#passes, statistics)
    return statistics
  }

  #hooks(writer: DemoWriter): ProgramHooks {
    return {
      stop: async () => {
        await writer.stop()
      },
      throttle: (percentage) => {
        const left = writer.throttle(percentage)
        if (percentage > 0)
          this.#screen.line(`          it gets no nearer: the program is slowed down to ${rate(left)}`)
      },
    }
  }

  #conclude({ totalTime, setupTime = 0, downtime = 0, ram }: MigrationStatistics, sums: Outcome['checksums']): void {
    const active = Math.max(1, totalTime - setupTime)
    const screen = this.#screen
    screen.line()
    screen.line(`  source       sha256 ${sums.source}`)
    screen.line(`  destination  sha256 ${sums.destination}  ${sums.equal ? 'equal' : 'DIFFERENT'}`)
    screen.line()
    const pages = `${bytes(ram.normalBytes)} of data, ${bytes(ram.duplicate * ram.pageSize)} of zero pages`
    screen.line(`  moved in ${duration(active)} at ${rate((ram.transferred * 1000) / active)}: ${pages}`)
    screen.line(`  the program stood still for ${duration(downtime)}`)
  }
}
