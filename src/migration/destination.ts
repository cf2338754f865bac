// The destination: receives a migration into a program's RAM blocks.

import { MultifdError } from '../errors.js'
import { Listener } from '../io/listener.js'
import { checkStreamFile } from '../io/stream-file.js'
import { formatUri, type MigrationUri, parseUri, resolveUri } from '../io/uri.js'
import type { Logger } from '../log.js'
import type { SocketAddress } from '../os/socket.js'
import type { RamBlock, RamBlockHandle } from '../ram/block.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { Device } from '../vmstate/device.js'
import type { DeviceSet } from '../vmstate/device-set.js'
import { parseUuid } from '../wire/bytes.js'
import type { DestinationPlan } from './destination-coordinator.js'
import type { GuestImage } from './memory-target.js'
import { type Cancellation, Migration } from './migration.js'
import { checkCompression, checkConnections, completeParameters, type MigrationParameters } from './parameters.js'
import { ProgramLoad, programDevices } from './program-state.js'
import { PROGRAM_MACHINE_TYPE } from './source.js'
import type { MigrationStatistics } from './statistics.js'
import type { MigrationThreads } from './threads.js'

/** What the worker receives into: see workers/destination.ts. */
export type TargetPlan =
  | { kind: 'program'; blocks: RamBlockHandle[]; machineType: string }
  | { kind: 'snapshot'; path: string; machineType: string | undefined; offset: number }
  | { kind: 'memory'; machineType: string | undefined; blocks: RamBlockHandle[] }

export interface ReceiveOptions {
  parameters?: Partial<MigrationParameters>
  /** Checked in every channel's initial packet, and in the configuration if it is there. */
  uuid?: string
  /** Accepts a stream that lacks pages, as a guest whose memory was given back to its host sends. Default false. */
  allowMissingPages?: boolean
  logger?: Logger
  /** Fault points that are armed, for tests: see docs/faults.md. */
  faults?: FaultPoints
}

export interface MigrationDestinationOptions extends ReceiveOptions {
  /** Blocks to receive into; the source has blocks of the same names and sizes. */
  ram: RamBlock[]
  /** Default `multifd`. The source must name the same. */
  machineType?: string
  /** What else of the program is migrated, as {@link MigrationSourceOptions.devices}: loaded once the pages are there. */
  devices?: Iterable<Device>
  /**
   * Makes what is populated of the blocks resident before pages arrive, in parallel, and fails early where memory runs
   * short. Default false: nothing is touched before a page comes for it.
   */
  prealloc?: boolean
}

/** The program's own memory and devices that are received into. */
export interface OwnState {
  ram: readonly RamBlock[]
  prealloc: boolean
  /** Undefined where devices are kept as they come. */
  devices: DeviceSet | undefined
}

/** Receives into whatever its target plan says. */
export class Receiver extends Migration {
  readonly #options: ReceiveOptions
  readonly #target: TargetPlan
  readonly #own: OwnState
  #listener: Listener | undefined
  #completed: Promise<MigrationStatistics> | undefined
  /** The source's machine type, once its configuration came. */
  machineType: string | undefined
  /** The source's blocks, once its RAM set-up came. Sizes in bytes. */
  blocks: { idstr: string; size: number }[] = []
  protected image: GuestImage | undefined

  constructor(
    options: ReceiveOptions,
    target: TargetPlan,
    own: OwnState = { ram: [], prealloc: false, devices: undefined },
  ) {
    super(completeParameters(options.parameters, 'destination'), options.logger)
    this.#own = own
    this.#options = options
    this.#target = target
    if (options.uuid !== undefined) parseUuid(options.uuid)
  }

  override get memory(): readonly RamBlock[] {
    return this.#own.ram
  }

  /**
   * Starts to listen on a tcp or unix URI, or to read an inherited descriptor or a file with a stream.
   *
   * @returns the URI with the real port, once connections are accepted
   * @throws MultifdError ERR_MULTIFD_LISTEN, ERR_MULTIFD_FILE, ERR_MULTIFD_ARGUMENT, ERR_MULTIFD_UNSUPPORTED; ERR_MULTIFD_STATE when it
   * listens already, or adopted memory has grown
   */
  async listen(uri: string, { signal }: { signal?: AbortSignal } = {}): Promise<string> {
    const cancellation = this.cancellation(signal)
    try {
      return await this.#listen(parseUri(uri), cancellation)
    } catch (error) {
      cancellation.release()
      throw error
    }
  }

  /** Finds out, before anybody is waited for, what of the target would not do. */
  protected checkTarget(_from: MigrationUri): void {}

