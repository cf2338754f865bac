// Dirty logs: how a migration learns which pages of a block the program changes.

import type { RamBlock } from './block.js'
import type { DirtyBitmap } from './dirty-bitmap.js'
import { ExplicitDirtyLog } from './explicit-dirty-log.js'
import { KernelDirtyLog, requireKernelDirtyLog } from './kernel-dirty-log.js'

/**
 * `explicit`: the program says what it changes (RamBlock.markDirty). `kernel`: it writes as it likes, and the kernel
 * reports.
 */
export type DirtyLogKind = 'explicit' | 'kernel'

/** Of one block. What is discarded of it is not looked at; the map does not change from `start` to `stop`. */
export interface DirtyLog {
  /**
   * Forgets what was before: every change from now on is told.
   *
   * @throws MultifdError ERR_MULTIFD_UNSUPPORTED, ERR_MULTIFD_STATE
   */
  start(): void
  /**
   * Adds the pages that changed since the last time. Returns how many of them were not in there.
   *
   * @throws MultifdError ERR_MULTIFD_STATE when the memory is not the one that was
   */
  synchronise(into: DirtyBitmap): number
  /** Idempotent, and harmless before `start`. */
  stop(): void
}

/** The log that a block was made with, in the thread that will use it. */
export function dirtyLogOf(block: RamBlock): DirtyLog {
  return block.dirtyLog === 'kernel' ? new KernelDirtyLog(block) : new ExplicitDirtyLog(block)
}

/**
 * Whether a block's log can be had here.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED with what the kernel lacks or refuses
 */
export function requireDirtyLog(kind: DirtyLogKind): void {
  if (kind === 'kernel') requireKernelDirtyLog()
}
