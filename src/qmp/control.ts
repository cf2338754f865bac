// A migration as QMP sees it: settings, run state, what runs and how it went, over a source and a destination.

import { EventEmitter } from 'node:events'
import { MultifdError } from '../errors.js'
import { parseUri } from '../io/uri.js'
import type { Receiver } from '../migration/destination.js'
import type { Migration } from '../migration/migration.js'
import { DEFAULT_PARAMETERS, type MigrationParameters } from '../migration/parameters.js'
import { type MigrationSource, PROGRAM_MACHINE_TYPE } from '../migration/source.js'
import type { MigrationStatus } from '../migration/status.js'
import type { ProgramHooks } from '../migration/switchover.js'
import { socketAddress, targetUri } from './address.js'
import { DirtyRateControl } from './dirty-rate.js'
import { QmpError } from './error.js'
import { destinationInfo, sourceInfo } from './info.js'
import { QEMU_DEFAULTS } from './names.js'
import type { Arguments } from './schema.js'
import { Settings } from './settings.js'
import type { TlsObjects } from './tls.js'

/** What is migrated by QMP. One of source and destination at least. */
export interface QmpTarget extends ProgramHooks {
  /** What `migrate` migrates; a function, asked when it is needed, where it has to come first. */
  source?: MigrationSource | (() => MigrationSource)
  /** What `migrate-incoming` receives into. */
  destination?: Receiver
  /** Decides how zero pages are reported. Default `multifd`. */
  machineType?: string
  /** What the parameters `tls-creds` and `tls-authz` can name. */
  tls?: TlsObjects
  /** Carries `quit` out. Default: the server is closed, and the program runs on. */
  quit?(): void | Promise<void>
}

export interface ControlEvents {
  event: [name: string, data?: object]
}

type RunState = 'running' | 'prelaunch' | 'paused' | 'inmigrate' | 'finish-migrate' | 'postmigrate'

export class MigrationControl extends EventEmitter<ControlEvents> {
  readonly target: QmpTarget
  readonly settings: Settings
  readonly dirtyRate: DirtyRateControl
  readonly #stopObserving: (() => void)[] = []
  #source: MigrationSource | undefined
  /** What began last. */
  #current: Migration | undefined
  #status: MigrationStatus = 'none'
  #runState: RunState
  #listening: string | undefined
  #arrived = false
  #migrating: Promise<void> | undefined

