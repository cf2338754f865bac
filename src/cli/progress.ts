// How far a migration is: on a terminal a bar, otherwise a line now and then.

import { Presets, SingleBar } from 'cli-progress'
import type { Migration } from '../migration/migration.js'
import type { RamStatistics } from '../migration/statistics.js'
import { bytes, percent, rate } from './format.js'

const BAR_MS = 200
const LINE_MS = 5000
const BAR_WIDTH = 20
const PATIENCE_MS = 2000
const WAITING = 'waits for its word: as many channels there?'

/** A bar on standard error; undefined where that is no terminal. */
export function makeBar(format: string): SingleBar | undefined {
  if (!process.stderr.isTTY) return undefined
  const options = { format, stream: process.stderr, hideCursor: true, barsize: BAR_WIDTH }
  return new SingleBar(options, Presets.shades_classic)
}

/** Shows how far a migration is on standard error, until `stop`. */
export class Progress {
  readonly #migration: Migration
  readonly #verb: string
  readonly #timer: NodeJS.Timeout
  readonly #bar: SingleBar | undefined
  #shown = false
  #lastBytes = 0
  #lastAt = performance.now()
  #stillAt = performance.now()

  /** @param verb what is going on, such as `receiving` */
  constructor(migration: Migration, verb: string) {
    this.#migration = migration
    this.#verb = verb
    this.#bar = makeBar(`${verb} {bar} {text}`)
    this.#timer = setInterval(() => this.#show(), this.#bar ? BAR_MS : LINE_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
    if (!this.#bar || !this.#shown) return
    this.#show()
    this.#bar.stop()
  }

  #show(): void {
    const ram = this.#migration.statistics()?.ram
    if (!ram || ram.total === 0) return
    const { done, text } = this.#describe(ram)
    if (!this.#bar) {
      process.stderr.write(`${this.#verb}: ${text.trim()}\n`)
      return
    }
    if (this.#shown) this.#bar.update(done, { text })
    else this.#bar.start(ram.total, done, { text })
    this.#shown = true
  }

  // A guest that runs sends pages again: what comes beyond its memory's size belongs to later passes.
  #describe(ram: RamStatistics): { done: number; text: string } {
    const moved = (ram.normal + ram.duplicate) * ram.pageSize
    const done = Math.min(ram.total, moved)
    const again = moved > ram.total ? `, ${bytes(moved - ram.total)} again` : ''
    const share = `${percent(done, ram.total)}%`.padStart(4)
    const speed = this.#speed(ram)
    const rest = this.#waits(speed) ? WAITING : rate(speed)
    return { done, text: `${share}  ${bytes(done)} of ${bytes(ram.total)}${again}  ${rest}` }
  }

  // Everything is sent, and the other side has not given its word.
  #waits(speed: number): boolean {
    if (this.#verb !== 'sending' || this.#migration.status !== 'device' || speed > 0) this.#stillAt = performance.now()
    return performance.now() - this.#stillAt > PATIENCE_MS
  }

  // Bytes a second on the wire since the last look.
  #speed({ transferred }: RamStatistics): number {
    const now = performance.now()
    const speed = ((transferred - this.#lastBytes) * 1000) / Math.max(1, now - this.#lastAt)
    this.#lastBytes = transferred
    this.#lastAt = now
    return Math.max(0, speed)
  }
}
