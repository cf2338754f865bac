// After each pass: what it did, whether the migration gains, and whether what is left fits the downtime.

import { MultifdError } from '../errors.js'
import { COUNTER } from '../shm/layout.js'
import { AutoConverge } from './auto-converge.js'
import type { Coordinator } from './coordinator.js'
import { expectedDowntimeOf, fits } from './downtime.js'
import type { RamSave } from './ram-save.js'

export class Convergence {
  readonly #coordinator: Coordinator
  readonly #ram: RamSave
  readonly #throttle: AutoConverge
  readonly #deadline: number
  #pass = 0
  #pages = 0
  #began = 0
  #bytesBefore = 0
  #dataBefore = 0

  constructor(coordinator: Coordinator, ram: RamSave) {
    const { timeoutMs } = coordinator.parameters
    this.#coordinator = coordinator
    this.#ram = ram
    this.#throttle = new AutoConverge(coordinator.parameters)
    this.#deadline = timeoutMs > 0 ? performance.now() + timeoutMs : Number.POSITIVE_INFINITY
  }

  /** Whether the time for all passes is over: the one that runs ends early. */
  readonly overdue = (): boolean => performance.now() >= this.#deadline

  beginPass(): void {
    const { shm } = this.#coordinator
    this.#pages = this.#ram.pendingPages
    this.#bytesBefore = shm.sum(COUNTER.bytes, true)
    this.#dataBefore = shm.sum(COUNTER.normalPages, true)
    this.#began = performance.now()
    // Before the pass is told of, so that whoever hears of it sees what is left.
    this.#coordinator.setRemaining(this.#ram.pendingEstimate)
    this.#pass = this.#coordinator.beginPass()
  }

  /**
   * Looks at what became dirty in the pass, and tells of it.
   *
   * @returns whether the program may be stopped
   * @throws MultifdError ERR_MULTIFD_TIMEOUT when the passes that it may take are over
   */
  endPass(): boolean {
    const { shm, downtimeLimit } = this.#coordinator
    const durationMs = Math.max(performance.now() - this.#began, 0.001)
    const bytes = shm.sum(COUNTER.bytes, true) - this.#bytesBefore
    // In pages and not in bytes: zero pages cost next to nothing to send, and some may be again. Compressed pages are more
    // than the bytes they take.
    const sent = Math.max(bytes, (shm.sum(COUNTER.normalPages, true) - this.#dataBefore) * this.#ram.pageSize)
    const pagesMs = (pending: number): number =>
      ((pending / this.#ram.pageSize) * this.#ram.bytesPerPage(bytes) * durationMs) / sent
    // What is known to be too much needs no look at the logs, which would cost for nothing.
    const unsent = this.#ram.pendingEstimate
    const synchroniseBegan = performance.now()
    const pending = pagesMs(unsent) > downtimeLimit ? unsent : this.#ram.pendingExact()
    const costs = { pagesMs: pagesMs(pending), synchroniseMs: performance.now() - synchroniseBegan }
    const dirtyPagesRate = (((pending - unsent) / this.#ram.pageSize) * 1000) / durationMs
    shm.setCounter(shm.coordinatorPlace, COUNTER.dirtyPagesRate, dirtyPagesRate)
    const remainingPages = pending / this.#ram.pageSize
    const expectedDowntime = expectedDowntimeOf(costs)
    const enough = remainingPages === 0 || fits(costs, downtimeLimit)
    const converging = enough || remainingPages < this.#pages
    const [pass, pages, bandwidth] = [this.#pass, this.#pages, (bytes * 1000) / durationMs]
    this.#coordinator.tell({
      type: 'pass',
      info: { pass, pages, bytes, durationMs, bandwidth, remainingPages, dirtyPagesRate, expectedDowntime, converging },
    })
    this.#coordinator.tell({ type: 'figures', figures: { expectedDowntime, converging } })
    if (enough) return true
    this.#slowDown(sent, pending - unsent, durationMs)
    return this.#atLimit(expectedDowntime)
  }

  #slowDown(sent: number, dirtied: number, durationMs: number): void {
    if (!this.#throttle.note(sent, dirtied, durationMs)) return
    const { percentage } = this.#throttle
    this.#coordinator.tell({ type: 'throttle', percentage })
    this.#coordinator.tell({ type: 'figures', figures: { cpuThrottlePercentage: percentage } })
  }

  // Returns whether the program is stopped although it stands still for longer than it should.
  #atLimit(expectedDowntime: number): boolean {
    const { maxPasses, atLimit } = this.#coordinator.parameters
    const passesOver = maxPasses > 0 && this.#pass >= maxPasses
    if (!passesOver && !this.overdue()) return false
    if (atLimit === 'switchover') return true
    const message =
      `the program changes its memory faster than it can be sent: after ${this.#pass} passes it would still stand still ` +
      `for ${Math.ceil(expectedDowntime)} ms, and may for ${this.#coordinator.downtimeLimit}`
    throw new MultifdError('ERR_MULTIFD_TIMEOUT', message)
  }
}
