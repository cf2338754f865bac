// The source's coordinator: connects, sends set-up, passes, switchover and device state, and waits for the word.

import { introduce } from '../channel/introduce.js'
import { noteLoaded, type ThreadOutcome } from '../channel/thread.js'
import { MultifdError } from '../errors.js'
import type { Channel } from '../io/channel.js'
import { connectTo } from '../io/connect.js'
import { makeConnection, openChannel, shakeHands } from '../io/connection.js'
import { dropStream, keepStream, openToWrite, type StreamPlace } from '../io/stream-file.js'
import { StreamWriter } from '../io/stream-writer.js'
import { monotonicMs } from '../os/clock.js'
import { fileError } from '../os/file.js'
import { isOpen, type SocketAddress } from '../os/socket.js'
import { RamBlock, type RamBlockHandle } from '../ram/block.js'
import { COUNTER } from '../shm/layout.js'
import { COMMAND, encodeCommand, encodePing } from '../wire/command.js'
import { dialectOf } from '../wire/machine.js'
import { INITIAL_PACKET_SIZE } from '../wire/multifd-initial.js'
import { encodeRamSetup, RAM_IDSTR, RAM_SECTION_VERSION, ramSetupSize } from '../wire/ram.js'
import {
  configurationSize,
  encodeConfiguration,
  encodeFooter,
  encodeSectionHeader,
  encodeSectionPart,
  encodeStreamHeader,
  IGNORE_SHARED,
  SECTION,
} from '../wire/stream.js'
import { agreeOnMethod } from './agreement.js'
import { Convergence } from './convergence.js'
import { Coordinator, type CoordinatorTask } from './coordinator.js'
import type { IgnoredShared } from './load-target.js'
import type { SwitchoverAnswer } from './messages.js'
import { RamSave } from './ram-save.js'
import { ReturnPath } from './return-path.js'
import { SendChannels } from './send-channels.js'
import type { Figures } from './statistics.js'

// Cancelled when all is sent: a round trip, and the loading of devices.
const LAST_WORD_MS = 2000
const LOOK_MS = 100
const FIRST_PING = 1
// Between signs of life: a destination's timeout for a transfer that rests is longer than that.
const ALIVE_MS = 2000

/** What is migrated, and to whom. */
export interface SourcePlan {
  /** Where to connect, the inherited descriptor that is connected already, or the file that keeps the stream. */
  destination: { addresses: SocketAddress[] } | { fd: number } | { file: StreamPlace }
  blocks: RamBlockHandle[]
  machineType: string
  /** Sent in the initial packets; in the configuration too if the destination is to check it. */
  uuid?: string
  validateUuid: boolean
  /** Log2 of the page size, where the machine's varies. */
  pageBits?: number
  /** The RAM section's id: no other section has it. */
  ramSectionId: number
  /** Sections before and after the RAM set-up, verbatim. */
  beforeRam: Uint8Array
  afterRam: Uint8Array
  switchoverStart: boolean
  /** Whether the destination says SWITCHOVER_ACK, and the program runs until then. */
  awaitAck: boolean
  /** What is listed and not sent, where both sides leave shared memory where it is. */
  ignoredShared?: IgnoredShared
}

export type SourceTask = CoordinatorTask & SourcePlan

export function runSource(task: SourceTask): ThreadOutcome {
  noteLoaded(task.shm)
  return Coordinator.run(task, 'src', (coordinator) => new SourceRun(coordinator, task).run())
}

class SourceRun {
  readonly #coordinator: Coordinator
  readonly #plan: SourcePlan
  readonly #writer: StreamWriter
  readonly #ram: RamSave
  readonly #returnPath: ReturnPath | undefined
  readonly #channels: SendChannels | undefined
  #aliveAt = 0
  // That the stream goes into.
  #file: (StreamPlace & { fd: number }) | undefined

