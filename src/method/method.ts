// What a compression method does for a channel: one file each behind these two interfaces.

import type { IoVector } from '../io/iovec.js'
import type { RamBlock } from '../ram/block.js'
import type { PageRuns } from '../shm/page-runs.js'

/** One channel's sending half, with its state for the life of the channel. */
export interface SendMethod {
  /** Bits of the packet's flags: of the last one prepared, where packets differ. */
  readonly flag: number

  /** Appends the payload of pages of a block; returns its bytes. */
  prepare(runs: PageRuns, block: RamBlock, into: IoVector): number

  /** A barrier comes: the time until the next packet is not that of a packet. */
  rest?(): void

  /** Frees what the method holds. Idempotent. */
  close(): void
}

/** One channel's receiving half. */
export interface RecvMethod {
  readonly flag: number

  /** Appends the places that a payload of `size` bytes goes to. */
  expect(runs: PageRuns, block: RamBlock, size: number, into: IoVector): void

  /** The payload is there; after this the pages are in their block. */
  finish(runs: PageRuns, block: RamBlock, size: number): void

  close(): void
}
