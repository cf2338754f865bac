// A migration of another process as its QMP tells it, look by look, and what has changed from one look to the next.

import { MultifdError } from '../../errors.js'
import type { QmpClient } from '../../qmp/client.js'
import { QmpError } from '../../qmp/error.js'
import { processorTime } from './load.js'

/** query-migrate's answer, as far as it is looked at; every member may be missing. Sizes in bytes, times in ms. */
export interface MigrateInfo {
  status?: string
  'error-desc'?: string
  'total-time'?: number
  'setup-time'?: number
  downtime?: number
  'expected-downtime'?: number
  'cpu-throttle-percentage'?: number
  ram?: Partial<Record<string, number>>
  'xbzrle-cache'?: Partial<Record<string, number>>
}

export interface ThreadLoad {
  name: string
  'thread-id': number
  /** Percent of a processor since the look before; left out where the process is not of this machine. */
  cpu?: number
}

/** One look. What QMP tells, and rates since the look before, in bytes a second. */
export interface Look extends MigrateInfo {
  version: string
  /** `running`, `paused` …: of the program that is migrated. */
  'run-state': string
  rates?: { transferred: number; 'multifd-bytes': number; pages: number }
  /** How fast the program changes its memory, bytes a second. */
  dirtied?: number
  /** What is left would take so long at this rate, ms. */
  'remaining-time'?: number
  threads: ThreadLoad[]
}

interface Before {
  at: number
  ram: Partial<Record<string, number>>
  times: Map<number, number>
}

export class Watch {
  readonly #client: QmpClient
  readonly #version: string
  #before: Before | undefined
  /** A QEMU before 8.0, or since 11.0, does not tell its threads. */
  #tellsThreads = true

  constructor(client: QmpClient) {
    this.#client = client
    const { qemu, package: name } = client.version
    const number = `${qemu.major}.${qemu.minor}.${qemu.micro}`
    this.#version = name === 'multifd' ? `multifd (QMP ${number})` : `QEMU ${number}`
  }

  /** @throws MultifdError as {@link QmpClient.command}, ERR_MULTIFD_REMOTE where a command is refused */
  async look(): Promise<Look> {
    const at = performance.now()
    const info = checkInfo(await this.#ask('query-migrate'))
    const { status: runState } = (await this.#ask('query-status')) as { status?: unknown }
    const threads = await this.#threads()
    const times = new Map<number, number>()
    if (this.#client.local) {
      for (const { name, 'thread-id': id } of threads) {
        const time = processorTime(id, name)
        if (time !== undefined) times.set(id, time)
      }
    }
    const { ram = {} } = info
    const before = this.#before
    this.#before = { at, ram, times }
    const look: Look = { version: this.#version, 'run-state': String(runState ?? ''), ...info, threads }
    // In the first pass nobody knows yet.
    const known = ram['dirty-pages-rate'] !== undefined && (ram['dirty-sync-count'] ?? 0) > 1
    if (known) look.dirtied = ram['dirty-pages-rate']! * (ram['page-size'] ?? 0)
    if (!before) return look
    const seconds = Math.max(0.001, (at - before.at) / 1000)
    look.threads = threads.map((thread) => {
      const id = thread['thread-id']
      const [now, then] = [times.get(id), before.times.get(id)]
      return now === undefined || then === undefined ? thread : { ...thread, cpu: (now - then) / 10 / seconds }
    })
    // Another migration begins at nothing.
    const since = (name: string): number => Math.max(0, ((ram[name] ?? 0) - (before.ram[name] ?? 0)) / seconds)
    if (info.ram) {
      const transferred = since('transferred')
      look.rates = { transferred, 'multifd-bytes': since('multifd-bytes'), pages: since('normal') + since('duplicate') }
      if (transferred > 0 && ram['remaining'] !== undefined) {
        look['remaining-time'] = (ram['remaining'] / transferred) * 1000
      }
    }
    return look
  }

  async #threads(): Promise<ThreadLoad[]> {
    if (!this.#tellsThreads) return []
    try {
      const list = await this.#ask('query-migrationthreads')
      if (!Array.isArray(list)) return []
      return list.map((thread) => ({ name: String(thread?.name), 'thread-id': Number(thread?.['thread-id']) }))
    } catch (error) {
      if (!(error instanceof MultifdError && error.cause instanceof QmpError)) throw error
      this.#tellsThreads = false
      return []
    }
  }

  async #ask(command: string): Promise<unknown> {
    try {
      return await this.#client.command(command)
    } catch (cause) {
      if (!(cause instanceof QmpError)) throw cause
      throw new MultifdError('ERR_MULTIFD_REMOTE', cause.message, { cause })
    }
  }
}

// What a peer says is looked at before it is reckoned with.
function checkInfo(answer: unknown): MigrateInfo {
  const numbers = (value: unknown): Partial<Record<string, number>> =>
    Object.fromEntries(Object.entries(value ?? {}).filter(([, member]) => typeof member === 'number'))
  const { status, 'error-desc': error, ram, 'xbzrle-cache': cache, ...rest } = (answer ?? {}) as Record<string, unknown>
  const times = numbers(rest) as MigrateInfo
  return {
    ...(typeof status === 'string' && { status }),
    ...(typeof error === 'string' && { 'error-desc': error }),
    ...times,
    ...(ram !== undefined && { ram: numbers(ram) }),
    ...(cache !== undefined && { 'xbzrle-cache': numbers(cache) }),
  }
}
