// What the coordinators of the barrier bench share: when barriers were released, and how long each round took.

import { monotonicMs } from '../../src/os/clock.js'
import type { RamBlockHandle } from '../../src/ram/block.js'

export interface BarrierClock {
  /** Int32: barriers released. */
  released: SharedArrayBuffer
  /** Float64: when the last one was, ms of the system's clock. */
  releasedAt: SharedArrayBuffer
  /** Float64 for each round: ms. */
  latencies: SharedArrayBuffer
}

/** What both coordinators are started with. */
export interface SectionsPlan {
  clock: BarrierClock
  listener: number
  port: number
  block: RamBlockHandle
}

export function makeClock(rounds: number): BarrierClock {
  return {
    released: new SharedArrayBuffer(4),
    releasedAt: new SharedArrayBuffer(8),
    latencies: new SharedArrayBuffer(8 * rounds),
  }
}

/** For the destination, whose barrier every channel may pass now. Pairs with {@link awaitRelease}. */
export function noteRelease({ released, releasedAt }: BarrierClock): void {
  new Float64Array(releasedAt)[0] = monotonicMs()
  const count = new Int32Array(released)
  Atomics.add(count, 0, 1)
  Atomics.notify(count, 0)
}

/** Waits until so many barriers are released. Returns when the last one was. */
export function awaitRelease({ released, releasedAt }: BarrierClock, wanted: number, check: () => void): number {
  const count = new Int32Array(released)
  for (let now = Atomics.load(count, 0); now < wanted; now = Atomics.load(count, 0)) {
    Atomics.wait(count, 0, now, 100)
    check()
  }
  return new Float64Array(releasedAt)[0]!
}
