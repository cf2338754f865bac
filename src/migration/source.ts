// The source: migrates a program's RAM blocks, or what a snapshot holds, to a destination.

import { availableParallelism } from 'node:os'
import { MultifdError } from '../errors.js'
import { formatUri, type MigrationUri, parseUri, resolveUri } from '../io/uri.js'
import type { Logger } from '../log.js'
import { monotonicMs } from '../os/clock.js'
import { inodeOf, isSameFile } from '../os/file.js'
import { isOpen, isStreamSocket, type SocketAddress } from '../os/socket.js'
import type { RamBlock } from '../ram/block.js'
import { BlockGuard } from '../ram/block-guard.js'
import { DirtyBitmap } from '../ram/dirty-bitmap.js'
import { requireDirtyLog } from '../ram/dirty-log.js'
import { logFree } from '../ram/log-use.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { TlsContext } from '../tls/context.js'
import type { Device } from '../vmstate/device.js'
import { DeviceSet } from '../vmstate/device-set.js'
import { parseUuid } from '../wire/bytes.js'
import { dialectOf } from '../wire/machine.js'
import type { IgnoredShared } from './load-target.js'
import { Migration } from './migration.js'
import {
  checkCompression,
  checkConnections,
  completeParameters,
  type MigrationParameters,
  sendMethodOptions,
} from './parameters.js'
import { ProgramSave, programDevices } from './program-state.js'
import { type SourcePlan, zeroPagesAt } from './source-coordinator.js'
import type { MigrationStatistics } from './statistics.js'
import { type ProgramHooks, Switchover } from './switchover.js'
import type { MigrationThreads } from './threads.js'
import { checkZeroCopy, zeroCopySends } from './zero-copy.js'

/** The machine type that programs which are no QEMU name to each other. */
export const PROGRAM_MACHINE_TYPE = 'multifd'

export interface MigrationSourceOptions {
  /** Blocks to migrate; the destination has blocks of the same names and sizes. */
  ram: RamBlock[]
  /**
   * What else of the program is migrated: devices with a description (`vmstate.device`), and others whose state travels as
   * msgpack. They are saved once the program stands still, or before RAM where they are early. The destination has the
   * same.
   */
  devices?: Iterable<Device>
  parameters?: Partial<MigrationParameters>
  /** Default `multifd`. The destination must name the same. */
  machineType?: string
  /** Sent in every channel's initial packet. */
  uuid?: string
  logger?: Logger
  /** Fault points that are armed, for tests: see docs/faults.md. */
  faults?: FaultPoints
}

export interface MigrateOptions extends ProgramHooks {
  /** Cancels the migration; the program goes on. */
  signal?: AbortSignal
}

/** What of a stream is not the program's RAM: as a snapshot keeps it. */
export interface StreamExtras
  extends Pick<
    SourcePlan,
    'ramSectionId' | 'beforeRam' | 'afterRam' | 'switchoverStart' | 'validateUuid' | 'pageBits' | 'ignoredShared'
  > {
  /** What follows the RAM's last section, verbatim, to the end of the stream. */
  deviceState: Uint8Array
}

/** How one migration goes, as far as it is known before it begins. */
interface Way {
  uri: MigrationUri
  addresses: SocketAddress[]
  /** Zero-copy sends that a channel may have under way. */
  sends: number | undefined
  signal: AbortSignal
  tls: TlsContext | undefined
}

