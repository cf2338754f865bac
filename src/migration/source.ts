// The source: migrates a program's RAM blocks, or what a snapshot holds, to a destination.

import { availableParallelism } from 'node:os'
import { MultifdError } from '../errors.js'
import { formatUri, type MigrationUri, parseUri, resolveUri } from '../io/uri.js'
import type { Logger } from '../log.js'
import { monotonicMs } from '../os/clock.js'
import { isStreamSocket } from '../os/socket.js'
import type { RamBlock } from '../ram/block.js'
import { BlockGuard } from '../ram/block-guard.js'
import { DirtyBitmap } from '../ram/dirty-bitmap.js'
import { requireDirtyLog } from '../ram/dirty-log.js'
import { parseUuid } from '../wire/bytes.js'
import { encodeEof, encodeVmdescHeader } from '../wire/stream.js'
import { Migration } from './migration.js'
import { checkCompression, completeParameters, type MigrationParameters, sendMethodOptions } from './parameters.js'
import { type SourcePlan, zeroPagesAt } from './source-coordinator.js'
import type { MigrationStatistics } from './statistics.js'
import type { MigrationThreads } from './threads.js'
import { checkZeroCopy, zeroCopySends } from './zero-copy.js'

/** The machine type that programs which are no QEMU name to each other. */
export const PROGRAM_MACHINE_TYPE = 'multifd'

export interface MigrationSourceOptions {
  /** Blocks to migrate; the destination has blocks of the same names and sizes. */
  ram: RamBlock[]
  parameters?: Partial<MigrationParameters>
  /** Default `multifd`. The destination must name the same. */
  machineType?: string
  /** Sent in every channel's initial packet. */
  uuid?: string
  logger?: Logger
  /** Fault points to arm, for tests: see src/faults.ts. */
  faults?: number
}

export interface MigrateOptions {
  /** Brings the program to a halt: after this resolves, no block changes. Called when what remains fits the downtime. */
  stop?(): void | Promise<void>
  /** Lets it go on: called when the migration fails after `stop` was called, once that has settled. */
  resume?(): void | Promise<void>
  /** Cancels the migration; the program goes on. */
  signal?: AbortSignal
}

/** What of a stream is not the program's RAM: as a snapshot keeps it. */
export interface StreamExtras
  extends Pick<
    SourcePlan,
    'ramSectionId' | 'beforeRam' | 'afterRam' | 'switchoverStart' | 'deviceState' | 'validateUuid'
  > {
  pageBits?: number
}

