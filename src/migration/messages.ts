// What a coordinator says to the embedding thread, and what it is answered.

import type { GuestImage } from './memory-target.js'
import type { Figures, PassInfo } from './statistics.js'

export type CoordinatorMessage =
  | { type: 'active' }
  /** Source: from 1 on; the pass after the program has stopped is the last. */
  | { type: 'pass-begins'; pass: number }
  | { type: 'pass'; info: PassInfo }
  | { type: 'figures'; figures: Partial<Figures> }
  /** Source: asks, at a time of the monotonic clock, for the program to be stopped, and its devices saved; answered with
   * {@link SwitchoverAnswer}. */
  | { type: 'switchover'; at: number }
  /** Source: the program is to go slower, by so much of its time. */
  | { type: 'throttle'; percentage: number }
  /** Source: a channel that had no thread needs one. */
  | { type: 'start-channel'; channel: number }
  /** Destination: what came before the RAM set-up; asks for the program's memory to be made ready for its pages. */
  | { type: 'prepare'; early: Uint8Array }
  /** Destination: what came after the pages; asks for the program's devices to be loaded. */
  | { type: 'load-devices'; deviceState: Uint8Array }
  /** Destination: what the stream said of its machine and RAM. */
  | { type: 'set-up'; machineType: string; blocks: { idstr: string; size: number }[]; pageSize: number }
  /** Destination: the guest that was received into memory. */
  | { type: 'image'; image: GuestImage }
  /** Something that did not work, and does not change how the migration ends. */
  | { type: 'warning'; text: string }
  /** Both sides know that everything is there; the threads' own end is still to come. */
  | { type: 'done' }

export interface SwitchoverAnswer {
  /** What follows the RAM's last section, to the end of the stream. */
  deviceState: Uint8Array
}
