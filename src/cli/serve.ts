// multifd serve: a snapshot, or memory of this process, that is migrated by QMP.

import { type Command, InvalidArgumentError } from 'commander'
import { MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import type { ObservedMigrations } from '../metrics/metrics.js'
import type { MetricsServer } from '../metrics/server.js'
import { MigrationDestination } from '../migration/destination.js'
import { MigrationSource } from '../migration/source.js'
import type { QmpTarget } from '../qmp/control.js'
import { QEMU_DEFAULTS } from '../qmp/names.js'
import { QmpServer } from '../qmp/server.js'
import type { TlsObjects } from '../qmp/tls.js'
import { RamBlock } from '../ram/block.js'
import { SnapshotReceiver } from '../snapshot/receive.js'
import { SnapshotSender } from '../snapshot/send.js'
import { byteCount, collect, type HostPort, type LogOptions, metricsOption, withLogOptions } from './options.js'
import { interruption, makeLogger, onInterrupt, say, serveMetrics } from './report.js'
import { collectObject, tryObjects } from './tls.js'

interface Options extends LogOptions {
  qmp: string[]
  snapshot?: string
  ram?: RamOption[]
  incoming?: true
  object?: Required<TlsObjects>
  metrics?: HostPort
}

interface RamOption {
  idstr: string
  size: number
}

/** What is served, and how it is given back. */
interface Served extends QmpTarget {
  /** What there is to look at now. */
  migrations(): ObservedMigrations
  close(): Promise<void>
}

const EXAMPLES = `
Examples:
  multifd serve --qmp unix:/tmp/qmp.sock --snapshot guest.snapshot
  multifd serve --qmp unix:/tmp/qmp.sock --snapshot new.snapshot --incoming
  multifd serve --qmp unix:/tmp/qmp.sock --ram heap=512M --ram table=64M
  multifd serve --qmp unix:/tmp/qmp.sock --snapshot guest.snapshot --object tls-creds-x509,id=tls0,dir=/etc/pki/qemu

Whatever drives a QEMU's migration by QMP drives this one, for example socat - UNIX-CONNECT:/tmp/qmp.sock:
  {"execute": "qmp_capabilities"}
  {"execute": "migrate", "arguments": {"uri": "tcp:127.0.0.1:4444"}}
  {"execute": "query-migrate"}

Defaults are QEMU's: without multifd and return path, and with 128 MiB a second. It ends with the command quit (exit status 0),
or with Ctrl-C (130).`

export function serveCommand(program: Command): void {
  const command = program
    .command('serve')
    .description('a snapshot, or memory, to migrate by QMP')
    .requiredOption('--qmp <uri>', 'where QMP listens: unix:PATH or tcp:HOST:PORT; may be repeated', collect)
    .option('--snapshot <file>', 'a snapshot to send, or with --incoming to receive')
    .option('--ram <name=size>', 'a block of memory, such as heap=512M; may be repeated', collectRam)
    .option('--incoming', 'wait for migrate-incoming; what came can be migrated on')
    .option(
      '--object <object>',
      'credentials for the parameters tls-creds and tls-authz to name, as QEMU has them; may be repeated',
      collectObject,
    )
    .addOption(metricsOption())
  withLogOptions(command).addHelpText('after', EXAMPLES).action(serve)
}

function collectRam(value: string, before: RamOption[] = []): RamOption[] {
  const [, idstr, size] = /^([^=]+)=(.+)$/.exec(value) ?? []
  if (idstr === undefined) throw new InvalidArgumentError('It must be a name and a size, such as heap=512M.')
  return [...before, { idstr, size: byteCount(size!) }]
}

async function serve(options: Options): Promise<void> {
  const logger = makeLogger(options)
  if (options.object) tryObjects(options.object, options.incoming ? 'server' : 'client')
  const served = serveWhat(options, logger)
  let quit = (): void => {}
  const over = new Promise<void>((resolve) => {
    quit = resolve
  })
  using interrupt = onInterrupt()
  const { migrations, ...target } = served
  const server = new QmpServer({ ...target, quit, logger, ...(options.object && { tls: options.object }) })
  let metrics: MetricsServer | undefined
  try {
    metrics = await serveMetrics(options.metrics, migrations)
    for (const uri of options.qmp) say(`QMP on ${await server.listen(uri)}`)
    await Promise.race([over, aborted(interrupt.signal)])
  } finally {
    await metrics?.close()
    await server.close()
    await served.close()
  }
  if (interrupt.signal.aborted) process.exitCode = interruption()
}

function serveWhat({ snapshot, ram, incoming }: Options, logger: Logger): Served {
  if ((snapshot === undefined) === (ram === undefined)) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'either --snapshot or --ram says what is served')
  }
  return snapshot === undefined ? serveRam(ram!, incoming, logger) : serveSnapshot(snapshot, incoming, logger)
}

function serveSnapshot(path: string, incoming: true | undefined, logger: Logger): Served {
  const parameters = QEMU_DEFAULTS
  let sender: SnapshotSender | undefined
  const source = (): MigrationSource => {
    sender = new SnapshotSender(path, { parameters, logger })
    return sender.source
  }
  if (incoming) {
    const destination = new SnapshotReceiver(path, { parameters, logger })
    const migrations = (): ObservedMigrations => ({ destination, ...(sender && { source: sender.source }) })
    return { source, destination, migrations, close: () => closeAll(destination, sender) }
  }
  const made = source()
  const { machineType } = sender!.snapshot.configuration
  return { source: made, machineType, migrations: () => ({ source: made }), close: () => closeAll(sender) }
}

function serveRam(ram: RamOption[], incoming: true | undefined, logger: Logger): Served {
  const blocks = ram.map((block) => RamBlock.allocate(block))
  const options = { ram: blocks, parameters: QEMU_DEFAULTS, logger }
  let source: MigrationSource | undefined
  const make = (): MigrationSource => {
    source = new MigrationSource(options)
    return source
  }
  if (!incoming) {
    const made = make()
    return { source: made, migrations: () => ({ source: made }), close: () => closeAll(source) }
  }
  const destination = new MigrationDestination(options)
  const migrations = (): ObservedMigrations => ({ destination, ...(source && { source }) })
  return { source: make, destination, migrations, close: () => closeAll(destination, source) }
}

async function closeAll(...closeables: ({ close(): Promise<void> } | undefined)[]): Promise<void> {
  for (const closeable of closeables) await closeable?.close()
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
