// Whether the program is to go slower, and by how much: QEMU's auto-converge.
//
// About once a second what became dirty is compared with what was sent. The second time that it is too much the program
// loses `cpuThrottleInitial` percent of its time, and each further second time `cpuThrottleIncrement` more.

import type { MigrationParameters } from './parameters.js'

const PERIOD_MS = 1000
const PERIODS = 2

export class AutoConverge {
  readonly #parameters: MigrationParameters
  #percentage = 0
  #tooMuch = 0
  // Of the period so far.
  #sent = 0
  #dirtied = 0
  #lastedMs = 0

  constructor(parameters: MigrationParameters) {
    this.#parameters = parameters
  }

  /** Percent of its time that the program is to lose. */
  get percentage(): number {
    return this.#percentage
  }

  /**
   * Takes a pass into account.
   *
   * @param sent bytes of pages; `dirtied` those that have to be sent again
   * @returns whether the percentage has changed
   */
  note(sent: number, dirtied: number, durationMs: number): boolean {
    const { autoConverge, throttleTriggerThreshold } = this.#parameters
    if (!autoConverge) return false
    this.#sent += sent
    this.#dirtied += dirtied
    this.#lastedMs += durationMs
    if (this.#lastedMs < PERIOD_MS) return false
    const most = (this.#sent * throttleTriggerThreshold) / 100
    const ratio = most / this.#dirtied
    this.#sent = 0
    this.#dirtied = 0
    this.#lastedMs = 0
    if (ratio >= 1 || ++this.#tooMuch < PERIODS) return false
    this.#tooMuch = 0
    const before = this.#percentage
    this.#percentage = this.#next(ratio)
    return this.#percentage !== before
  }

  /** @param ratio what may become dirty, to what does */
  #next(ratio: number): number {
    const { cpuThrottleInitial, cpuThrottleIncrement, cpuThrottleTailslow, maxCpuThrottle } = this.#parameters
    if (this.#percentage === 0) return cpuThrottleInitial
    const left = 100 - this.#percentage
    // Towards the end no more than would do.
    const needed = left - left * ratio
    const step = cpuThrottleTailslow ? Math.min(cpuThrottleIncrement, Math.ceil(needed)) : cpuThrottleIncrement
    return Math.min(this.#percentage + step, maxCpuThrottle)
  }
}