  constructor(target: QmpTarget) {
    super()
    const { source, destination, machineType = PROGRAM_MACHINE_TYPE, tls } = target
    if (!source && !destination) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'QMP has neither a source nor a destination to drive')
    }
    this.target = target
    const object = typeof source === 'object' ? source : destination
    const parameters: MigrationParameters = object?.parameters ?? { ...DEFAULT_PARAMETERS, ...QEMU_DEFAULTS }
    this.settings = new Settings(parameters, machineType, tls)
    this.dirtyRate = new DirtyRateControl(object?.memory ?? [])
    this.#runState = destination && typeof source !== 'object' ? 'inmigrate' : this.#alive
    if (typeof source === 'object') this.#takeSource(source)
    if (destination) this.#observe(destination)
  }

  /** Lets go of the source and the destination, which go on. */
  async close(): Promise<void> {
    await this.dirtyRate.close()
    for (const stop of this.#stopObserving.splice(0)) stop()
  }

  get running(): boolean {
    return (
      this.#current !== undefined &&
      ['setup', 'active', 'pre-switchover', 'device', 'cancelling'].includes(this.#status)
    )
  }

  runState(): { status: string; running: boolean } {
    return { status: this.#runState, running: this.#runState === 'running' }
  }

  threads(): { name: string; 'thread-id': number }[] {
    return (this.#current?.threads() ?? []).map(({ name, threadId }) => ({ name, 'thread-id': threadId }))
  }

  info(): object {
    const current = this.#current
    if (!current) return {}
    const statistics = current.statistics()
    if (current !== this.#source) {
      const listening = this.#status === 'setup' && this.#listening !== undefined
      const address = listening ? socketAddress(parseUri(this.#listening!)) : undefined
      return destinationInfo(this.#status, statistics?.errorDesc, address)
    }
    return statistics
      ? sourceInfo(statistics, this.#status, current.parameters.downtimeLimit)
      : { status: this.#status }
  }

  /** Resolves once it has begun. @throws QmpError, MultifdError when it can not */
  async migrate({ uri, channels, resume }: Arguments<'migrate'>): Promise<void> {
    if (resume) throw new QmpError('Cannot resume if there is no paused migration')
    const to = targetUri(uri, channels)
    this.#checkIdle()
    if (this.#runState === 'inmigrate') throw new QmpError('Guest is waiting for an incoming migration')
    if (this.#runState === 'postmigrate') {
      throw new QmpError("Can't migrate the vm that was paused due to previous migration")
    }
    const source = this.#makeSource()
    source.setParameters(this.settings.engineParameters())
    const { stop, resume: goOn, throttle } = this.target
    const hooks: ProgramHooks = { ...(stop && { stop }), ...(goOn && { resume: goOn }), ...(throttle && { throttle }) }
    const begun = whenBegun(source)
    const work = source.migrate(to, hooks).then(
      () => {},
      (error) => begun.fail(error),
    )
    this.#migrating = work.finally(() => this.#settle())
    await begun.promise
  }

  /** Resolves once it listens. @throws QmpError, MultifdError when it can not */
  async incoming(given: Arguments<'migrate-incoming'>): Promise<void> {
    const { destination } = this.target
    const uri = targetUri(given.uri, given.channels)
    if (!destination) throw new QmpError("'-incoming' was not specified on the command line")
    if (this.#arrived || (this.#current === destination && this.running)) {
      throw new QmpError('The incoming migration has already been started')
    }
    this.#checkIdle()
    destination.setParameters(this.settings.engineParameters())
    this.#listening = await destination.listen(uri)
    destination.completed.then(
      () => this.#arrive(),
      () => {
        if (given['exit-on-error']) void this.target.quit?.()
      },
    )
  }

  cancel(): void {
    this.#current?.cancel()
  }

  /** @throws QmpError when it is in another state */
  continue(state: string): void {
    if (state !== this.#status) throw new QmpError(`Migration not in expected state: ${this.#status}`)
    if (this.#status === 'pre-switchover') this.#source?.continue()
  }

  yank(): void {
    this.#current?.yank()
  }

  /** @throws QmpError */
  setCapabilities(list: Arguments<'migrate-set-capabilities'>['capabilities']): void {
    this.#checkIdle()
    this.settings.setCapabilities(list)
  }

  /** What a migration that runs can take up holds at once. @throws QmpError, MultifdError; nothing is changed then */
  setParameters(given: Arguments<'migrate-set-parameters'>): void {
    if (this.running) {
      const fixed = Object.keys(given).find((name) => name !== 'max-bandwidth' && name !== 'downtime-limit')
      if (fixed !== undefined)
        throw new QmpError(`Parameter '${fixed}' cannot be changed while a migration is in progress`)
    }
    this.settings.setParameters(given)
    if (!this.running) return
    const { maxBandwidth, downtimeLimit } = this.settings.engineParameters()
    this.#current!.setParameters({ maxBandwidth: maxBandwidth!, downtimeLimit: downtimeLimit! })
  }

  #checkIdle(): void {
    if (this.running || this.#migrating) throw new QmpError("There's a migration process in progress")
  }

  get #alive(): RunState {
    return this.target.stop ? 'running' : 'prelaunch'
  }

  #makeSource(): MigrationSource {
    const { source } = this.target
    if (!source) throw new QmpError('There is nothing to migrate here')
    if (!this.#source) this.#takeSource(typeof source === 'function' ? source() : source)
    return this.#source!
  }

  #takeSource(source: MigrationSource): void {
    this.#source = source
    this.#observe(source)
    const stop = (): void => {
      this.#runState = 'finish-migrate'
      this.emit('event', 'STOP')
    }
    const resume = (): void => {
      this.#runState = 'running'
      this.emit('event', 'RESUME')
    }
    source.on('stop', stop).on('resume', resume)
    this.#stopObserving.push(() => source.off('stop', stop).off('resume', resume))
  }

  #observe(migration: Migration): void {
    const onStatus = (status: MigrationStatus): void => {
      if (status === 'setup') this.#current = migration
      if (this.#current !== migration) return
      // A program that was stopped goes on first.
      if (status === 'cancelled' && this.#migrating) return
      this.#become(status)
    }
    const onPass = (pass: number): void => {
      if (pass > 1) this.#tell('MIGRATION_PASS', { pass })
    }
    migration.on('status', onStatus).on('passBegin', onPass)
    this.#stopObserving.push(() => migration.off('status', onStatus).off('passBegin', onPass))
  }

  #become(status: MigrationStatus): void {
    if (this.#status === status) return
    this.#status = status
    // QEMU's first pass begins in the set-up.
    if (status === 'active' && this.#current === this.#source) this.#tell('MIGRATION_PASS', { pass: 1 })
    if (status === 'completed' && this.#runState === 'finish-migrate') this.#runState = 'postmigrate'
    this.#tell('MIGRATION', { status })
  }

  #tell(name: string, data: object): void {
    if (this.settings.events) this.emit('event', name, data)
  }

  #settle(): void {
    this.#migrating = undefined
    if (this.#current === this.#source && this.#source) this.#become(this.#source.status)
  }

  async #arrive(): Promise<void> {
    this.#arrived = true
    this.#runState = this.target.stop ? 'running' : 'paused'
    if (!this.target.stop) return
    await this.target.resume?.()
    this.emit('event', 'RESUME')
  }
}

/** Settles once a migration is in its set-up, or has failed before. */
function whenBegun(source: MigrationSource): { promise: Promise<void>; fail(error: unknown): void } {
  let fail: (error: unknown) => void
  const promise = new Promise<void>((resolve, reject) => {
    fail = reject
    source.once('status', () => resolve())
  })
  return { promise, fail: (error) => fail(error) }
}
