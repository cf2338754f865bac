// A program that moves to another process while it runs: two blocks of its memory migrate, and it goes on counting there.
//
//   npm run build && node dist/examples/embedded.js
//
// The program is a ticker: every millisecond it picks an entry of its table, adds one to it, and writes down in its
// journal which one it was. It lives in two RAM blocks, and nothing else of it has to move.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { MigrationDestination, MigrationSource, RamBlock } from 'multifd'

const MIB = 1024 * 1024
const CHANNELS = 2
const RUN_MS = 300

/** The program: its whole state is in its two blocks. */
class Ticker {
  readonly ram: RamBlock[]
  readonly #table: RamBlock
  readonly #journal: RamBlock
  readonly #counts: Int32Array
  // Entry 0 says how many entries follow.
  readonly #entries: Int32Array
  #timer: NodeJS.Timeout | undefined

  constructor() {
    // The same names and sizes on both sides.
    this.#table = RamBlock.allocate({ idstr: 'table', size: 32 * MIB })
    this.#journal = RamBlock.allocate({ idstr: 'journal', size: 4 * MIB })
    this.#counts = new Int32Array(this.#table.memory!)
    this.#entries = new Int32Array(this.#journal.memory!)
    this.ram = [this.#table, this.#journal]
  }

  get ticks(): number {
    return this.#entries[0]!
  }

  run(): void {
    this.#timer = setInterval(() => this.#tick(), 1)
  }

  halt(): void {
    clearInterval(this.#timer)
  }

  /** Whether the table is what the journal says. */
  isConsistent(): boolean {
    const expected = new Map<number, number>()
    for (const entry of this.#entries.subarray(1, 1 + this.ticks)) expected.set(entry, (expected.get(entry) ?? 0) + 1)
    return [...expected].every(([entry, count]) => this.#counts[entry] === count)
  }

  #tick(): void {
    const entry = Math.floor(Math.random() * this.#counts.length)
    this.#counts[entry]!++
    this.#entries[1 + this.ticks] = entry
    this.#entries[0]!++
    // After the writes: the migration sends these pages again.
    this.#table.markDirty(entry * 4, 4)
    this.#journal.markDirty(0, 4)
    this.#journal.markDirty(this.ticks * 4, 4)
  }
}

const ticker = new Ticker()
if (process.argv[2] === 'destination') await goOn()
else await leave()

/** The source: runs, and moves to a process of its own choice. */
async function leave(): Promise<void> {
  ticker.run()
  const other = fork(fileURLToPath(import.meta.url), ['destination'])
  const ended = once(other, 'exit')
  const [uri] = await once(other, 'message')
  const source = new MigrationSource({ ram: ticker.ram, parameters: { multifdChannels: CHANNELS, downtimeLimit: 50 } })
  source.on('pass', ({ pass, pages, remainingPages }) => {
    console.log(`pass ${pass}: ${pages} pages sent, ${remainingPages} became dirty meanwhile`)
  })
  const { downtime } = await source.migrate(uri, {
    stop: () => ticker.halt(),
    // It failed: the program goes on here, as if nothing had been.
    resume: () => ticker.run(),
  })
  console.log(`left after ${ticker.ticks} ticks; the program stood still for ${Math.round(downtime!)} ms`)
  const [code] = await ended
  process.exitCode = code
}

/** The destination: waits for the program, and goes on with it. */
async function goOn(): Promise<void> {
  const destination = new MigrationDestination({ ram: ticker.ram, parameters: { multifdChannels: CHANNELS } })
  process.send!(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  const arrived = ticker.ticks
  ticker.run()
  setTimeout(() => {
    ticker.halt()
    const right = ticker.isConsistent()
    console.log(`arrived with ${arrived} ticks, went on to ${ticker.ticks}, ${right ? 'all of them right' : 'WRONG'}`)
    process.exitCode = right && ticker.ticks > arrived ? 0 : 1
    process.disconnect()
  }, RUN_MS)
}
