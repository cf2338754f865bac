// One run of a receiver over a descriptor, how it ended, and the sum of many runs.

import type { MessagePort } from 'node:worker_threads'
import { RecvLoop } from '../../src/channel/recv-loop.js'
import { type ErrorCode, MultifdError, type PlainError } from '../../src/errors.js'
import { DescriptorChannel } from '../../src/io/descriptor-channel.js'
import { StreamReader } from '../../src/io/stream-reader.js'
import { type MethodName, RecvMethods } from '../../src/method/methods.js'
import { runDestination } from '../../src/migration/destination-coordinator.js'
import { readDeviceState } from '../../src/migration/device-state.js'
import { type LoadedState, type LoadSetup, type LoadTarget, ProgramTarget } from '../../src/migration/load-target.js'
import { completeParameters } from '../../src/migration/parameters.js'
import { ProgramLoad, programDevices } from '../../src/migration/program-state.js'
import type { RamBlock } from '../../src/ram/block.js'
import type { LoadBlock } from '../../src/ram/load-block.js'
import { CHANNEL, CHANNEL_STATE } from '../../src/shm/layout.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'
import { PacketMemory } from '../../src/shm/packet-memory.js'
import { PAGE } from './arena.js'

const { MULTIFD_INPUT } = process.env
/** Whether every length and ten times as many mutations are to be tried: MULTIFD_INPUT=full. */
export const FULL = MULTIFD_INPUT === 'full'

/** No run waits longer than this for a byte, ms: all bytes are there before a run begins, or are being written. */
const STALL_MS = 2000
/** A run that takes longer hangs, ms. */
const HANG_MS = 5000

// Of a hundred thousand expected errors, the stacks would be most of the time.
Error.stackTraceLimit = 0

/** How a run ended: cleanly, or with an error of ours. `defect` is anything else that was thrown. */
export interface Ending {
  code: ErrorCode | 'end'
  error?: PlainError
  defect?: unknown
}

/** A thrown value as an ending. */
export function endingOf(thrown: unknown): Ending {
  if (thrown instanceof MultifdError) return { code: thrown.code, error: thrown.toPlain(), defect: undefined }
  return { code: 'ERR_MULTIFD_INTERNAL', defect: thrown }
}

function openChannel(fd: number, name: 'main' | number): DescriptorChannel {
  return new DescriptorChannel(fd, name, (waitedMs) => {
    if (waitedMs > STALL_MS) throw new MultifdError('ERR_MULTIFD_TIMEOUT', `nothing came for ${STALL_MS} ms`)
  })
}

const PACKET = PacketMemory.alone()

/** Receives a multifd channel, from after its initial packet on; its barriers are passed at once. Closes `fd`. */
export function receiveChannel(fd: number, blocks: LoadBlock[], agreed: MethodName | 'auto' = 'auto'): Ending {
  const channel = openChannel(fd, 0)
  let barriers = 0
  const methods = new RecvMethods(agreed)
  try {
    new RecvLoop({
      channel,
      packet: PACKET,
      methods,
      pageSize: PAGE,
      blocks: () => (barriers > 0 ? blocks : undefined),
      reachBarrier: () => ++barriers,
      passBarrier() {},
      ending: () => false,
      counted() {},
    }).run()
    return { code: 'end' }
  } catch (thrown) {
    return endingOf(thrown)
  } finally {
    methods.close()
    channel.close()
  }
}

/** Receives into given blocks as a program without devices does, or keeps device state as a snapshot does. */
export class ArenaTarget implements LoadTarget {
  readonly keepsDeviceState: boolean
  readonly #program: ProgramTarget

  constructor(blocks: RamBlock[], machineType: string, keepsDeviceState = true) {
    const load = new ProgramLoad(blocks, programDevices([]), false)
    this.#program = new ProgramTarget(blocks, machineType, (message) => {
      if (message.type === 'load-devices') load.finish(message.deviceState)
    })
    this.keepsDeviceState = keepsDeviceState
  }

  setUp(setup: LoadSetup): LoadBlock[] {
    return this.#program.setUp(setup)
  }

  complete(state: LoadedState): void {
    if (!this.keepsDeviceState) this.#program.complete(state)
  }

  close(): void {}
}

const NOBODY = { postMessage() {} } as unknown as MessagePort

/**
 * Receives a main stream as the coordinator's thread does. Of `channels` multifd channels, the threads are already
 * through: every barrier finds them there. Closes `fd`.
 */