export class MigrationSource extends Migration {
  readonly #options: MigrationSourceOptions
  // Of a snapshot or a guest, instead of devices.
  readonly #extras: StreamExtras | undefined
  readonly #devices: DeviceSet
  #switchover: Switchover | undefined

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT for parameters, a uuid, blocks or devices that are not valid */
  constructor(options: MigrationSourceOptions, extras?: StreamExtras) {
    super(completeParameters(options.parameters, 'source'), options.logger)
    this.#options = options
    this.#extras = extras
    this.#devices = extras ? new DeviceSet([]) : programDevices(options.ram, options.devices)
    if (options.ram.length === 0) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'there is no RAM block to migrate')
    this.checkParameters(this.parameters)
    const names = new Set(options.ram.map(({ idstr }) => idstr))
    if (names.size < options.ram.length) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'two RAM blocks have one name')
    if (options.uuid !== undefined) parseUuid(options.uuid)
  }

  override get memory(): readonly RamBlock[] {
    return this.#options.ram
  }

  /**
   * Migrates to `uri`. While it runs, pages that the program marks dirty are sent again, pass after pass, until what is
   * left fits `downtimeLimit`; then the program is stopped and the rest goes.
   *
   * @returns the figures, once the destination said that it has everything
   * @throws MultifdError with the first error's code; the program then runs on and its memory is as it was.
   * ERR_MULTIFD_STATE when a migration runs already, or adopted memory has grown; ERR_MULTIFD_DEVICE, naming it, when a
   * device can not be saved
   */
  async migrate(uri: string, options: MigrateOptions = {}): Promise<MigrationStatistics> {
    const cancellation = this.cancellation(options.signal)
    try {
      return await this.#migrate(parseUri(uri), options, cancellation.signal)
    } finally {
      cancellation.release()
    }
  }

  protected override checkParameters(parameters: MigrationParameters): void {
    checkZeroCopy(parameters)
    const { xbzrle, xbzrleCacheSize } = parameters
    if (xbzrle && xbzrleCacheSize < this.#options.ram[0]!.pageSize) {
      const message = `parameter 'xbzrleCacheSize' is ${xbzrleCacheSize}: it must be no less than a target page`
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
    }
  }

  /**
   * Goes on with a migration that waits before its switchover, as `pauseBeforeSwitchover` asked for.
   *
   * @throws MultifdError ERR_MULTIFD_STATE when none does
   */
  continue(): void {
    if (this.status !== 'pre-switchover') {
      const message = `no migration waits before its switchover: the state is '${this.status}'`
      throw new MultifdError('ERR_MULTIFD_STATE', message)
    }
    this.#switchover?.continue()
  }

  async #migrate(uri: MigrationUri, options: MigrateOptions, signal: AbortSignal): Promise<MigrationStatistics> {
    this.#checkTransport(uri)
    const sends = zeroCopySends(this.parameters, uri)
    checkCompression(this.parameters)
    const { ram } = this.#options
    const addresses = await resolveUri(uri, false)
    if (!this.state.running) await this.settled()
    await logFree(ram)
    // From here to the start of the threads nothing is waited for: of two calls at once, one gets here second.
    if (this.state.running) throw new MultifdError('ERR_MULTIFD_STATE', 'a migration is in progress')
    for (const { dirtyLog } of ram) requireDirtyLog(dirtyLog)
    const guard = new BlockGuard(ram, { tracked: true })
    let tls: TlsContext | undefined
    try {
      tls = this.openTls('client', uri.transport === 'tcp' ? uri.host || '127.0.0.1' : undefined)
      return await this.#transfer({ uri, addresses, sends, signal, tls }, options, guard)
    } catch (error) {
      tls?.close()
      throw error
    } finally {
      guard.release()
    }
  }

  async #transfer(
    { uri, addresses, sends, signal, tls }: Way,
    options: MigrateOptions,
    guard: BlockGuard,
  ): Promise<MigrationStatistics> {
    const { ram, machineType = PROGRAM_MACHINE_TYPE, uuid } = this.#options
    const save = this.#extras ? undefined : new ProgramSave(this.#devices, ram[0]!.pageSize)
    const ignoredShared = this.#ignoredShared()
    const sent = ram.filter(({ idstr }) => !ignoredShared?.blocks.includes(idstr))
    const { deviceState, ...extras } = { deviceState: undefined, ...(this.#extras ?? save!.extras) }
    const switchover = new Switchover({
      hooks: options,
      state: this.state,
      guard,
      pause: this.parameters.pauseBeforeSwitchover,
      notify: (event) => this.emit(event),
      save: () => deviceState ?? save!.finish(),
      logger: this.logger,
    })
    this.#switchover = switchover
    const plan: SourcePlan = {
      ...extras,
      destination: destinationOf(uri, addresses),
      blocks: ram.map(({ handle }) => handle),
      machineType,
      ...(uuid === undefined ? {} : { uuid }),
      awaitAck: this.#awaitsAck(machineType, options),
      ...(ignoredShared && { ignoredShared }),
    }
    this.logger.info({ uri: formatUri(uri), channels: this.parameters.multifdChannels }, 'migrating')
    let completed = false
    try {
      const statistics = await this.run({
        side: 'src',
        coordinator: new URL('../../workers/source.js', import.meta.url),
        channel: new URL('../../workers/send.js', import.meta.url),
        pageSize: ram[0]!.pageSize,
        totalBytes: sent.reduce((sum, { size }) => sum + size, 0),
        dirtyWords: sent.reduce((sum, { pages }) => sum + DirtyBitmap.words(pages), 0),
        startAtOnce: Math.max(2, availableParallelism()),
        plan,
        channelPlan: {
          findZeroPages: zeroPagesAt(this.parameters, machineType) === 'channels',
          compression: sendMethodOptions(this.parameters),
          ...(sends === undefined ? {} : { zeroCopySends: sends }),
        },
        faults: this.#options.faults,
        signal,
        tls,
        onMessage: (message, threads) => {
          if (message.type === 'pass') checkBlocks(guard, threads)
          if (message.type === 'throttle') switchover.throttle(message.percentage)
          if (message.type !== 'switchover') return
          this.ranOn = monotonicMs() - message.at
          switchover.begin(threads)
        },
      })
      completed = true
      return statistics
    } finally {
      await switchover.end(completed)
    }
  }

  // A guest whose shared memory was left out has none to send.
  #ignoredShared(): IgnoredShared | undefined {
    if (this.#extras?.ignoredShared || !this.parameters.ignoreShared) return this.#extras?.ignoredShared
    return { blocks: this.#options.ram.flatMap(({ idstr, shared }) => (shared ? [idstr] : [])), addresses: {} }
  }

  // A program that stands still anyway has nothing to wait for.
  #awaitsAck(machineType: string, { stop }: MigrateOptions): boolean {
    if (!this.parameters.switchoverAck || !stop) return false
    return dialectOf(machineType).switchoverAck === 'always' || this.#devices.wantApproval
  }

  #checkTransport(uri: MigrationUri): void {
    checkConnections(uri, this.parameters)
    this.#checkFile(uri)
    if (!this.parameters.returnPath) return
    if (uri.transport === 'file') {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'a file gives no word back: switch the return path off')
    }
    if (uri.transport === 'fd' && !isStreamSocket(uri.fd)) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `descriptor ${uri.fd} is no socket: switch the return path off`)
    }
  }

  // A stream that is written where its pages are read from destroys both.
  #checkFile(uri: MigrationUri): void {
    if (uri.transport !== 'file' && uri.transport !== 'fd') return
    const target = uri.transport === 'file' ? inodeOf(uri.path) : isOpen(uri.fd) ? inodeOf(uri.fd) : undefined
    const own = this.#options.ram.find(({ inode }) => isSameFile(inode, target))
    if (!own) return
    const message = `${formatUri(uri)} is the file that block '${own.idstr}' is read from: the stream needs another one`
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
  }
}

function destinationOf(uri: MigrationUri, addresses: SocketAddress[]): SourcePlan['destination'] {
  if (uri.transport === 'fd') return { fd: uri.fd }
  return uri.transport === 'file' ? { file: uri } : { addresses }
}

function checkBlocks(guard: BlockGuard, threads: MigrationThreads): void {
  try {
    guard.checkSame()
  } catch (error) {
    threads.fail(MultifdError.from(error))
  }
}
