// One run of the stress: a migration between two processes, what goes wrong in it, and what must hold afterwards.

import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { MigrationParameters } from '../../src/index.js'
import type { Disturbance, Run } from './draw.js'
import { isApart, type Via, viaOf } from './network.js'
import { type Outcome, wrongWith } from './outcome.js'
import type { Processes } from './processes.js'

// In a run that is disturbed: what nothing comes for is noticed by then.
const STALL_MS = 4000
// A side that is told by the other's end, or by its connections', on a busy machine.
const NOTICE_MS = 10_000
const UNHEARD_MS = 1000
const SETTLE_MS = 5000

type End = Outcome | 'killed'

export interface Result {
  run: Run
  via: Via
  source: End
  destination: End
  /** What was not as it must be. */
  wrong: string[]
  /** The source failed and the destination completed: the word was lost on its way. */
  inDoubt: boolean
  tookMs: number
}

export interface Surroundings {
  processes: Processes
  /** For the files and sockets of a run; it is emptied. */
  folder: string
  /** Of `keys.psk`. */
  tlsDir: string
}

/** Makes a run; never throws for what the engine does wrong. */
export async function perform(run: Run, surroundings: Surroundings): Promise<Result> {
  return await new Performance(run, surroundings).whole()
}

class Performance {
  readonly #run: Run
  readonly #processes: Processes
  readonly #folder: string
  readonly #tlsDir: string
  readonly #via: Via
  readonly #wrong: string[] = []

  constructor(run: Run, { processes, folder, tlsDir }: Surroundings) {
    this.#run = run
    this.#processes = processes
    this.#folder = folder
    this.#tlsDir = tlsDir
    const proxied = run.disturbance !== undefined && !('side' in run.disturbance)
    this.#via = viaOf(run.network, processes.namespace?.kind, proxied)
  }

