// multifd top: a running migration of another process, live, by its QMP socket.

import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, Option } from 'commander'
import { MultifdError } from '../errors.js'
import { QmpClient } from '../qmp/client.js'
import { cut } from './format.js'
import { seconds } from './options.js'
import { errorObject, failure, onInterrupt, printJson, say } from './report.js'
import { line, screen } from './top/view.js'
import { type Look, Watch } from './top/watch.js'

interface Options {
  /** ms. */
  interval: number
  once?: true
  json?: true
}

/** The terminal's other screen, without a cursor; and back. */
const ENTER = '\x1b[?1049h\x1b[?25l'
const LEAVE = '\x1b[?25h\x1b[?1049l'
const HOME = '\x1b[H'
const REST_OF_LINE = '\x1b[K'
const REST_OF_SCREEN = '\x1b[J'

const EXAMPLES = `
Examples:
  multifd top unix:/tmp/qmp.sock
  multifd top /tmp/qmp.sock --once
  multifd top tcp:127.0.0.1:4445 --json | jq .ram.remaining

Whatever answers QMP can be looked at: a program with a QmpServer, multifd serve, multifd demo --qmp, or a QEMU with
-qmp, source or destination. Threads of this machine are shown with their share of a processor. On a terminal it draws,
otherwise it prints a line each time. It ends with Ctrl-C (exit status 130), or when the other side does (0).`

export function topCommand(program: Command): void {
  program
    .command('top')
    .description('a running migration of a process, live, by its QMP socket')
    .argument('<uri>', 'where its QMP is: unix:PATH, tcp:HOST:PORT, or the path of a socket')
    .addOption(
      new Option('--interval <seconds>', 'from one look to the next').default(1000, '1').argParser(seconds(100)),
    )
    .option('--once', 'look once, for one interval, and end')
    .option('--json', 'print one JSON object a line each time, by the names of query-migrate')
    .addHelpText('after', EXAMPLES)
    .action(run)
}

async function run(uri: string, options: Options): Promise<void> {
  const display = displayOf(uri, options)
  using interrupt = onInterrupt(() => display.end())
  const { signal } = interrupt
  try {
    using client = await QmpClient.connect(uri, { signal })
    const watch = new Watch(client)
    display.first(await watch.look())
    do {
      await sleep(options.interval, undefined, { signal })
      display.show(await watch.look())
    } while (!options.once)
    display.end()
  } catch (thrown) {
    display.end()
    const error = MultifdError.from(thrown)
    if (display.shown && error.code === 'ERR_MULTIFD_CLOSED') {
      say('the other side has ended')
      return
    }
    if (options.json && !display.shown) printJson({ error: errorObject(error) })
    process.exitCode = failure(error, signal.aborted)
  }
}

interface Display {
  /** Whether there was something to show. */
  readonly shown: boolean
  /** A look without rates: there was none before it. */
  first(look: Look): void
  show(look: Look): void
  /** Leaves the terminal as it was. Idempotent. */
  end(): void
}

function displayOf(uri: string, { once, json }: Options): Display {
  if (json) return new Lines(printJson)
  if (process.stdout.isTTY && !once) return new Screen(uri)
  const print = (text: string): void => void process.stdout.write(`${text}\n`)
  return new Lines(once ? (look) => print(screen(uri, look).join('\n')) : (look) => print(line(look)))
}

class Lines implements Display {
  shown = false
  readonly #print: (look: Look) => void

  constructor(print: (look: Look) => void) {
    this.#print = print
  }

  first(): void {
    this.shown = true
  }

  show(look: Look): void {
    this.#print(look)
  }

  end(): void {}
}

class Screen implements Display {
  readonly #where: string
  #last: string[] | undefined
  #ended = false

  constructor(where: string) {
    this.#where = where
  }

  get shown(): boolean {
    return this.#last !== undefined
  }

  first(look: Look): void {
    process.stdout.write(ENTER)
    this.show(look)
  }

  show(look: Look): void {
    this.#last = screen(this.#where, look)
    const { columns, rows = 24 } = process.stdout
    const lines = this.#last.slice(0, rows - 1).map((text) => `${cut(text, columns)}${REST_OF_LINE}\n`)
    process.stdout.write(`${HOME}${lines.join('')}${REST_OF_SCREEN}`)
  }

  // What was seen last stays on the terminal.
  end(): void {
    if (!this.#last || this.#ended) return
    this.#ended = true
    const lines = this.#last.map((text) => `${cut(text, process.stdout.columns)}\n`)
    process.stdout.write(`${LEAVE}${lines.join('')}`)
  }
}
