// Fault points: places where a test can make the engine misbehave, each a bit that costs a load when it is off.

export const FAULT = {
  /** A receiving channel does not wait at SYNC: shows what the barrier is for. */
  recvWithoutBarrier: 1,
  /** A sending channel does not wait for its zero-copy sends at SYNC: shows what the flush is for. */
  sendWithoutFlush: 2,
} as const
