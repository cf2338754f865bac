// The destination's coordinator: tells the connections apart, reads the main stream, and gives the word at its end.

import { noteLoaded, type ThreadOutcome } from '../channel/thread.js'
import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { type Connection, makeConnection, shakeHands } from '../io/connection.js'
import { openToRead, type StreamPlace } from '../io/stream-file.js'
import { StreamReader } from '../io/stream-reader.js'
import { hasZstd } from '../method/zstd.js'
import { isOpen, POLL, pollDescriptors } from '../os/socket.js'
import { IDLE_THREAD } from '../os/thread.js'
import type { LoadBlock } from '../ram/load-block.js'
import { COUNTER } from '../shm/layout.js'
import { ADAPTIVE_ANSWER, ADAPTIVE_QUESTION } from '../wire/agreement.js'
import { COMMAND, type Command, decodeCommand, decodePing } from '../wire/command.js'
import { EarlySections } from '../wire/early-sections.js'
import { type Dialect, dialectOf } from '../wire/machine.js'
import { INITIAL_PACKET_SIZE } from '../wire/multifd-initial.js'
import { decodeRamSetup, RAM_IDSTR, RAM_SECTION_VERSION } from '../wire/ram.js'
import {
  type Configuration,
  decodeConfiguration,
  decodeFooter,
  decodeSectionHeader,
  decodeStreamHeader,
  SECTION,
  type SectionIntroduction,
} from '../wire/stream.js'
import type { Vmdesc } from '../wire/vmdesc.js'
import { Acceptor } from './acceptor.js'
import { checkConfiguration } from './configuration.js'
import { Coordinator, type CoordinatorTask } from './coordinator.js'
import { CutShort, type DeviceState, readDeviceState } from './device-state.js'
import type { LoadedState, LoadTarget } from './load-target.js'
import { type GuestImage, MemoryTarget } from './memory-target.js'
import { mayLackPages } from './missing-pages.js'
import { RamLoad } from './ram-load.js'
import { RecvChannels } from './recv-channels.js'
import { rehearse } from './rehearsal.js'
import { ReturnPathWriter } from './return-path-writer.js'

// A main channel that spoke so lately is alive, whatever the counters say yet.
const PROGRESS_MS = 1000
// A source that is not yet through with its last section goes on sooner.
const QUIET_MS = 500
const DEFAULT_PAGE_SIZE = 4096

/** Where the source comes from. */
export interface DestinationPlan {
  /** A listening descriptor, an inherited one that is connected already, or a file with a stream. */
  from: { listener: number } | { fd: number } | { file: StreamPlace }
  /** Checked in every initial packet and in the configuration, when given. */
  uuid?: string
  /** Lets pages be missing at the end, as where a guest's balloon gave them back. */
  allowMissingPages: boolean
  /** Whether devices of this side have a say in when the switchover is. */
  approvalWanted?: boolean
}

export type DestinationTask = CoordinatorTask & DestinationPlan

export function runDestination(
  task: DestinationTask,
  makeTarget: (coordinator: Coordinator) => LoadTarget,
): ThreadOutcome {
  noteLoaded(task.shm)
  if (!rehearsedFor(task)) task.toProgram.postMessage({ type: 'warning', text: 'the rehearsal failed' })
  let target: LoadTarget | undefined
  const outcome = Coordinator.run(task, 'dst', (coordinator) => {
    target = makeTarget(coordinator)
    new DestinationRun(coordinator, task, target).run()
  })
  try {
    target?.close()
  } catch (thrown) {
    // The migration has its outcome; what could not be tidied up is told beside it.
    task.toProgram.postMessage({ type: 'warning', text: MultifdError.from(thrown).message })
  }
  return outcome
}

// A thread that stays for further migrations knows its part.
let rehearsed = false

// Unless a source is there already, which would wait for it. Returns whether all went well.
function rehearsedFor(task: DestinationTask): boolean {
  if (rehearsed || !('listener' in task.from)) return true
  const [waiting] = pollDescriptors([{ fd: task.from.listener, events: POLL.in }], 0)
  if (waiting !== 0) return true
  let image: GuestImage | undefined
  rehearse(task, (rehearsal, fd) => {
    const receive = (coordinator: Coordinator): void => {
      const target = new MemoryTarget(undefined, [], (came) => {
        image = came
      })
      new DestinationRun(coordinator, { from: { fd }, allowMissingPages: false }, target).run()
    }
    // No migration tells of it, so it does not have the name of one.
    Coordinator.run(rehearsal, 'dst', receive, IDLE_THREAD)
  })
  rehearsed = image !== undefined
  return rehearsed
}

class DestinationRun {
  readonly #coordinator: Coordinator
  readonly #plan: DestinationPlan
  readonly #target: LoadTarget
  #acceptor: Acceptor | undefined
  #reader!: StreamReader
  #main!: Channel
  #returnPath: ReturnPathWriter | undefined
  #channels: RecvChannels | undefined
  #ram: RamLoad | undefined
  #ramSectionId = -1
  #ramEnded = false
  readonly #early = new EarlySections()
  #switchoverStart = false
  #dialect: Dialect | undefined