  async whole(): Promise<Result> {
    const { disturbance } = this.#run
    const began = performance.now()
    let ends: [End, End] = ['killed', 'killed']
    try {
      this.#clear()
      const source = await this.#processes.source()
      await source.child.call('begin', { run: this.#run, folder: this.#folder })
      ends = await this.#migrate(disturbance)
      await this.#judge(...ends)
      if (disturbance) await this.#again()
      await this.#leavesNothing()
    } catch (error) {
      this.#wrong.push(`it broke off: ${(error as Error).message}`)
      await this.#processes.close()
    }
    const [source, destination] = ends
    const inDoubt = source !== 'killed' && source.status !== 'completed' && isCompleted(destination)
    const tookMs = performance.now() - began
    return { run: this.#run, via: this.#via, source, destination, wrong: this.#wrong, inDoubt, tookMs }
  }

  #clear(): void {
    rmSync(this.#folder, { recursive: true, force: true })
    mkdirSync(this.#folder, { recursive: true })
  }

  #parameters(disturbed: boolean): { source: Partial<MigrationParameters>; destination: Partial<MigrationParameters> } {
    const { channels, source, tls } = this.#run
    const credentials = tls ? { tls: { dir: this.#tlsDir, kind: 'psk' as const } } : {}
    const limits = disturbed
      ? {
          connectTimeoutMs: STALL_MS,
          stallTimeoutMs: STALL_MS,
          completionTimeoutMs: STALL_MS,
          helloTimeoutMs: STALL_MS,
        }
      : {}
    const common = { ...channels, ...credentials, ...limits }
    const { switchoverAck = false } = source
    return { source: { ...source, ...common }, destination: { ...common, switchoverAck } }
  }

  async #migrate(disturbance: Disturbance | undefined): Promise<[End, End]> {
    const apart = isApart(this.#via)
    const destination = await this.#processes.destination(apart)
    const parameters = this.#parameters(disturbance !== undefined)
    const of = (side: string) =>
      disturbance && 'side' in disturbance && disturbance.side === side ? { disturbance } : {}
    const bound = await destination.child.call('begin', {
      run: this.#run,
      folder: this.#folder,
      uri: this.#listenAt(apart),
      parameters: parameters.destination,
      ...of('destination'),
    })
    const uri = await this.#through(bound, disturbance)
    const { child } = await this.#processes.source()
    const came = ended(destination.child.call('outcome', undefined), destination.child)
    const went = ended(child.call('migrate', { uri, parameters: parameters.source, ...of('source') }), child)
    await Promise.race([came, went])
    const last = Promise.all([went, came])
    const alive = (): boolean => destination.child.end === undefined
    const status = async () => (alive() ? await destination.child.call('status', undefined) : 'killed')
    // One that nobody has reached, or not as one who has its key, listens for as long as it takes.
    const early = await Promise.race([last, delay(STALL_MS + UNHEARD_MS)])
    if (early) return early
    if ((await status()) !== 'setup') {
      const noticed = await Promise.race([last, delay(NOTICE_MS)])
      if (noticed) return noticed
      this.#wrong.push(`one side ended, and the other one did not notice (destination: ${await status()})`)
    }
    if (alive()) await destination.child.call('cancel', undefined)
    return await last
  }

  #listenAt(apart: boolean): string {
    if (this.#run.transport === 'unix') return `unix:${join(this.#folder, 'socket')}`
    return apart ? `tcp:${this.#processes.namespace!.address}:0` : 'tcp:127.0.0.1:0'
  }

  async #through(bound: string, disturbance: Disturbance | undefined): Promise<string> {
    const { network, seed, number } = this.#run
    if (isApart(this.#via)) await this.#processes.namespace!.shape(network, seed + number)
    if (this.#via !== 'proxy') return bound
    const { child } = await this.#processes.proxy()
    const port = Number(bound.split(':').at(-1))
    const plain = { delayMs: 0, jitterMs: 0, rate: 0, lossPercent: 0, reorderPercent: 0, fragments: 65536 }
    return await child.call('begin', {
      host: '127.0.0.1',
      port,
      network: network ?? plain,
      seed: seed + number,
      ...(disturbance && { disturbance }),
    })
  }

  async #judge(source: End, destination: End): Promise<void> {
    const { disturbance } = this.#run
    const told = (name: string, end: End): void => {
      const wrong = end === 'killed' ? undefined : wrongWith(end)
      if (wrong) this.#wrong.push(`${name}: ${wrong}`)
      const mayDie = disturbance?.kind === 'kill' && disturbance.side === name
      if (end === 'killed' && !mayDie) this.#wrong.push(`${name}: its process ended`)
      if (end !== 'killed' && end.status !== 'completed' && !disturbance) this.#wrong.push(`${name}: ${end.message}`)
    }
    told('source', source)
    told('destination', destination)
    if (isCompleted(source) && destination !== 'killed' && !isCompleted(destination)) {
      this.#wrong.push(`the source completed, and the destination did not: ${destination.message}`)
    }
    const late = disturbance && 'side' in disturbance && disturbance.side === 'source' && disturbance.at === 'completed'
    if (late && source === 'killed' && !isCompleted(destination)) {
      this.#wrong.push('the source was killed after it had completed, and the destination did not complete')
    }
    if (isCompleted(destination)) await this.#verify('destination')
    if (source !== 'killed') await this.#verify('source')
    const cancelled = disturbance?.kind === 'cancel' && disturbance.side === 'source'
    if (cancelled && source !== 'killed' && !isCompleted(source) && isCompleted(destination)) {
      this.#wrong.push('the source was cancelled, and the destination completed')
    }
  }

  async #verify(side: 'source' | 'destination'): Promise<void> {
    const apart = isApart(this.#via)
    const { child } = side === 'source' ? await this.#processes.source() : await this.#processes.destination(apart)
    const wrong = await (child.call as (name: 'verify', none: undefined) => Promise<string[]>).call(
      child,
      'verify',
      undefined,
    )
    this.#wrong.push(...wrong.map((what) => `${side}: ${what}`))
  }

  /** The next migration works; from a new program where the source was killed. */
  async #again(): Promise<void> {
    const { child } = await this.#processes.source()
    if (this.#via === 'proxy') await (await this.#processes.proxy()).child.call('end', undefined)
    await this.#processes.namespace?.shape(undefined)
    const running = await child.call('running', undefined)
    if (!running) {
      this.#clear()
      await child.call('begin', { run: this.#run, folder: this.#folder })
    }
    const apart = isApart(this.#via)
    const destination = await this.#processes.destination(apart)
    const { source: all, destination: there } = this.#parameters(false)
    const { multifd, multifdChannels, tls } = all as MigrationParameters
    const here = { multifd, multifdChannels, ...(tls && { tls }), maxPasses: 4, atLimit: 'switchover' as const }
    const begun = { run: this.#run, folder: this.#folder, uri: this.#listenAt(apart), parameters: there }
    const uri = await destination.child.call('begin', { ...begun, parameters: { ...there, switchoverAck: false } })
    const went = await child.call('migrate', { uri, parameters: here })
    if (went.status !== 'completed') await destination.child.call('cancel', undefined)
    const came = await destination.child.call('outcome', undefined)
    for (const { status, message } of [went, came]) {
      if (status !== 'completed') this.#wrong.push(`the next migration: ${status}, ${message}`)
    }
    if (came.status === 'completed') await this.#verify('destination')
  }

  async #leavesNothing(): Promise<void> {
    const apart = isApart(this.#via)
    await (await this.#processes.source()).child.call('end', undefined)
    await (await this.#processes.destination(apart)).child.call('end', undefined)
    const deadline = performance.now() + SETTLE_MS
    let left: string[]
    do {
      left = [...this.#processes.leftovers(this.#folder), ...this.#strangeFiles()]
      if (left.length > 0) await delay(50)
    } while (left.length > 0 && performance.now() < deadline)
    this.#wrong.push(...left.map((what) => `left behind: ${what}`))
  }

  // What the program itself made is the record and its mapped files.
  #strangeFiles(): string[] {
    const own = /^record$|^(source|destination)-block-\d+$/
    return readdirSync(this.#folder)
      .filter((name) => !own.test(name))
      .map((name) => `file ${name}`)
  }
}

function isCompleted(end: End): boolean {
  return end !== 'killed' && end.status === 'completed'
}

/** What a call came to; the process may have been killed meanwhile. */
async function ended(call: Promise<Outcome>, child: { end: string | undefined; ended: Promise<void> }): Promise<End> {
  try {
    return await call
  } catch (error) {
    if (child.end?.includes('SIGKILL')) return 'killed'
    throw error
  }
}
