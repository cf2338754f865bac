// When the program may be stopped: what the switchover would take, from what the pass before it took.

/**
 * What a switchover takes besides looking for pages and sending them, ms: stopping the program, the barrier, the
 * destination's last checks, its word. Mostly 3, measured within one machine of two cores; a network adds its round trip.
 */
const HANDOVER_MS = 4
// Of a limit that is shorter than what can not be helped, so much is pages' all the same: else it would never be met.
const LEAST_SHARE = 0.4

/** Of the pass before; ms. */
export interface SwitchoverCosts {
  /** To send what is left. */
  pagesMs: number
  /** To ask the dirty logs what changed. */
  synchroniseMs: number
}

/** How long the program is likely to stand still, ms. */
export function expectedDowntimeOf({ pagesMs, synchroniseMs }: SwitchoverCosts): number {
  return pagesMs + synchroniseMs + HANDOVER_MS
}

/** Whether the switchover fits a downtime limit in ms. */
export function fits({ pagesMs, synchroniseMs }: SwitchoverCosts, limitMs: number): boolean {
  return pagesMs <= Math.max(limitMs - synchroniseMs - HANDOVER_MS, limitMs * LEAST_SHARE)
}
