#!/usr/bin/env node
// The command `multifd`.

import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { MultifdError } from '../errors.js'
import { receiveCommand } from './receive.js'
import { EXIT, say } from './report.js'
import { sendCommand } from './send.js'

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))

const program = new Command('multifd')
  .description("live migration of memory over parallel channels, in QEMU's own protocol")
  .version(version)
  .showHelpAfterError('(add --help for the options)')
  .exitOverride()

receiveCommand(program)
sendCommand(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = statusOf(error)
}

function statusOf(error: unknown): number {
  // Commander has said already what was wrong.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.completed : EXIT.usage
  const { code, message } = MultifdError.from(error)
  say(`multifd: ${message} (${code})`)
  return code === 'ERR_MULTIFD_ARGUMENT' ? EXIT.usage : EXIT.failed
}