export class MigrationSource extends Migration {
  readonly #options: MigrationSourceOptions
  readonly #extras: StreamExtras
  #stopping: Promise<void> | undefined

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT for parameters, a uuid or blocks that are not valid */
  constructor(options: MigrationSourceOptions, extras: StreamExtras = emptyStream(options.ram)) {
    super(completeParameters(options.parameters, 'source'), options.logger)
    this.#options = options
    this.#extras = extras
    checkZeroCopy(this.parameters)
    if (options.ram.length === 0) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'there is no RAM block to migrate')
    const { xbzrle, xbzrleCacheSize } = this.parameters
    if (xbzrle && xbzrleCacheSize < options.ram[0]!.pageSize) {
      const message = `parameter 'xbzrleCacheSize' is ${xbzrleCacheSize}: it must be no less than a target page`
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
    }
    const names = new Set(options.ram.map(({ idstr }) => idstr))
    if (names.size < options.ram.length) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'two RAM blocks have one name')
    if (options.uuid !== undefined) parseUuid(options.uuid)
  }

  /**
   * Migrates to `uri`. While it runs, pages that the program marks dirty are sent again, pass after pass, until what is
   * left fits `downtimeLimit`; then the program is stopped and the rest goes.
   *
   * @returns the figures, once the destination said that it has everything
   * @throws MultifdError with the first error's code; the program then runs on and its memory is as it was.
   * ERR_MULTIFD_STATE when a migration runs already, or adopted memory has grown
   */
  async migrate(uri: string, options: MigrateOptions = {}): Promise<MigrationStatistics> {
    const parsed = parseUri(uri)
    this.#checkTransport(parsed)
    const sends = zeroCopySends(this.parameters, parsed)
    checkCompression(this.parameters)
    const { ram, machineType = PROGRAM_MACHINE_TYPE, uuid, faults } = this.#options
    const addresses = await resolveUri(parsed, false)
    if (!this.busy) await this.settled()
    // From here to the start of the threads nothing is waited for: of two calls at once, one gets here second.
    if (this.busy) throw new MultifdError('ERR_MULTIFD_STATE', 'a migration is in progress')
    for (const { dirtyLog } of ram) requireDirtyLog(dirtyLog)
    const guard = new BlockGuard(ram)
    const plan: SourcePlan = {
      ...this.#extras,
      destination: parsed.transport === 'fd' ? { fd: parsed.fd } : { addresses },
      blocks: ram.map(({ handle }) => handle),
      machineType,
      ...(uuid === undefined ? {} : { uuid }),
      // Whether adopted memory is still the same only this thread can tell, once nobody lets it grow any more.
      stopProgram: options.stop !== undefined || guard.adopted,
    }
    this.#stopping = undefined
    this.logger.info({ uri: formatUri(parsed), channels: this.parameters.multifdChannels }, 'migrating')
    try {
      return await this.run({
        side: 'src',
        coordinator: new URL('../../workers/source.js', import.meta.url),
        channel: new URL('../../workers/send.js', import.meta.url),
        pageSize: ram[0]!.pageSize,
        totalBytes: ram.reduce((sum, { size }) => sum + size, 0),
        dirtyWords: ram.reduce((sum, { pages }) => sum + DirtyBitmap.words(pages), 0),
        startAtOnce: Math.max(2, availableParallelism()),
        plan,
        channelPlan: {
          findZeroPages: zeroPagesAt(this.parameters, machineType) === 'channels',
          compression: sendMethodOptions(this.parameters),
          ...(sends === undefined ? {} : { zeroCopySends: sends }),
        },
        ...(faults === undefined ? {} : { faults }),
        signal: options.signal,
        onMessage: (message, threads) => {
          if (message.type === 'pass') checkBlocks(guard, threads)
          if (message.type !== 'stop-program') return
          this.ranOn = monotonicMs() - message.at
          this.#stopping = this.#stopProgram(options, threads, guard)
        },
      })
    } catch (error) {
      // A stop that is under way yet would halt the program after it was told to go on.
      await this.#stopping
      if (this.#stopping && options.stop) await options.resume?.()
      throw error
    } finally {
      guard.release()
    }
  }

  async #stopProgram({ stop }: MigrateOptions, threads: MigrationThreads, guard: BlockGuard): Promise<void> {
    try {
      await stop?.()
      if (checkBlocks(guard, threads)) threads.shm.answers.post()
    } catch (cause) {
      const text = cause instanceof Error ? cause.message : String(cause)
      threads.fail(new MultifdError('ERR_MULTIFD_STATE', `the program could not be stopped: ${text}`, { cause }))
    }
  }

  #checkTransport(uri: MigrationUri): void {
    if (uri.transport !== 'fd') return
    if (this.parameters.multifd) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'fd: is one connection: switch multifd off, or use tcp: or unix:')
    }
    if (this.parameters.returnPath && !isStreamSocket(uri.fd)) {
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `descriptor ${uri.fd} is no socket: switch the return path off`)
    }
  }
}

function checkBlocks(guard: BlockGuard, threads: MigrationThreads): boolean {
  try {
    guard.checkSame()
    return true
  } catch (error) {
    threads.fail(MultifdError.from(error))
    return false
  }
}

/** Of a program without devices: the end mark, and a description that lists none. */
export function emptyStream(ram: RamBlock[]): StreamExtras {
  const json = new TextEncoder().encode(JSON.stringify({ page_size: ram[0]?.pageSize ?? 4096, devices: [] }))
  const deviceState = new Uint8Array(1 + 5 + json.length)
  const view = new DataView(deviceState.buffer)
  deviceState.set(json, encodeVmdescHeader(view, encodeEof(view, 0), json.length))
  const empty = new Uint8Array()
  return {
    ramSectionId: 0,
    beforeRam: empty,
    afterRam: empty,
    switchoverStart: false,
    deviceState,
    validateUuid: false,
  }
}
