#!/usr/bin/env node
// The command `multifd`.

import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { MultifdError } from '../errors.js'
import { demoCommand } from './demo.js'
import { dirtyRateCommand } from './dirty-rate.js'
import { inspectCommand } from './inspect.js'
import { receiveCommand } from './receive.js'
import { EXIT, errorObject, failure, printJson } from './report.js'
import { sendCommand } from './send.js'
import { serveCommand } from './serve.js'
import { watchStreams } from './streams.js'
import { topCommand } from './top.js'

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))

watchStreams(failure)

// Its settings hold for the commands that are added after them.
const program = new Command('multifd')
  .description("live migration of memory over parallel channels, in QEMU's own protocol")
  .version(version, '-V, --version', 'print the version')
  .configureHelp({ helpWidth: Math.max(80, Math.min(120, process.stdout.columns ?? 120)) })
  .configureOutput({ outputError: (text, write) => write(`multifd: ${reason(text)}\n`) })
  .helpOption('-h, --help', 'print the options')
  .helpCommand(false)
  .exitOverride()
  .hook('preAction', (_, command) => refuseEmpty(command))
  .addHelpText('after', '\nmultifd COMMAND --help has the options of a command, with their defaults and examples.')

receiveCommand(program)
sendCommand(program)
serveCommand(program)
inspectCommand(program)
topCommand(program)
dirtyRateCommand(program)
demoCommand(program)
helpCommand()

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = statusOf(error)
}

// Commander's own has no word for a command that there is not.
function helpCommand(): void {
  program
    .command('help')
    .description("print a command's options")
    .argument('[command]')
    .action((name?: string) => {
      const asked = name === undefined ? program : program.commands.find((command) => command.name() === name)
      if (asked) asked.help()
      else program.error(`error: unknown command '${name}'`)
    })
}

function statusOf(error: unknown): number {
  if (!(error instanceof CommanderError)) return failure(MultifdError.from(error))
  // Commander has said already what was wrong, or printed what was asked for.
  if (error.exitCode === 0) return EXIT.completed
  if (process.argv.includes('--json')) {
    const message = reason(error.message)
    printJson({ status: 'failed', error: errorObject({ code: 'ERR_MULTIFD_ARGUMENT', message }) })
  }
  return EXIT.usage
}

// No path, address or name is empty: where one is, a script's variable is not set.
function refuseEmpty(command: Command): void {
  const { args, options } = command
  const option = options.find((option) => [command.getOptionValue(option.attributeName())].flat().includes(''))
  if (option) command.error(`error: option '${option.flags}' is empty`)
  if (args.includes(''))
    command.error(`error: argument '${command.registeredArguments[args.indexOf('')]?.name()}' is empty`)
}

/** Commander's words in one line. */
function reason(text: string): string {
  return text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ')
}
