// multifd receive: a migration into a snapshot file.

import { rmSync } from 'node:fs'
import { type Command, Option } from 'commander'
import {
  COMPRESSIONS,
  DEFAULT_PARAMETERS,
  DESTINATION_DEFAULTS,
  type MigrationParameters,
} from '../migration/parameters.js'
import { SnapshotReceiver } from '../snapshot/receive.js'
import { partialPath } from '../snapshot/target.js'
import { type CommonOptions, commonParameters, offsetOption, secondsOption, withCommonOptions } from './options.js'
import { conduct, makeLogger, say } from './report.js'
import { type DestinationTlsFlags, tlsParameter, withDestinationTls } from './tls.js'

interface Options extends CommonOptions, DestinationTlsFlags {
  output: string
  machineType?: string
  compression: MigrationParameters['multifdCompression']
  helloTimeout: number
  offset?: number
  allowMissingPages?: true
}

const EXAMPLES = `
Examples:
  multifd receive tcp:127.0.0.1:4444 --output guest.snapshot --channels 4
  multifd receive unix:/tmp/migrate.sock -o guest.snapshot --no-multifd
  multifd receive file:guest.stream -o guest.snapshot --no-multifd

It waits for one migration. In QEMU's monitor, for the first example:
  migrate_set_capability multifd on
  migrate_set_capability return-path on
  migrate_set_parameter multifd-channels 4
  migrate -d tcp:127.0.0.1:4444

Until everything came the file is named FILE.partial. Exit status: 0 completed, 1 failed, 2 wrong usage,
130 interrupted.`

export function receiveCommand(program: Command): void {
  const command = program
    .command('receive')
    .description('receive a running QEMU (or a multifd source) into a snapshot file')
    .argument('<uri>', 'where to listen: tcp:HOST:PORT, unix:PATH or fd:N; or file:PATH[,offset=N], a stream in a file')
    .requiredOption('-o, --output <file>', 'the snapshot; it has this name once it is whole')
  withCommonOptions(command, 'refuse a guest with another uuid')
    .addOption(
      new Option('--compression <method>', 'refuse channels of another method; auto: whatever each channel begins with')
        .choices(COMPRESSIONS)
        .default(DESTINATION_DEFAULTS.multifdCompression),
    )
    .addOption(offsetOption('where in FILE the snapshot begins; what it has before stays'))
    .option('--machine-type <name>', 'refuse a guest of another machine type')
    .addOption(
      secondsOption(
        '--hello-timeout <seconds>',
        'longest wait for a connection to speak, and for the last one after the first',
        DEFAULT_PARAMETERS.helloTimeoutMs,
        1,
      ),
    )
    .option('--allow-missing-pages', 'accept a stream that lacks pages')
  withDestinationTls(command)
    .addHelpText('after', EXAMPLES)
    .action((uri: string, options: Options) => conduct(options, () => prepare(uri, options)))
}

function prepare(uri: string, options: Options) {
  const { output, uuid, machineType, offset } = options
  const receiver = new SnapshotReceiver(output, {
    parameters: {
      ...commonParameters(options),
      multifdCompression: options.compression,
      helloTimeoutMs: options.helloTimeout,
      ...tlsParameter(options),
    },
    logger: makeLogger(options),
    allowMissingPages: options.allowMissingPages ?? false,
    ...(uuid === undefined ? {} : { uuid }),
    ...(machineType === undefined ? {} : { machineType }),
    ...(offset === undefined ? {} : { offset }),
  })
  return {
    migration: receiver,
    verb: 'receiving',
    async work(signal: AbortSignal) {
      const from = await receiver.listen(uri, { signal })
      say(`${from.startsWith('file:') ? 'reading' : 'listening on'} ${from}`)
      return await receiver.completed
    },
    outcome: () => output,
    close: () => receiver.close(),
    atOnce: () => rmSync(partialPath(output), { force: true }),
  }
}