export function receiveMain(fd: number, makeTarget: () => LoadTarget, channels: number, ignoreShared = false): Ending {
  const shm = MigrationShm.create({ channels, pagesPerPacket: 128, dirtyWords: 0 })
  for (let channel = 0; channel < channels; channel++) {
    shm.setChannelWord(channel, CHANNEL.syncs, 0x7fffffff)
    shm.setChannelWord(channel, CHANNEL.state, CHANNEL_STATE.ended)
  }
  const ports = Array.from({ length: channels }, () => NOBODY)
  const parameters = completeParameters({ stallTimeoutMs: STALL_MS, ignoreShared })
  const coordinator = { shm: shm.handle, ports, toProgram: NOBODY, parameters }
  try {
    const { error } = runDestination({ ...coordinator, from: { fd }, allowMissingPages: channels > 0 }, makeTarget)
    return error ? { code: error.code, error } : { code: 'end' }
  } catch (thrown) {
    return endingOf(thrown)
  }
}

/** Reads what follows RAM's last section, to the end. Closes `fd`. */
export function receiveDeviceState(fd: number, ramSectionId: number): Ending {
  const channel = openChannel(fd, 'main')
  try {
    readDeviceState(new StreamReader(channel), {
      ramSectionId,
      staysOpen: false,
      moreComes: () => false,
      checkedLater: false,
    })
    return { code: 'end' }
  } catch (thrown) {
    return endingOf(thrown)
  } finally {
    channel.close()
  }
}

/** What bytes of a peer's may end in: never a defect of ours, and nothing that blames the caller or the clock. */
export const PEER_CODES: ReadonlySet<string> = new Set([
  'end',
  'ERR_MULTIFD_BARRIER',
  'ERR_MULTIFD_BLOCK',
  'ERR_MULTIFD_CLOSED',
  'ERR_MULTIFD_DEVICE',
  'ERR_MULTIFD_MACHINE',
  'ERR_MULTIFD_PROTOCOL',
  'ERR_MULTIFD_TRUNCATED',
  'ERR_MULTIFD_UNSUPPORTED',
])

const SHOWN = 5

/** Adds runs up, and keeps the first that did not end as they may. */
export class Tally {
  runs = 0
  readonly problems: string[] = []
  readonly #counts = new Map<string, number>()
  readonly #began = performance.now()
  #slowest = 0

  /** Runs once. `allowed` are the endings that are right; `what` says in words what was received. */
  run(receive: () => Ending, allowed: ReadonlySet<string> | string, what: () => string): Ending {
    const { ending, took } = timed(receive)
    this.runs++
    this.#slowest = Math.max(this.#slowest, took)
    this.#counts.set(ending.code, (this.#counts.get(ending.code) ?? 0) + 1)
    const right = typeof allowed === 'string' ? ending.code === allowed : allowed.has(ending.code)
    if (ending.defect !== undefined || !right) {
      const wanted = typeof allowed === 'string' ? `, expected ${allowed}` : ''
      this.problem(`${what()}: ${ending.code}${wanted} ${describeDefect(ending)}`)
    }
    // The whole process may have stood still: what hangs hangs again.
    if (took > HANG_MS && timed(receive).took > HANG_MS) this.problem(`${what()}: took ${took.toFixed(0)} ms`)
    return ending
  }

  problem(text: string): void {
    if (this.problems.length < SHOWN) this.problems.push(text)
    else this.problems[SHOWN] = 'and more'
  }

  count(code: string): number {
    return this.#counts.get(code) ?? 0
  }

  get summary(): string {
    const counts = [...this.#counts].sort().map(([code, count]) => `${code.replace('ERR_MULTIFD_', '')} ${count}`)
    const seconds = ((performance.now() - this.#began) / 1000).toFixed(1)
    return `${this.runs} runs in ${seconds} s, the slowest ${this.#slowest.toFixed(1)} ms: ${counts.join(', ')}`
  }
}

function timed(receive: () => Ending): { ending: Ending; took: number } {
  const began = performance.now()
  const ending = receive()
  return { ending, took: performance.now() - began }
}

function describeDefect({ error, defect }: Ending): string {
  if (defect !== undefined) return defect instanceof Error ? (defect.stack ?? defect.message) : String(defect)
  return error ? `(${error.message})` : ''
}
