// A network namespace for the destination, and what the kernel's traffic control does between it and us.

import { execFileSync } from 'node:child_process'
import { onProcessEnd } from '../support/qemu/cleanup.js'
import type { NetworkShape } from './draw.js'

/** Two addresses of RFC 2544's 198.18.0.0/15, which nobody routes: no other process has the same. */
function addressesOf(pid: number): { ours: string; theirs: string } {
  const first = (pid % 2 ** 15) * 4
  const address = (at: number): string => `198.${18 + (at >> 16)}.${(at >> 8) & 0xff}.${at & 0xff}`
  return { ours: address(first + 1), theirs: address(first + 2) }
}

/** What of traffic control the kernel has. */
export interface Means {
  netem: boolean
  tbf: boolean
}

/** How a run's network is made. */
export type Via = 'netem' | 'tbf' | 'proxy' | 'loopback'

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

export class Namespace {
  readonly means: Means
  readonly address: string
  readonly #ours: string
  readonly #name: string
  readonly #near: string
  readonly #far: string

  private constructor(name: string, means: Means) {
    this.#name = name
    this.#near = `${name}a`
    this.#far = `${name}b`
    this.means = means
    const { ours, theirs } = addressesOf(process.pid)
    this.address = theirs
    this.#ours = ours
  }

  /**
   * Makes a namespace that is joined to ours by a pair of interfaces, and sees what the kernel can do there.
   *
   * @returns why not, where the rights or the kernel are not there
   */
  static make(): Namespace | string {
    const name = `mfd${process.pid}`
    const namespace = new Namespace(name, { netem: false, tbf: false })
    try {
      run('ip', 'netns', 'add', name)
    } catch (error) {
      return `no network namespace: ${reason(error)}`
    }
    onProcessEnd(() => namespace.remove())
    try {
      run('ip', 'link', 'add', namespace.#near, 'type', 'veth', 'peer', 'name', namespace.#far, 'netns', name)
      run('ip', 'address', 'add', `${namespace.#ours}/30`, 'dev', namespace.#near)
      run('ip', 'link', 'set', namespace.#near, 'up')
      namespace.#inside('ip', 'address', 'add', `${namespace.address}/30`, 'dev', namespace.#far)
      namespace.#inside('ip', 'link', 'set', namespace.#far, 'up')
      namespace.#inside('ip', 'link', 'set', 'lo', 'up')
    } catch (error) {
      namespace.remove()
      return `no pair of network interfaces: ${reason(error)}`
    }
    namespace.means.netem = namespace.#can('netem', 'delay', '1ms')
    namespace.means.tbf = namespace.#can('tbf', 'rate', '10mbit', 'burst', '64kb', 'latency', '50ms')
    return namespace
  }

  /** What starts a process in there: the program, and what comes before its own arguments. */
  get prefix(): string[] {
    return ['ip', 'netns', 'exec', this.#name]
  }

  /** Shapes both directions; without a network it is a plain pair of interfaces. */
  shape(network: NetworkShape | undefined, via: 'netem' | 'tbf' = 'tbf'): void {
    for (const side of ['near', 'far'] as const) {
      this.#tc(side, 'del', [])
      if (!network) continue
      const rate = `${network.rate * 8}bit`
      if (via === 'tbf') this.#tc(side, 'add', ['tbf', 'rate', rate, 'burst', '128kb', 'latency', '100ms'])
      else this.#tc(side, 'add', netem(network, rate))
    }
  }

  remove(): void {
    try {
      // Its interface goes with it, and ours with that.
      run('ip', 'netns', 'del', this.#name)
    } catch {
      // It is gone.
    }
  }

  #inside(...command: string[]): void {
    const [program, ...args] = [...this.prefix, ...command]
    run(program!, ...args)
  }

  #tc(side: 'near' | 'far', verb: 'add' | 'del', what: string[]): void {
    const args = ['tc', 'qdisc', verb, 'dev', side === 'near' ? this.#near : this.#far, 'root', ...what]
    try {
      if (side === 'far') this.#inside(...args)
      else run(args[0]!, ...args.slice(1))
    } catch (error) {
      // There may be none to take away.
      if (verb === 'add') throw error
    }
  }

  #can(...what: string[]): boolean {
    try {
      this.#tc('near', 'add', what)
    } catch {
      return false
    }
    this.#tc('near', 'del', [])
    return true
  }
}

/** By what a drawn network can be had; what that can not do of it is left out. */
export function viaOf(network: NetworkShape | undefined, means: Means | undefined, proxied: boolean): Via {
  if (!network && !proxied) return 'loopback'
  if (proxied || !means) return 'proxy'
  if (means.netem) return 'netem'
  // What tbf can do, and nothing else is asked for.
  return means.tbf && network!.rate > 0 && network!.delayMs === 0 ? 'tbf' : 'proxy'
}

function netem({ delayMs, jitterMs, lossPercent, reorderPercent, rate }: NetworkShape, bits: string): string[] {
  const args = ['netem', 'limit', '10000']
  if (delayMs > 0) args.push('delay', `${delayMs}ms`)
  if (jitterMs > 0) args.push(`${jitterMs}ms`)
  if (lossPercent > 0) args.push('loss', `${lossPercent}%`)
  if (reorderPercent > 0) args.push('reorder', `${reorderPercent}%`)
  if (rate > 0) args.push('rate', bits)
  return args
}

function reason(error: unknown): string {
  const { stderr, message } = error as { stderr?: Buffer; message: string }
  return (stderr?.toString() || message).trim().split('\n')[0]!
}
