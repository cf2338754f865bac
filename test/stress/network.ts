// A network namespace for the destination, and a link to it that delays, throttles, loses and reorders packets.

import { execFileSync } from 'node:child_process'
import { CallChild } from '../support/calls.js'
import { plainEnvironment } from '../support/environment.js'
import { onProcessEnd } from '../support/qemu/cleanup.js'
import type { NetworkShape } from './draw.js'
import type { LinkCalls, LinkCounts } from './processes/link.js'

/** By what packets are shaped: the kernel's traffic control, or a process of ours that carries them from one TUN to another. */
export type LinkKind = 'netem' | 'tun'

/** How a run's network is made. */
export type Via = LinkKind | 'proxy' | 'loopback'

const PATIENCE_MS = 10_000
// Jumbo frames: a process carries some tens of thousands of packets a second.
const MTU = 9000

/** Two addresses of RFC 2544's 198.18.0.0/15, which nobody routes: no other process has the same. */
function addressesOf(pid: number): { ours: string; theirs: string } {
  const first = (pid % 2 ** 15) * 4
  const address = (at: number): string => `198.${18 + (at >> 16)}.${(at >> 8) & 0xff}.${at & 0xff}`
  return { ours: address(first + 1), theirs: address(first + 2) }
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

export class Namespace {
  readonly kind: LinkKind
  readonly address: string
  readonly #ours: string
  readonly #name: string
  readonly #near: string
  readonly #far: string
  /** With a TUN. */
  readonly #link: CallChild<LinkCalls> | undefined

  private constructor(name: string, kind: LinkKind) {
    this.#name = name
    this.#near = `${name}a`
    this.#far = `${name}b`
    this.kind = kind
    const { ours, theirs } = addressesOf(process.pid)
    this.address = theirs
    this.#ours = ours
    if (kind === 'netem') return
    const file = new URL('./processes/link.js', import.meta.url)
    this.#link = new CallChild(file, 'link', { env: plainEnvironment(), patienceMs: PATIENCE_MS })
  }

  /**
   * Makes a namespace that is joined to ours by a link that can be shaped.
   *
   * @returns why not, where the rights or the kernel are not there
   */
  static async make(): Promise<Namespace | string> {
    const why: string[] = []
    for (const kind of ['netem', 'tun'] as const) {
      const namespace = new Namespace(`mfd${process.pid}`, kind)
      const untrack = onProcessEnd(() => namespace.#delete())
      try {
        await namespace.#join()
        return namespace
      } catch (error) {
        why.push(`${kind}: ${reason(error)}`)
        await namespace.remove()
        untrack()
      }
    }
    return why.join('; ')
  }

  /** What starts a process in there: the program, and what comes before its own arguments. */
  get prefix(): string[] {
    return ['ip', 'netns', 'exec', this.#name]
  }

  /** Shapes both directions; without a network nothing happens to a packet. */
  async shape(network: NetworkShape | undefined, seed = 0): Promise<void> {
    if (this.#link) return await this.#link.call('shape', network ? { network, seed } : null)
    this.#tc('del')
    if (network) this.#tc('add', ...netem(network))
  }

  /** Packets so far; undefined where the kernel carries them. */
  async counts(): Promise<LinkCounts | undefined> {
    return await this.#link?.call('counts', undefined)
  }

  async remove(): Promise<void> {
    // It would read from interfaces that are gone.
    await this.#link?.[Symbol.asyncDispose]()
    this.#delete()
  }

  async #join(): Promise<void> {
    run('ip', 'netns', 'add', this.#name)
    if (this.#link) {
      await this.#link.call('open', [this.#near, this.#far])
      run('ip', 'link', 'set', this.#far, 'netns', this.#name)
    } else {
      run('ip', 'link', 'add', this.#near, 'type', 'veth', 'peer', 'name', this.#far, 'netns', this.#name)
    }
    run('ip', 'address', 'add', `${this.#ours}/30`, 'dev', this.#near)
    run('ip', 'link', 'set', this.#near, 'mtu', `${MTU}`, 'up')
    this.#inside('ip', 'address', 'add', `${this.address}/30`, 'dev', this.#far)
    this.#inside('ip', 'link', 'set', this.#far, 'mtu', `${MTU}`, 'up')
    this.#inside('ip', 'link', 'set', 'lo', 'up')
    if (this.kind === 'netem') {
      this.#tc('add', 'delay', '1ms')
      this.#tc('del')
    }
  }

  #delete(): void {
    try {
      // Its interface goes with it; of a pair, ours with that.
      run('ip', 'netns', 'del', this.#name)
    } catch {
      // It is gone.
    }
  }

  #inside(...command: string[]): void {
    const [program, ...args] = [...this.prefix, ...command]
    run(program!, ...args)
  }

  #tc(verb: 'add' | 'del', ...what: string[]): void {
    const args = (device: string): string[] => ['qdisc', verb, 'dev', device, 'root', 'netem', ...what]
    try {
      run('tc', ...args(this.#near))
      this.#inside('tc', ...args(this.#far))
    } catch (error) {
      // There may be none to take away.
      if (verb === 'add') throw error
    }
  }
}

/** By what a drawn network can be had; what that can not do of it is left out. */
export function viaOf(network: NetworkShape | undefined, kind: LinkKind | undefined, proxied: boolean): Via {
  if (!network && !proxied) return 'loopback'
  return proxied || !kind ? 'proxy' : kind
}

/** Whether the destination is in the namespace. */
export function isApart(via: Via): via is LinkKind {
  return via === 'netem' || via === 'tun'
}

function netem({ delayMs, jitterMs, lossPercent, reorderPercent, rate }: NetworkShape): string[] {
  const args = ['limit', '10000']
  if (delayMs > 0) args.push('delay', `${delayMs}ms`)
  if (jitterMs > 0) args.push(`${jitterMs}ms`)
  if (lossPercent > 0) args.push('loss', `${lossPercent}%`)
  if (reorderPercent > 0) args.push('reorder', `${reorderPercent}%`)
  if (rate > 0) args.push('rate', `${rate * 8}bit`)
  return args
}

function reason(error: unknown): string {
  const { stderr, message } = error as { stderr?: Buffer; message: string }
  return (stderr?.toString() || message).trim().split('\n')[0]!
}
