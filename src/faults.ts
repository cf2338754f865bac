// Fault points: places where a test can make the engine misbehave, each a bit that costs a load when it is off.

export const FAULT = {
  /** A receiving channel does not wait at SYNC: shows what the barrier is for. */
  recvWithoutBarrier: 1,
  /** A sending channel does not wait for its zero-copy sends at SYNC: shows what the flush is for. */
  sendWithoutFlush: 2,
} as const

/** What a kernel can lack. */
export type KernelFeature = 'userfaultfd' | 'wp-async' | 'wp-unpopulated' | 'wp-shmem' | 'pagemap-scan'

/** Features that a test takes from the kernel, in the thread that adds them: the call that needs one fails as it would. */
export const missingFromKernel = new Set<KernelFeature>()