  constructor(coordinator: Coordinator, plan: SourcePlan) {
    const { parameters } = coordinator
    const dialect = dialectOf(plan.machineType)
    this.#coordinator = coordinator
    this.#plan = plan
    const main = this.#connectMain()
    this.#writer = new StreamWriter(main)
    this.#returnPath = parameters.returnPath ? new ReturnPath(main) : undefined
    const detection = zeroPagesAt(parameters, plan.machineType)
    const sent = plan.blocks.filter(({ idstr }) => !plan.ignoredShared?.blocks.includes(idstr))
    const { pageSize } = plan.blocks[0]!
    if (parameters.multifd) this.#channels = new SendChannels(coordinator, pageSize, sent)
    this.#ram = new RamSave(coordinator, this.#writer, {
      blocks: sent.map((handle) => RamBlock.from(handle)),
      pageSize,
      channels: this.#channels,
      flush: dialect.flush,
      findZeroPages: detection === 'coordinator',
    })
  }

  run(): void {
    try {
      this.#connectChannels()
      this.#setUp()
      this.#passes()
      this.#switchover()
    } catch (error) {
      if (this.#file) dropStream(this.#file)
      throw this.#betterReason(error)
    } finally {
      this.#ram.stop()
    }
  }

  #connectMain(): Channel {
    const { tls, parameters } = this.#coordinator
    const fd = this.#descriptor()
    if (!isOpen(fd)) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `descriptor ${fd} is not open`)
    const main = this.#coordinator.openMain(makeConnection(fd, tls), (waitedMs) => {
      this.#coordinator.checkStopped()
      const { stallTimeoutMs } = parameters
      if (stallTimeoutMs > 0 && waitedMs > stallTimeoutMs) {
        const message = `main channel: stalled, the peer took nothing for ${stallTimeoutMs} ms`
        throw new MultifdError('ERR_MULTIFD_TIMEOUT', message, { channel: 'main' })
      }
    })
    // Before any other: a QEMU takes the first handshake that is over for the main channel's.
    shakeHands(main, tls, parameters.connectTimeoutMs)
    return main
  }

  #descriptor(): number {
    const { destination } = this.#plan
    if ('fd' in destination) return destination.fd
    if ('addresses' in destination) return this.#connect(destination.addresses)
    this.#file = { ...destination.file, fd: openToWrite(destination.file) }
    return this.#file.fd
  }

  #connect(addresses: SocketAddress[], shared = false): number {
    const { connectTimeoutMs } = this.#coordinator.parameters
    return connectTo(addresses, connectTimeoutMs, () => this.#coordinator.checkStopped(), shared)
  }

  // In order, and each with its initial packet at once: QEMU's destinations read it in their main loop. Handshakes are the
  // business of each channel's own thread, where it has one already.
  #connectChannels(): void {
    const { destination, uuid } = this.#plan
    const { shm, tls, parameters } = this.#coordinator
    const shared = shm.channels > 1
    for (let id = 0; id < shm.channels; id++) {
      if (!('addresses' in destination)) throw new MultifdError('ERR_MULTIFD_INTERNAL', 'channels over one descriptor')
      const fd = this.#connect(destination.addresses, shared)
      const connection = this.#coordinator.own(makeConnection(fd, tls))
      const { connectTimeoutMs: timeoutMs } = parameters
      const introduction = { uuid, ...(tls && { tls: { context: tls, timeoutMs } }) }
      // The thread, whose counter this is, has not got the channel yet.
      shm.count(id, COUNTER.bytes, INITIAL_PACKET_SIZE)
      if (tls && this.#channels!.hasThread(id)) this.#channels!.add(id, connection, introduction)
      else {
        const channel = openChannel(connection, id, this.#coordinator.channelWait(id))
        introduce(channel, introduction)
        this.#channels!.add(id, connection, undefined, channel)
      }
    }
  }

  #setUp(): void {
    const { machineType, uuid, validateUuid, pageBits, blocks, ramSectionId, ignoredShared } = this.#plan
    const writer = this.#writer
    const subsections = {
      ...(pageBits === undefined ? {} : { pageBits }),
      ...(ignoredShared && { capabilities: [IGNORE_SHARED] }),
      ...(validateUuid && uuid !== undefined ? { uuid } : {}),
    }
    const configuration = { machineType, subsections }
    writer.commit(encodeStreamHeader(writer.view, writer.reserve(8)))
    const size = configurationSize(configuration)
    writer.commit(encodeConfiguration(writer.view, writer.reserve(size), configuration))
    if (this.#returnPath) {
      this.#command(COMMAND.openReturnPath)
      this.#ping(FIRST_PING)
    }
    agreeOnMethod(this.#coordinator, this.#returnPath, (value) => {
      this.#ping(value)
      writer.flush()
    })
    writer.putBytes(this.#plan.beforeRam)
    const introduction = { sectionId: ramSectionId, idstr: RAM_IDSTR, instanceId: 0, versionId: RAM_SECTION_VERSION }
    writer.commit(encodeSectionHeader(writer.view, writer.reserve(32), SECTION.start, introduction))
    const entries = blocks.map(({ idstr, size: usedLength }) => {
      return { idstr, usedLength, ...(ignoredShared && { guestAddress: ignoredShared.addresses[idstr] ?? 0 }) }
    })
    writer.commit(encodeRamSetup(writer.view, writer.reserve(ramSetupSize(entries)), entries))
    this.#endSection()
    writer.putBytes(this.#plan.afterRam)
    writer.flush()
  }

  #ping(value: number): void {
    const writer = this.#writer
    writer.commit(encodePing(writer.view, writer.reserve(16), value))
  }

  #command(number: Parameters<typeof encodeCommand>[2], payload?: Uint8Array): void {
    const writer = this.#writer
    writer.commit(encodeCommand(writer.view, writer.reserve(5 + (payload?.length ?? 0)), number, payload))
  }

  #beginSection(type: typeof SECTION.part | typeof SECTION.end): void {
    const writer = this.#writer
    writer.commit(encodeSectionPart(writer.view, writer.reserve(8), type, this.#plan.ramSectionId))
  }

  #endSection(): void {
    const writer = this.#writer
    this.#ram.endRecords()
    writer.commit(encodeFooter(writer.view, writer.reserve(8), this.#plan.ramSectionId))
    writer.flush()
  }

  #passes(): void {
    this.#coordinator.tell({ type: 'active' })
    this.#ram.start()
    const convergence = new Convergence(this.#coordinator, this.#ram)
    do {
      convergence.beginPass()
      this.#beginSection(SECTION.part)
      this.#ram.savePass(false, convergence.overdue)
      this.#endSection()
      this.#returnPath?.poll()
    } while (!convergence.endPass() || !this.#agreed(convergence))
  }

  // Whether the destination's devices agree to the switchover. Waits for it while nothing becomes dirty: what does goes
  // first, so that the program stands still for no longer than it may.
  #agreed(convergence: Convergence): boolean {
    const returnPath = this.#returnPath
    if (!this.#plan.awaitAck || !returnPath || returnPath.acknowledged) return true
    do {
      if (convergence.overdue()) {
        const message = `the destination's devices did not agree to the switchover within ${this.#coordinator.parameters.timeoutMs} ms`
        throw new MultifdError('ERR_MULTIFD_TIMEOUT', message, { channel: 'main' })
      }
      returnPath.wait(LOOK_MS)
      this.#keepAlive()
      this.#coordinator.checkStopped()
      this.#ram.synchronise()
    } while (!returnPath.acknowledged && this.#ram.pendingPages === 0)
    return this.#ram.pendingPages === 0
  }

  #switchover(): void {
    const { shm } = this.#coordinator
    const stopped = performance.now()
    const answer = this.#coordinator.ask<SwitchoverAnswer>({ type: 'switchover', at: monotonicMs() }, () =>
      this.#keepAlive(),
    )
    this.#coordinator.beginPass()
    this.#ram.countMain()
    this.#coordinator.tell({ type: 'figures', figures: { precopyBytes: shm.sum(COUNTER.bytes, true) } })
    this.#ram.synchronise()
    this.#coordinator.setRemaining(this.#ram.pendingPages * this.#ram.pageSize)
    if (this.#plan.switchoverStart) this.#command(COMMAND.switchoverStart)
    this.#beginSection(SECTION.end)
    this.#ram.savePass(true)
    this.#endSection()
    this.#writer.putBytes(answer.deviceState)
    this.#coordinator.checkStopped()
    this.#writer.flush()
    this.#ram.countLast()
    this.#awaitWord()
    if (this.#file) keepStream(this.#file, this.#file.fd)
    shm.succeed()
    this.#coordinator.setRemaining(0)
    const figures: Partial<Figures> = { downtime: performance.now() - stopped }
    this.#coordinator.tell({ type: 'figures', figures })
    // Before the program goes on: its blocks are nobody's then.
    this.#ram.stop()
    this.#coordinator.tell({ type: 'done' })
    this.#channels?.quit()
  }

  // While the program has the word: the destination may fail, and must not take us for dead.
  #keepAlive(): void {
    if (!this.#returnPath) return
    this.#returnPath.poll()
    if (performance.now() < this.#aliveAt + ALIVE_MS) return
    this.#aliveAt = performance.now()
    this.#ping(FIRST_PING)
    this.#writer.flush()
  }

  // From here on the destination's word alone counts: the program may run there already, and one that was told to go on here
  // as well would be the second. So whoever cancels now waits for the word, for as long as a sound destination takes.
  #awaitWord(): void {
    if (!this.#returnPath) return
    const { completionTimeoutMs } = this.#coordinator.parameters
    const { shm } = this.#coordinator
    const began = performance.now()
    let stoppedAt: number | undefined
    for (;;) {
      this.#returnPath.poll()
      if (this.#returnPath.succeeded) return
      const now = performance.now()
      if (shm.stopped) stoppedAt ??= now
      if (stoppedAt !== undefined && now - stoppedAt > LAST_WORD_MS) this.#coordinator.checkStopped()
      if (completionTimeoutMs > 0 && now - began > completionTimeoutMs) {
        const message = `everything is sent, and the destination gave no word for ${completionTimeoutMs} ms`
        throw new MultifdError('ERR_MULTIFD_TIMEOUT', message, { channel: 'main' })
      }
      this.#returnPath.wait(LOOK_MS)
    }
  }

  // Where a write failed because the destination gave up, its own word says more than the broken connection.
  #betterReason(error: unknown): unknown {
    if (!(error instanceof MultifdError)) return error
    // A channel does not know what it writes to.
    if (this.#file && error.syscall === 'sendmsg' && error.errno !== undefined)
      return fileError(this.#file.path, 'write', error.errno)
    if (error.code !== 'ERR_MULTIFD_CLOSED' || !this.#returnPath) return error
    try {
      this.#returnPath.poll()
    } catch (word) {
      if ((word as MultifdError).code === 'ERR_MULTIFD_REMOTE') return word
    }
    return error
  }
}

/** Who looks for zero pages: the coordinator (records on the main channel), the channels (in packets), or nobody. */
export function zeroPagesAt(
  { multifd, zeroPageDetection }: { multifd: boolean; zeroPageDetection: string },
  machineType: string,
): 'coordinator' | 'channels' | 'nobody' {
  const wanted = zeroPageDetection === 'auto' ? dialectOf(machineType).zeroPages : zeroPageDetection
  if (wanted === 'none') return 'nobody'
  return wanted === 'multifd' && multifd ? 'channels' : 'coordinator'
}
