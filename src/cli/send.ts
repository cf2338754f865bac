// multifd send: a snapshot to a QEMU that waits for one.

import { type Command, Option } from 'commander'
import { MultifdError } from '../errors.js'
import {
  COMPRESSIONS,
  DEFAULT_PARAMETERS,
  type MigrationParameters,
  ZERO_PAGE_DETECTIONS,
} from '../migration/parameters.js'
import { SnapshotSender } from '../snapshot/send.js'
import {
  byteCount,
  type CommonOptions,
  commonParameters,
  offsetOption,
  secondsOption,
  whole,
  withCommonOptions,
} from './options.js'
import { conduct, makeLogger } from './report.js'
import { type SourceTlsFlags, tlsParameter, withSourceTls } from './tls.js'

interface Options extends CommonOptions, SourceTlsFlags {
  returnPath: boolean
  maxBandwidth: number
  zeroCopy?: true
  zeroPageDetection: MigrationParameters['zeroPageDetection']
  xbzrle?: true
  xbzrleCacheSize?: number
  compression: MigrationParameters['multifdCompression']
  compressionLevel?: number
  connectTimeout: number
  completionTimeout: number
  offset?: number
}

const EXAMPLES = `
Examples:
  multifd send guest.snapshot tcp:127.0.0.1:4445 --channels 4
  multifd send guest.snapshot unix:/tmp/migrate.sock --no-multifd

The destination is a QEMU with the same machine type, memory size and devices. For the first example it is
started with -incoming defer, and told in its monitor:
  migrate_set_capability multifd on
  migrate_set_parameter multifd-channels 4
  migrate_incoming tcp:127.0.0.1:4445

The snapshot is not changed, and can be sent again. Exit status: 0 completed, 1 failed, 2 wrong usage,
130 interrupted.`

export function sendCommand(program: Command): void {
  const command = program
    .command('send')
    .description('send a snapshot to a QEMU that was started with -incoming (or to a multifd destination)')
    .argument('<file>', 'the snapshot')
    .argument(
      '<uri>',
      'where the destination listens: tcp:HOST:PORT, unix:PATH or fd:N; or file:PATH[,offset=N], for the stream',
    )
  withCommonOptions(command, "the guest's uuid, which the destination must have too")
    .addOption(offsetOption('where in FILE the snapshot begins'))
    .option('--no-return-path', 'do not ask the destination for its word, for peers that can not give it')
    .addOption(
      new Option('--max-bandwidth <bytes>', 'bytes a second, such as 500M; 0: no limit')
        .default(DEFAULT_PARAMETERS.maxBandwidth, 'no limit')
        .argParser(byteCount),
    )
  withSourceTls(command)
    .option('--zero-copy', 'send pages from where they lie, without copying them first (tcp, multifd)')
    .addOption(
      new Option('--zero-page-detection <where>', 'where zero pages are named; auto: as the machine type has it')
        .choices([...ZERO_PAGE_DETECTIONS, 'auto'])
        .default(DEFAULT_PARAMETERS.zeroPageDetection),
    )
    .option('--xbzrle', 'send only what changed in pages that are sent again; with --no-multifd')
    .addOption(
      new Option(
        '--xbzrle-cache-size <bytes>',
        'memory for the pages to compare with, a power of two; default: 64M',
      ).argParser(byteCount),
    )
    .addOption(
      new Option('--compression <method>', 'of the channels; auto: by what the link is worth, to a multifd destination')
        .choices(COMPRESSIONS)
        .default(DEFAULT_PARAMETERS.multifdCompression),
    )
    .addOption(new Option('--compression-level <n>', 'zlib 0 to 9, zstd 0 to 20 (default: 1)').argParser(whole(0, 20)))
    .addOption(
      secondsOption(
        '--connect-timeout <seconds>',
        'longest time that a connection may take',
        DEFAULT_PARAMETERS.connectTimeoutMs,
        1,
      ),
    )
    .addOption(
      secondsOption(
        '--completion-timeout <seconds>',
        "longest wait for the destination's word at the end; 0: for ever",
        DEFAULT_PARAMETERS.completionTimeoutMs,
        0,
      ),
    )
    .addHelpText('after', EXAMPLES)
    .action((file: string, uri: string, options: Options) => conduct(options, () => prepare(file, uri, options)))
}

function prepare(file: string, uri: string, options: Options) {
  const { returnPath, maxBandwidth, zeroPageDetection, uuid, offset } = options
  const compression = compressionParameters(options)
  const { xbzrle = false, xbzrleCacheSize } = options
  if (xbzrleCacheSize !== undefined && !xbzrle) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', '--xbzrle-cache-size is of no use without --xbzrle')
  }
  const sender = new SnapshotSender(file, {
    parameters: {
      ...commonParameters(options),
      returnPath,
      maxBandwidth,
      zeroCopySend: options.zeroCopy ?? false,
      zeroPageDetection,
      xbzrle,
      ...(xbzrleCacheSize === undefined ? {} : { xbzrleCacheSize }),
      ...compression,
      ...tlsParameter(options),
      connectTimeoutMs: options.connectTimeout,
      completionTimeoutMs: options.completionTimeout,
    },
    logger: makeLogger(options),
    ...(uuid === undefined ? {} : { uuid }),
    ...(offset === undefined ? {} : { offset }),
  })
  return {
    migration: sender.source,
    verb: 'sending',
    work: (signal: AbortSignal) => sender.send(uri, { signal }),
    outcome: () => 'sent',
    close: () => sender.close(),
  }
}

function compressionParameters({ compression, compressionLevel: level }: Options): Partial<MigrationParameters> {
  if (level === undefined) return { multifdCompression: compression }
  if (compression === 'zlib') return { multifdCompression: compression, multifdZlibLevel: level }
  if (compression === 'zstd') return { multifdCompression: compression, multifdZstdLevel: level }
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', `compression ${compression} has no level: it is zlib's and zstd's`)
}
