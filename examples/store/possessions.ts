// What a process has, and whether it becomes more.

import { readdirSync, readFileSync } from 'node:fs'

/** What a process has: open descriptors, threads, and memory of its own in MiB. */
export interface Possessions {
  descriptors: number
  threads: number
  memory: number
}

export function look(pid: number): Possessions {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  // The store's block is shared anonymous memory or private, by the engine's choice: all that is not a file's counts.
  const memory = (of('RssAnon') + of('RssShmem')) / 1024
  return { descriptors: readdirSync(`/proc/${pid}/fd`).length, threads: of('Threads'), memory }
}

/** How much a process has more at its last looks than at its first ones: the least of each third. */
export function growth(looks: Possessions[], of: keyof Possessions): number {
  const third = Math.max(1, Math.floor(looks.length / 3))
  const least = (some: Possessions[]): number => Math.min(...some.map((one) => one[of]))
  return least(looks.slice(-third)) - least(looks.slice(0, third))
}
