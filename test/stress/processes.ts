// The processes of a stress: a source's, a destination's, a proxy's; started as they are needed, and again when killed.

import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CallChild, type Calls } from '../support/calls.js'
import { plainEnvironment } from '../support/environment.js'
import { migrationThreads, openDescriptors } from '../support/peers/leftovers.js'
import type { Namespace } from './network.js'
import type { DestinationCalls } from './processes/destination.js'
import type { ProxyCalls } from './processes/proxy.js'
import type { SourceCalls } from './processes/source.js'

/** Longer than anything here may take; what has a limit of its own is held to that. */
const PATIENCE_MS = 120_000
// Where a line of /proc/PID/maps has the path.
const MAPS_PATH_AT = 73

/** A process, and what it had open before its first migration. */
export interface Member<C extends Calls<C>> {
  child: CallChild<C>
  log: string
  before: Map<number, string>
}

export class Processes {
  /** Where logs go. */
  readonly folder: string
  readonly namespace: Namespace | undefined
  readonly #members = new Map<string, Member<never>>()
  readonly #environment: NodeJS.ProcessEnv
  #started = 0

  /** @param environment of the processes, besides what every one of the tests has */
  constructor(folder: string, namespace?: Namespace, environment: NodeJS.ProcessEnv = {}) {
    this.#environment = environment
    this.folder = folder
    this.namespace = namespace
  }

  source(): Promise<Member<SourceCalls>> {
    return this.#member<SourceCalls>('source')
  }

  /** @param apart in a network namespace of its own */
  destination(apart = false): Promise<Member<DestinationCalls>> {
    return this.#member<DestinationCalls>('destination', apart)
  }

  proxy(): Promise<Member<ProxyCalls>> {
    return this.#member<ProxyCalls>('proxy')
  }

  async #member<C extends Calls<C>>(file: string, apart = false): Promise<Member<C>> {
    const key = apart ? `${file} apart` : file
    const there = this.#members.get(key) as Member<C> | undefined
    if (there && there.child.end === undefined) return there
    const log = join(this.folder, `${file}-${++this.#started}.log`)
    const fd = openSync(log, 'a')
    const node = [process.execPath, '--expose-gc']
    const [execPath, ...execArgv] = apart ? [...this.namespace!.prefix, ...node] : node
    const child = new CallChild<C>(new URL(`./processes/${file}.js`, import.meta.url), file, {
      stdio: ['ignore', fd, fd, 'ipc'],
      execPath: execPath!,
      execArgv,
      env: { ...plainEnvironment(), ...this.#environment },
      patienceMs: PATIENCE_MS,
    })
    closeSync(fd)
    await child.call('end' as never, undefined as never)
    const member: Member<C> = { child, log, before: openDescriptors(child.pid) }
    this.#members.set(key, member as Member<never>)
    return member
  }

  /** What these processes have of migrations that are over. Each is to have ended what it had. */
  leftovers(folder: string): string[] {
    return [...this.#members].flatMap(([name, { child, before }]) => {
      if (child.end !== undefined || name === 'proxy') return []
      const threads = [...migrationThreads(child.pid).values()].map((thread) => `thread ${thread}`)
      const known = new Set(before.values())
      const open = [...openDescriptors(child.pid).values()].filter((what) => !known.has(what))
      const mapped = mappings(child.pid).filter((path) => path.startsWith(folder))
      return [
        ...threads,
        ...open.map((what) => `descriptor of ${what}`),
        ...mapped.map((path) => `mapping of ${path}`),
      ].map((what) => `${name}: ${what}`)
    })
  }

  /** Log files of those that run. */
  get logs(): string[] {
    return [...this.#members.values()].map(({ log }) => log)
  }

  async close(): Promise<void> {
    for (const { child } of this.#members.values()) await child[Symbol.asyncDispose]()
  }
}

/** What a process maps, by path where there is one. */
export function mappings(pid: number): string[] {
  return readFileSync(`/proc/${pid}/maps`, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.slice(MAPS_PATH_AT).trim())
}
