// multifd receive: a migration into a snapshot file.

import type { Command } from 'commander'
import { SnapshotReceiver } from '../snapshot/receive.js'
import { type CommonOptions, commonParameters, seconds, withCommonOptions } from './options.js'
import { conduct, makeLogger, say } from './report.js'

interface Options extends CommonOptions {
  output: string
  machineType?: string
  helloTimeout: number
  allowMissingPages: boolean
}

export function receiveCommand(program: Command): void {
  withCommonOptions(program.command('receive').argument('<uri>', 'where to listen: tcp:HOST:PORT, unix:PATH or fd:N'))
    .description('receive a running QEMU (or a multifd source) into a snapshot file')
    .requiredOption('-o, --output <file>', 'the snapshot; it has this name once it is whole')
    .option('--machine-type <name>', 'refuse a guest of another machine type')
    .option('--hello-timeout <seconds>', 'longest wait for a connection to speak', seconds, 10_000)
    .option('--allow-missing-pages', 'accept a stream that lacks pages', false)
    .action(async (uri: string, options: Options) => {
      const receiver = new SnapshotReceiver(options.output, {
        parameters: { ...commonParameters(options), helloTimeoutMs: options.helloTimeout },
        logger: makeLogger(options.verbose),
        allowMissingPages: options.allowMissingPages,
        ...(options.uuid === undefined ? {} : { uuid: options.uuid }),
        ...(options.machineType === undefined ? {} : { machineType: options.machineType }),
      })
      process.exitCode = await conduct(receiver, options, async (signal) => {
        say(`listening on ${await receiver.listen(uri, { signal })}`)
        return await receiver.completed
      })
    })
}
