// The program's part in a source's switchover: it is stopped, waits where that is wanted, and its devices are saved.

import { MultifdError, oneLine } from '../errors.js'
import type { Logger } from '../log.js'
import type { BlockGuard } from '../ram/block-guard.js'
import type { SwitchoverAnswer } from './messages.js'
import type { MigrationState } from './status.js'
import type { MigrationThreads } from './threads.js'

/** What a program does when it is asked to. */
export interface ProgramHooks {
  /** Brings the program to a halt: after this resolves, no block changes. Called when what remains fits the downtime. */
  stop?(): void | Promise<void>
  /** Lets it go on: called when the migration fails after `stop` was called, once that has settled. */
  resume?(): void | Promise<void>
  /**
   * Slows the program down, as `autoConverge` asks for: by 0 (not at all) to 99 percent of its time. Called with more
   * whenever a migration does not gain, and with 0 at its end, whatever that is.
   */
  throttle?(percentage: number): void
}

export interface SwitchoverOptions {
  hooks: ProgramHooks
  state: MigrationState
  guard: BlockGuard
  /** Whether it waits for {@link Switchover.continue}. */
  pause: boolean
  /** Is told once the program has stopped, and once it goes on again. */
  notify(event: 'stop' | 'resume'): void
  /** Gives what follows the RAM's last section, to the end of the stream. The program stands still. */
  save(): Uint8Array
  logger: Logger
}

export class Switchover {
  readonly #options: SwitchoverOptions
  #running: Promise<void> | undefined
  #continue: (() => void) | undefined
  #throttle = 0

  constructor(options: SwitchoverOptions) {
    this.#options = options
  }

  /** Stops the program and answers the coordinator, or fails the migration. */
  begin(threads: MigrationThreads): void {
    this.#running = this.#run(threads).catch((error) => threads.fail(MultifdError.from(error)))
  }

  /** Goes on after the pause. */
  continue(): void {
    this.#continue?.()
  }

  /** A program that can not be slowed down migrates all the same, or does not converge. */
  throttle(percentage: number): void {
    const { hooks, logger } = this.#options
    this.#throttle = percentage
    try {
      hooks.throttle?.(percentage)
    } catch (error) {
      logger.warn({}, `the program could not be throttled: ${oneLine(error)}`)
    }
  }

  /** The migration has ended: a program that still is this side's goes on, at full speed. */
  async end(completed: boolean): Promise<void> {
    const { hooks, notify } = this.#options
    // A stop that is under way yet would halt the program after it was told to go on.
    await this.#running
    if (this.#throttle > 0) this.throttle(0)
    if (completed || !this.#running || !hooks.stop) return
    await hooks.resume?.()
    notify('resume')
  }

  async #run(threads: MigrationThreads): Promise<void> {
    const { hooks, state, guard, pause, notify, save } = this.#options
    try {
      await hooks.stop?.()
    } catch (cause) {
      const message = `the program could not be stopped: ${oneLine(cause)}`
      throw new MultifdError('ERR_MULTIFD_STATE', message, { cause })
    }
    if (hooks.stop) notify('stop')
    if (threads.shm.stopped) return
    guard.checkSame()
    if (pause) {
      const continued = new Promise<void>((resolve) => {
        this.#continue = resolve
      })
      state.become('pre-switchover')
      await Promise.race([continued, threads.ended])
      if (threads.shm.stopped) return
    }
    state.become('device')
    threads.shm.faults?.fail('device-save-fails')
    // Before the last look at the dirty logs: what a device writes into memory as it is saved goes with the last pages.
    if (!threads.shm.stopped) threads.answer({ deviceState: save() } satisfies SwitchoverAnswer)
  }
}
