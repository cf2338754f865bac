// What a process has, and whether it becomes more.

import { readdirSync, readFileSync } from 'node:fs'

/** What a process has: open descriptors, threads, and memory of its own in MiB. */
export interface Possessions {
  descriptors: number
  threads: number
  memory: number
}

/** @param blockBytes of the store's block, which is not counted: it has what the clients put there */
export function look(pid: number, blockBytes: number): Possessions {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  const memory = (of('RssAnon') + of('RssShmem') - residentOf(pid, blockBytes)) / 1024
  return { descriptors: readdirSync(`/proc/${pid}/fd`).length, threads: of('Threads'), memory }
}

// Of the mapping that has just this size: KiB that are resident.
function residentOf(pid: number, bytes: number): number {
  const maps = readFileSync(`/proc/${pid}/smaps`, 'utf8')
  const [, rss = '0'] = new RegExp(`^Size: +${bytes / 1024} kB\\n(?:.*\\n){2}Rss: +(\\d+) kB`, 'm').exec(maps) ?? []
  return Number(rss)
}

/** How much a process has more at its last looks than at its first ones: the least of each third. */
export function growth(looks: Possessions[], of: keyof Possessions): number {
  const third = Math.max(1, Math.floor(looks.length / 3))
  const least = (some: Possessions[]): number => Math.min(...some.map((one) => one[of]))
  return least(looks.slice(-third)) - least(looks.slice(0, third))
}
