// What the threads of the barrier bench share: when each channel went on, and how long each round took.

import { monotonicMs } from '../../src/os/clock.js'
import type { RamBlockHandle } from '../../src/ram/block.js'

export interface BarrierClock {
  /** Int32: passages of channels, of all rounds. */
  passages: SharedArrayBuffer
  /** Float64 for each channel: when it went on last, ms of the system's clock. */
  passedAt: SharedArrayBuffer
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

export function makeClock(channels: number, rounds: number): BarrierClock {
  return {
    passages: new SharedArrayBuffer(4),
    passedAt: new SharedArrayBuffer(8 * channels),
    latencies: new SharedArrayBuffer(8 * rounds),
  }
}

/** For a channel that goes on. Pairs with {@link awaitPassages}. */
export function notePassage({ passages, passedAt }: BarrierClock, channel: number): void {
  new Float64Array(passedAt)[channel] = monotonicMs()
  const count = new Int32Array(passages)
  Atomics.add(count, 0, 1)
  Atomics.notify(count, 0)
}

/** Waits until so many passages were noted. Returns when the last channel went on. */
export function awaitPassages({ passages, passedAt }: BarrierClock, wanted: number, check: () => void): number {
  const count = new Int32Array(passages)
  for (let now = Atomics.load(count, 0); now < wanted; now = Atomics.load(count, 0)) {
    Atomics.wait(count, 0, now, 100)
    check()
  }
  return Math.max(...new Float64Array(passedAt))
}