  async #listen(parsed: MigrationUri, { signal, release }: Cancellation): Promise<string> {
    checkConnections(parsed, this.parameters)
    checkCompression(this.parameters)
    const addresses = await resolveUri(parsed, true)
    if (!this.state.running) await this.settled()
    // From here to the start of the threads nothing is waited for: of two calls at once, one gets here second.
    if (this.state.running) throw new MultifdError('ERR_MULTIFD_STATE', 'a migration is in progress')
    for (const block of this.#own.ram) block.checkSame()
    this.checkTarget(parsed)
    const tls = this.openTls('server')
    let from: DestinationPlan['from']
    try {
      from = this.#open(parsed, addresses)
    } catch (error) {
      tls?.close()
      throw error
    }
    const load = this.#own.devices && new ProgramLoad(this.#own.ram, this.#own.devices, this.#own.prealloc)
    const plan: DestinationPlan & { target: TargetPlan } = {
      from,
      ...(this.#options.uuid === undefined ? {} : { uuid: this.#options.uuid.toLowerCase() }),
      allowMissingPages: this.#options.allowMissingPages ?? false,
      approvalWanted: this.#own.devices?.wantApproval ?? false,
      target: this.#target,
    }
    this.#completed = this.run({
      side: 'dst',
      coordinator: new URL('../../workers/destination.js', import.meta.url),
      channel: new URL('../../workers/recv.js', import.meta.url),
      pageSize: 4096,
      totalBytes: 0,
      dirtyWords: 0,
      // Any of them may be needed at once, and has time to start until a source comes.
      startAtOnce: this.parameters.multifdChannels,
      plan,
      channelPlan: { compression: this.parameters.multifdCompression },
      signal,
      tls,
      faults: this.#options.faults,
      onMessage: (message, threads) => {
        if (message.type === 'prepare') {
          void answerWhen(threads, () => load?.prepare(message.early, threads.shm.faults))
          if (this.parameters.switchoverAck && !threads.shm.stopped) void this.#approve(threads)
        }
        if (message.type === 'load-devices') {
          void answerWhen(threads, () => {
            threads.shm.faults?.fail('device-load-fails')
            load?.finish(message.deviceState)
          })
        }
        if (message.type === 'image') this.image = message.image
        if (message.type !== 'set-up') return
        this.machineType = message.machineType
        this.blocks = message.blocks
      },
    }).finally(async () => {
      release()
      this.#listener?.close()
      await load?.release()
    })
    // As the threads do, and while they start.
    this.statistics()
    void ProgramLoad.rehearse()
    // Whoever wants the outcome asks for `completed`; a program that does not must not die of it.
    this.#completed.catch(() => {})
    const bound = this.#listener?.uri ?? parsed
    this.logger.info({ uri: formatUri(bound) }, `listening on ${formatUri(bound)}`)
    return formatUri(bound)
  }

  /**
   * The figures, once everything came and was kept.
   *
   * @throws MultifdError with the first error's code
   */
  get completed(): Promise<MigrationStatistics> {
    return this.#completed ?? Promise.reject(new MultifdError('ERR_MULTIFD_STATE', 'nothing was listened on yet'))
  }

  override async close(): Promise<void> {
    await super.close()
    await this.#completed?.catch(() => {})
    this.#listener?.close()
  }

  async #approve(threads: MigrationThreads): Promise<void> {
    try {
      await this.#own.devices?.approveSwitchover()
      threads.shm.approve()
    } catch (error) {
      threads.fail(MultifdError.from(error))
    }
  }

  #open(uri: MigrationUri, addresses: SocketAddress[]): DestinationPlan['from'] {
    this.#listener = undefined
    if (uri.transport === 'fd') return { fd: uri.fd }
    if (uri.transport === 'file') {
      checkStreamFile(uri)
      return { file: uri }
    }
    this.#listener = Listener.open(uri, addresses, Math.max(128, this.parameters.multifdChannels + 1))
    const { tls } = this.parameters
    if (!this.#listener.loopback && (!tls || tls.verifyPeer === false)) {
      const how = tls ? 'sources without a certificate' : 'plain connections'
      const text = `${how} are accepted from other machines: whoever reaches the port can write the memory`
      this.logger.warn({ uri: formatUri(this.#listener.uri) }, text)
    }
    return { listener: this.#listener.fd }
  }
}

async function answerWhen(threads: MigrationThreads, done: () => unknown): Promise<void> {
  if (threads.shm.stopped) return
  try {
    await done()
    threads.answer()
  } catch (error) {
    threads.fail(MultifdError.from(error))
  }
}

/** Receives a migration into a program's own blocks and devices. */
export class MigrationDestination extends Receiver {
  /** @throws MultifdError ERR_MULTIFD_ARGUMENT for parameters, a uuid, blocks or devices that are not valid */
  constructor(options: MigrationDestinationOptions) {
    const { ram, machineType = PROGRAM_MACHINE_TYPE, prealloc = false, devices, ...rest } = options
    if (ram.length === 0) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'there is no RAM block to receive into')
    const target: TargetPlan = { kind: 'program', blocks: ram.map(({ handle }) => handle), machineType }
    super(rest, target, { ram, prealloc, devices: programDevices(ram, devices) })
  }
}
