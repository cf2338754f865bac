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

/** How much a process has more at the last look than at the first. */
export function growth(looks: Possessions[], of: keyof Possessions): number {
  return looks.at(-1)![of] - looks[0]![of]
}
