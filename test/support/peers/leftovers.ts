// What a migration must not leave behind in a process: threads and descriptors.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'

const PATIENCE_MS = 5000
const EVENT_LOOP = new Set(['anon_inode:[eventpoll]', 'anon_inode:[eventfd]'])

// With its first stream, an event loop opens /dev/null for the day when it is out of descriptors: before anybody counts.
createServer().listen(0).close()

/** Names of a process's threads that belong to a migration, by id. */
export function migrationThreads(pid?: number): Map<number, string> {
  return threadsNamed((name) => name.startsWith('mig/'), pid)
}

/** Ids of this process's threads that wait for a migration. */
export function idleThreads(): number[] {
  return [...threadsNamed((name) => name === 'multifd/idle').keys()]
}

/** Names of a process's threads, by id; this one's by default. */
export function threadsNamed(wanted: (name: string) => boolean, pid: number | 'self' = 'self'): Map<number, string> {
  const threads = new Map<number, string>()
  for (const id of readdirSync(`/proc/${pid}/task`)) {
    try {
      const name = readFileSync(`/proc/${pid}/task/${id}/comm`, 'utf8').trim()
      if (wanted(name)) threads.set(Number(id), name)
    } catch {
      // It ended meanwhile.
    }
  }
  return threads
}

/** What a process has open, by descriptor, besides what threads that wait for a migration have for their event loops. */
export function openDescriptors(pid?: number): Map<number, string> {
  const open = allDescriptors(pid)
  const pipes = [...open.values()].filter((what) => what.startsWith('pipe:'))
  for (const [fd, what] of open) {
    // An event loop has both ends of its pipes.
    const both = pipes.filter((pipe) => pipe === what).length === 2
    if (both || EVENT_LOOP.has(what)) open.delete(fd)
  }
  return open
}

/** What a process has open, by descriptor; this one by default. */
export function allDescriptors(pid: number | 'self' = 'self'): Map<number, string> {
  const open = new Map<number, string>()
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      open.set(Number(fd), readlinkSync(`/proc/${pid}/fd/${fd}`))
    } catch {
      // The folder's own.
    }
  }
  return open
}

/** Waits until no thread of a migration is left and no more descriptors are open than before; says what else there is. */
export async function leftovers(before: Map<number, string>): Promise<{ threads: string[]; descriptors: string[] }> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const threads = [...migrationThreads().values()]
    const open = openDescriptors()
    const added = open.size <= before.size ? [] : [...open].filter(([fd, what]) => before.get(fd) !== what)
    const descriptors = added.map(([fd, what]) => `${fd} ${what}`)
    if ((threads.length === 0 && open.size <= before.size) || performance.now() > deadline)
      return { threads, descriptors }
    await delay(10)
  }
}

/** The same as assertions. */
export async function leavesNothing(t: Test, before: Map<number, string>): Promise<void> {
  const { threads, descriptors } = await leftovers(before)
  t.strictSame(threads, [], 'no thread of a migration is left')
  t.strictSame(descriptors, [], 'no descriptor is left open')
}
