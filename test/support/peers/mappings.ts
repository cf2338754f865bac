// What of a process's mappings can only be a migration's or a snapshot's, of the many that its engine and its threads have.

import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export interface OwnMappings {
  /** Files and memory with a name that are mapped, but for code. */
  files: string[]
  /** Bytes that a userfaultfd watches over. */
  watched: number
  /** Bytes of address space that are set aside: the engine does that for shared memories, gigabytes for each. */
  reserved: number
}

const PATIENCE_MS = 5000
const RESERVED_MIN = 2 ** 30
const WATCHES = ['um', 'uw', 'ui']

/** Of this process (proc_pid_smaps(5)). */
export function ownMappings(): OwnMappings {
  const files = new Map<string, string[]>()
  const code = new Set<string>()
  let watched = 0
  let reserved = 0
  let size = 0
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const [, from, to, rights, inode, path] = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$/.exec(line) ?? []
    if (rights !== undefined) {
      size = Number.parseInt(to!, 16) - Number.parseInt(from!, 16)
      if (rights.startsWith('---') && size >= RESERVED_MIN) reserved += size
      if (inode === '0') continue
      if (rights.includes('x')) code.add(path!)
      files.set(path!, [...(files.get(path!) ?? []), `${path} (${size} bytes)`])
    } else if (line.startsWith('VmFlags:') && WATCHES.some((flag) => line.split(' ').includes(flag))) watched += size
  }
  return { files: [...files].flatMap(([path, mapped]) => (code.has(path) ? [] : mapped)), watched, reserved }
}

/** What is mapped now and was not before. Shared memories wait for collections of garbage: see {@link sharedMemoryLeft}. */
export function mappingsLeft(before: OwnMappings): string[] {
  const now = ownMappings()
  const known = [...before.files]
  const left = now.files.filter((what) => {
    const at = known.indexOf(what)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
  if (now.watched > before.watched) left.push(`${now.watched - before.watched} bytes under a userfaultfd`)
  return left
}

let collect: (() => void) | undefined

/** Bytes of address space that the engine has for shared memories, but for those that are only garbage. */
export function sharedMemory(): number {
  if (!collect) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
  return ownMappings().reserved
}

/** Waits until there is no more than before, once threads that had some are gone; says what else there is. */
export async function sharedMemoryLeft(before: number): Promise<string[]> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const more = sharedMemory() - before
    if (more <= 0) return []
    if (performance.now() > deadline) return [`shared memory, ${more} bytes of address space`]
    await delay(20)
  }
}
