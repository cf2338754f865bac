// How much memory can still be had, before it is taken: the kernel's OOM killer asks nobody.

import { readFileSync } from 'node:fs'

const KIB = 1024

/** Where the figures are read from; a test has files of its own. */
export interface RoomSources {
  /** Default /proc. */
  proc?: string
  /** Where cgroups are mounted. Default /sys/fs/cgroup. */
  cgroups?: string
  /** Default /sys/kernel/mm/hugepages. */
  hugePages?: string
}

/** What limits the memory that can still be had. */
export interface MemoryRoom {
  /** Bytes. */
  available: number
  /** What says so, for an error's text. */
  limit: string
}

/** Bytes that can be had: the machine's MemAvailable, or less where a control group of this process allows less. */
export function memoryRoom(sources: RoomSources = {}): MemoryRoom {
  const { proc = '/proc', cgroups = '/sys/fs/cgroup' } = sources
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(read(`${proc}/meminfo`) ?? '')?.[1]
  let room: MemoryRoom = { available: kib ? Number(kib) * KIB : Infinity, limit: 'MemAvailable of the machine' }
  for (const line of (read(`${proc}/self/cgroup`) ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (path === undefined) continue
    const found =
      controllers === ''
        ? groupRoom(cgroups, path, 'memory.max', 'memory.current', 'inactive_file')
        : controllers!.split(',').includes('memory')
          ? groupRoom(
              `${cgroups}/memory`,
              path,
              'memory.limit_in_bytes',
              'memory.usage_in_bytes',
              'total_inactive_file',
            )
          : undefined
    if (found && found.available < room.available) room = found
  }
  return room
}

// Each group's ancestors limit it too. In a container the path may be one that is not visible: its root is then ours.
function groupRoom(mount: string, path: string, limit: string, usage: string, reclaimable: string) {
  let least: MemoryRoom | undefined
  for (let at = path; ; at = at.slice(0, at.lastIndexOf('/'))) {
    const folder = `${mount}${at === '/' ? '' : at}`
    const bytes = Number(read(`${folder}/${limit}`) ?? Number.NaN)
    const used = Number(read(`${folder}/${usage}`) ?? Number.NaN)
    if (Number.isFinite(bytes) && Number.isFinite(used)) {
      // The page cache that nobody looked at lately is given up first.
      const spare = Number(
        new RegExp(`^${reclaimable} (\\d+)`, 'm').exec(read(`${folder}/memory.stat`) ?? '')?.[1] ?? 0,
      )
      const available = Math.max(bytes - used + spare, 0)
      if (!least || available < least.available) least = { available, limit: `${limit} of control group ${at || '/'}` }
    }
    if (at === '' || at === '/') return least
  }
}

/** Bytes of free huge pages of a size, those that are reserved for somebody left out. */
export function hugePageRoom(unit: number, sources: RoomSources = {}): MemoryRoom {
  const folder = `${sources.hugePages ?? '/sys/kernel/mm/hugepages'}/hugepages-${unit / KIB}kB`
  const count = (name: string): number => Number(read(`${folder}/${name}`) ?? 0)
  const pages = count('free_hugepages') - count('resv_hugepages')
  return { available: Math.max(pages, 0) * unit, limit: `free huge pages of ${unit / KIB} KiB` }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined // a kernel, or a container, without it
  }
}
