// What the demo shows: a line a pass, as they happen, and on a terminal the pass that is going on.

import type { MigrationSource } from '../../migration/source.js'
import type { MigrationStatistics, PassInfo } from '../../migration/statistics.js'
import { bytes, cut, duration, percent, rate } from '../format.js'

const LIVE_MS = 100
const COLUMNS = [6, 9, 9, 15, 15, 13, 9] as const
const ERASE = '\r\x1b[K'

export class Screen {
  readonly #write: (text: string) => void
  readonly #live: boolean
  #timer: NodeJS.Timeout | undefined
  #liveText = ''

  /** @param silent shows nothing: standard output is for something else */
  constructor(silent: boolean) {
    this.#write = silent ? () => {} : (text) => process.stdout.write(text)
    this.#live = !silent && process.stdout.isTTY === true
  }

  line(text = ''): void {
    this.#write(`${this.#live ? ERASE : ''}${text}\n`)
    this.#liveText = ''
  }

  /** Something that is going on, until the next line; on a terminal only. */
  live(text: string): void {
    if (!this.#live || text === this.#liveText) return
    this.#liveText = text
    // Only the row that it ends in can be erased.
    this.#write(`${ERASE}${cut(text, process.stdout.columns)}`)
  }

  header(): void {
    this.line(row('pass', 'pages', 'time', 'rate', 'dirtied', 'left', 'takes'))
  }

  /** Follows a source's pass until `stop`. */
  follow(source: MigrationSource): void {
    let began = { moved: 0, transferred: 0, at: performance.now() }
    let passes = 0
    this.#timer = setInterval(() => {
      const ram = source.statistics()?.ram
      if (!ram || ram.dirtySyncCount === 0) return
      const now = {
        moved: (ram.normal + ram.duplicate) * ram.pageSize,
        transferred: ram.transferred,
        at: performance.now(),
      }
      if (ram.dirtySyncCount !== passes) {
        began = passes === 0 ? { ...now, moved: 0, transferred: 0 } : now
        passes = ram.dirtySyncCount
      }
      const due = ram.remaining + now.moved - began.moved
      const ms = now.at - began.at
      const speed = ms > 0 ? rate(((now.transferred - began.transferred) * 1000) / ms) : ''
      const share = `${percent(due - ram.remaining, due)}%`
      this.live(row(String(passes), share, duration(ms), speed, '', bytes(ram.remaining)))
    }, LIVE_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.live('')
  }

  pass({ pass, pages, durationMs, bandwidth, ...after }: PassInfo, pageSize: number): void {
    const { remainingPages, dirtyPagesRate, expectedDowntime } = after
    const left = bytes(remainingPages * pageSize)
    const dirtied = rate(dirtyPagesRate * pageSize)
    const cells = [pass, pages, duration(durationMs), rate(bandwidth), dirtied, left, duration(expectedDowntime)]
    this.line(row(...cells.map(String)))
  }

  /** The last pages, with the writer stopped. */
  last(passes: PassInfo[], { ram, downtime = 0 }: MigrationStatistics): void {
    const pages = ram.normal + ram.duplicate - passes.reduce((sum, pass) => sum + pass.pages, 0)
    this.line(row('last', String(pages), duration(downtime), '', 'stopped', bytes(0)))
  }
}

function row(...cells: string[]): string {
  return cells
    .map((cell, at) => cell.padStart(COLUMNS[at]!))
    .join('')
    .trimEnd()
}
