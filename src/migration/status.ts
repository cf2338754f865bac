// The states of a migration, QEMU's, and which may follow which.
//
//   none → setup → active → [pre-switchover →] device → completed
//
// From each of them but the first it may fail, or be cancelled by way of `cancelling`. A destination has no `device`: it
// loads the devices while it is active. What has ended may begin again.

import { MultifdError } from '../errors.js'

const TRANSITIONS = {
  none: ['setup'],
  setup: ['active', 'failed', 'cancelling'],
  active: ['pre-switchover', 'device', 'completed', 'failed', 'cancelling'],
  'pre-switchover': ['device', 'failed', 'cancelling'],
  device: ['completed', 'failed', 'cancelling'],
  // Whoever cancels may come too late: the other side has everything, or an error was there first.
  cancelling: ['cancelled', 'completed', 'failed'],
  completed: ['setup'],
  failed: ['setup'],
  cancelled: ['setup'],
} as const satisfies Record<string, readonly string[]>

export type MigrationStatus = keyof typeof TRANSITIONS

export const MIGRATION_STATUSES = Object.keys(TRANSITIONS) as MigrationStatus[]

/** One migration's state after the other. */
export class MigrationState {
  #status: MigrationStatus = 'none'
  readonly #changed: (status: MigrationStatus) => void

  /** @param changed is called after each change */
  constructor(changed: (status: MigrationStatus) => void) {
    this.#changed = changed
  }

  get status(): MigrationStatus {
    return this.#status
  }

  /** Whether a migration runs: another one can begin only when it has ended. */
  get running(): boolean {
    return !this.allows('setup')
  }

  allows(next: MigrationStatus): boolean {
    return (TRANSITIONS[this.#status] as readonly string[]).includes(next)
  }

  /** @throws MultifdError ERR_MULTIFD_INTERNAL when the one does not follow the other */
  become(next: MigrationStatus): void {
    if (!this.allows(next)) {
      throw new MultifdError('ERR_MULTIFD_INTERNAL', `status '${next}' does not follow '${this.#status}'`)
    }
    this.#status = next
    this.#changed(next)
  }
}
