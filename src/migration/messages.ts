// What a coordinator says to the embedding thread.

import type { ThreadOutcome } from '../channel/thread.js'
import type { GuestImage } from './memory-target.js'
import type { Figures, PassInfo } from './statistics.js'
import type { MigrationStatus } from './status.js'

export type CoordinatorMessage =
  | { type: 'status'; status: MigrationStatus }
  | { type: 'pass'; info: PassInfo }
  | { type: 'figures'; figures: Partial<Figures> }
  /** Source: asks, at a time of the monotonic clock, for the program to be stopped; answered through the semaphore. */
  | { type: 'stop-program'; at: number }
  /** Source: a channel that had no thread needs one. */
  | { type: 'start-channel'; channel: number }
  /** Destination: asks for the program's blocks to be made resident; answered through the semaphore. */
  | { type: 'preallocate' }
  /** Destination: what the stream said of its machine and RAM. */
  | { type: 'set-up'; machineType: string; blocks: { idstr: string; size: number }[]; pageSize: number }
  /** Destination: the guest that was received into memory. */
  | { type: 'image'; image: GuestImage }
  /** Something that did not work, and does not change how the migration ends. */
  | { type: 'warning'; text: string }
  /** Both sides know that everything is there; the threads' own end is still to come. */
  | { type: 'done' }
  /** The last message. */
  | { type: 'ended'; outcome: ThreadOutcome }
