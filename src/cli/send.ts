// multifd send: a snapshot to a QEMU that waits for one.

import { type Command, Option } from 'commander'
import { ZERO_PAGE_DETECTIONS } from '../migration/parameters.js'
import { SnapshotSender } from '../snapshot/send.js'
import { byteCount, type CommonOptions, commonParameters, withCommonOptions } from './options.js'
import { conduct, makeLogger } from './report.js'

interface Options extends CommonOptions {
  returnPath: boolean
  maxBandwidth: number
  zeroPageDetection: 'none' | 'legacy' | 'multifd' | 'auto'
}

export function sendCommand(program: Command): void {
  const command = program.command('send').argument('<file>', 'the snapshot').argument('<uri>', 'the destination')
  withCommonOptions(command)
    .description('send a snapshot to a QEMU that was started with -incoming (or to a multifd destination)')
    .option('--no-return-path', 'do not ask the destination for its word, for peers that can not give it')
    .option('--max-bandwidth <bytes>', 'bytes a second, such as 500M; 0: no limit', byteCount, 0)
    .addOption(
      new Option('--zero-page-detection <where>', 'where zero pages are named; auto: as the machine type has it')
        .choices([...ZERO_PAGE_DETECTIONS, 'auto'])
        .default('auto'),
    )
    .action(async (file: string, uri: string, options: Options) => {
      await using sender = new SnapshotSender(file, {
        parameters: {
          ...commonParameters(options),
          returnPath: options.returnPath,
          maxBandwidth: options.maxBandwidth,
          zeroPageDetection: options.zeroPageDetection,
        },
        logger: makeLogger(options.verbose),
        ...(options.uuid === undefined ? {} : { uuid: options.uuid }),
      })
      process.exitCode = await conduct(sender.source, options, (signal) => sender.send(uri, { signal }))
    })
}