  constructor(coordinator: Coordinator, plan: DestinationPlan, target: LoadTarget) {
    this.#coordinator = coordinator
    this.#plan = plan
    this.#target = target
  }

  run(): void {
    const { shm } = this.#coordinator
    try {
      const { main, connections } = this.#accept()
      decodeStreamHeader(this.#reader)
      const configuration = decodeConfiguration(this.#reader)
      const pageSize = configuration.pageBits === undefined ? DEFAULT_PAGE_SIZE : 2 ** configuration.pageBits
      checkConfiguration(configuration, this.#plan.uuid, this.#coordinator.parameters)
      this.#dialect = dialectOf(configuration.machineType)
      const channels = new RecvChannels(this.#coordinator, connections, main, pageSize)
      this.#channels = channels
      this.#coordinator.tell({ type: 'active' })
      this.#sections(configuration, pageSize)
      // With a return path the source keeps the channels open until it has our word. Their end is made early, so that
      // their threads end while the main channel is read on.
      channels.end(this.#returnPath!.opened)
      const { deviceState, vmdesc } = this.#deviceState()
      channels.drain()
      this.#acceptor?.checkExtra()
      this.#checkComplete(vmdesc)
      this.#target.complete(this.#loadedState(deviceState))
      shm.count(shm.coordinatorPlace, COUNTER.bytes, this.#reader.position - this.#mainBytesCounted())
      this.#sayWord()
    } catch (error) {
      this.#returnPath?.fail()
      throw error
    } finally {
      this.#acceptor?.close()
    }
  }

  #accept(): { main: Connection; connections: Connection[] } {
    const { from, uuid } = this.#plan
    const { shm, parameters, tls } = this.#coordinator
    const { helloTimeoutMs } = parameters
    let main: Connection
    let channels: Connection[] = []
    if (!('listener' in from)) {
      const fd = 'file' in from ? openToRead(from.file) : from.fd
      if (!isOpen(fd)) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `descriptor ${fd} is not open`)
      main = makeConnection(fd, tls)
    } else {
      this.#acceptor = new Acceptor({
        listener: from.listener,
        channels: shm.channels,
        uuid,
        helloTimeoutMs,
        tls,
        own: (connection) => this.#coordinator.own(connection),
        warn: (text) => this.#coordinator.tell({ type: 'warning', text }),
        checkStopped: () => this.#coordinator.checkStopped(),
      })
      ;({ main, channels } = this.#acceptor.collect())
      // Their threads, whose counters these are, have not got them yet.
      for (const id of channels.keys()) shm.count(id, COUNTER.bytes, INITIAL_PACKET_SIZE)
    }
    this.#main = this.#coordinator.openMain(main, (waitedMs) => this.#whileWaiting(waitedMs))
    if ('fd' in from) shakeHands(this.#main, tls, helloTimeoutMs)
    this.#reader = new StreamReader(this.#main)
    this.#returnPath = new ReturnPathWriter(this.#coordinator, this.#main)
    return { main, connections: channels }
  }

  // Runs every 100 ms or sooner while the main channel has nothing to say.
  #whileWaiting(waitedMs: number): void {
    this.#coordinator.checkStopped()
    this.#acknowledge()
    this.#acceptor?.checkExtra()
    this.#channels?.look()
    if (waitedMs < PROGRESS_MS) this.#coordinator.noteProgress()
    this.#coordinator.checkProgress(() => 'nothing came on any channel')
  }

  // Up to and including the RAM's last section.
  #sections(configuration: Configuration, pageSize: number): void {
    this.#coordinator.noteProgress()
    while (!this.#ramEnded) {
      const type = this.#reader.peekU8()
      if (type === -1) {
        throw new MultifdError('ERR_MULTIFD_CLOSED', 'main channel: the peer closed it before the end of RAM', {
          channel: 'main',
        })
      }
      if (type === SECTION.command) this.#obey(decodeCommand(this.#reader))
      else this.#section(configuration, pageSize)
      this.#acknowledge()
    }
  }

  // At once where no device of ours has a say, if a source waits for it then.
  #acknowledge(): void {
    const { shm } = this.#coordinator
    const unasked = this.#dialect?.switchoverAck === 'always'
    this.#returnPath!.acknowledge(() => (this.#plan.approvalWanted ? shm.approved : unasked))
  }

  #obey({ command, name, payload }: Command): void {
    switch (command) {
      case COMMAND.openReturnPath:
        this.#returnPath!.open()
        this.#acknowledge()
        return
      case COMMAND.ping: {
        const value = decodePing(payload)
        const agreed = value === ADAPTIVE_QUESTION && this.#agree()
        this.#returnPath!.pong(agreed ? ADAPTIVE_ANSWER : value)
        return
      }
      case COMMAND.switchoverStart:
        this.#switchoverStart = true
        return
      // Once its postcopy has begun, a source that is refused has stopped its guest for good.
      case COMMAND.postcopyAdvise: {
        const message = `command ${name} of the source is not supported: switch its capability 'postcopy-ram' off`
        throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message)
      }
      default:
        throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `command ${name} of the source is not supported`)
    }
  }

  // Before the RAM set-up only: no channel has a page by then.
  #agree(): boolean {
    const { shm, parameters } = this.#coordinator
    if (shm.channels === 0 || parameters.multifdCompression !== 'auto' || this.#ram || !hasZstd()) return false
    shm.agreeAdaptive()
    return true
  }

  #section(configuration: Configuration, pageSize: number): void {
    const header = decodeSectionHeader(this.#reader)
    // The RAM's first section's head is read with what comes before it.
    const next = header.type === SECTION.full ? this.#earlySection(header) : header
    if (!next) return
    if ('idstr' in next) this.#beginRam(next, configuration, pageSize)
    else if (next.sectionId !== this.#ramSectionId) {
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', `section ${next.sectionId} goes on without having begun`)
    }
    this.#ram!.loadSection()
    decodeFooter(this.#reader, next.sectionId)
    this.#ramEnded = header.type === SECTION.end
  }

  #beginRam(header: SectionIntroduction, configuration: Configuration, pageSize: number): void {
    const { sectionId, idstr, instanceId, versionId } = header
    if (idstr !== RAM_IDSTR) {
      throw new MultifdError(
        'ERR_MULTIFD_UNSUPPORTED',
        `section '${idstr}', sent while the guest runs, is not supported`,
      )
    }
    if (this.#ram || instanceId !== 0 || versionId !== RAM_SECTION_VERSION) {
      const message = `RAM section has instance ${instanceId}, version ${versionId}; expected 0, ${RAM_SECTION_VERSION}, once`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', message)
    }
    this.#ramSectionId = sectionId
    this.#ram = new RamLoad(this.#coordinator, this.#reader, this.#channels!, {
      pageSize,
      setUp: (total) => this.#setUpRam(configuration, pageSize, total),
      quiet: () => this.#acceptor?.checkExtra(),
    })
  }

  #setUpRam(configuration: Configuration, pageSize: number, total: number): LoadBlock[] {
    const { ignoreShared } = this.#coordinator.parameters
    const blocks = decodeRamSetup(this.#reader, total, { ignoreShared, mappedRam: false, pageSize })
    const loaded = this.#target.setUp({
      configuration,
      blocks,
      pageSize,
      ramSectionId: this.#ramSectionId,
      beforeRam: this.#early.bytes(false),
      uuid: this.#acceptor?.uuid,
    })
    this.#coordinator.tell({
      type: 'set-up',
      machineType: configuration.machineType,
      blocks: blocks.map(({ idstr, usedLength }) => ({ idstr, size: usedLength })),
      pageSize,
    })
    return loaded
  }

  // Returns the head of the RAM's section where it was read as well.
  #earlySection(header: SectionIntroduction): SectionIntroduction | undefined {
    const afterRam = this.#ram !== undefined
    if (this.#target.keepsDeviceState) {
      this.#early.read(this.#reader, header, afterRam)
      return undefined
    }
    if (!afterRam) return this.#early.readToRam(this.#reader, header)
    const message = `section '${header.idstr}' comes after the RAM set-up, where pages may have come already`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', message)
  }

  #deviceState(): DeviceState {
    try {
      return readDeviceState(this.#reader, {
        ramSectionId: this.#ramSectionId,
        staysOpen: this.#returnPath!.opened,
        moreComes: () => this.#main.waitReadable(QUIET_MS),
        checkedLater: !this.#target.keepsDeviceState,
      })
    } catch (thrown) {
      if (!(thrown instanceof CutShort)) throw thrown
      this.#target.complete(this.#loadedState(thrown.deviceState))
      throw thrown.error
    }
  }

  #checkComplete(vmdesc: Vmdesc | undefined): void {
    if (this.#plan.allowMissingPages) return
    const devices = [...(vmdesc?.devices.map(({ name }) => name) ?? []), ...this.#early.idstrs]
    const { ignoreShared } = this.#coordinator.parameters
    this.#ram!.checkComplete(mayLackPages({ devices, guest: this.#target.keepsDeviceState, ignoreShared }))
  }

  #loadedState(deviceState: Uint8Array): LoadedState {
    return { afterRam: this.#early.bytes(true), switchoverStart: this.#switchoverStart, deviceState }
  }

  #mainBytesCounted(): number {
    const { shm } = this.#coordinator
    return shm.counter(shm.coordinatorPlace, COUNTER.bytes)
  }

  #sayWord(): void {
    this.#returnPath!.succeed()
    this.#coordinator.shm.succeed()
    this.#coordinator.tell({ type: 'done' })
    this.#channels!.dismiss()
    this.#returnPath!.awaitClose()
  }
}
