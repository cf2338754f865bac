// Temporary files: where they go, and that none stays; and memory that is free for a run.

import { accessSync, constants, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { adviseHugePages, mapAnonymous, populate } from '../src/os/memory.js'

const TMPFS = '/dev/shm'

/** A folder in memory; the system's place for temporary files where there is none. */
export function tmpfsFolder(): string {
  try {
    accessSync(TMPFS, constants.W_OK)
    return TMPFS
  } catch {
    return tmpdir()
  }
}

/** For a process that is about to end and can wait for nothing. */
export function removeNow(path: string): void {
  rmSync(path, { recursive: true, force: true })
}

/**
 * Touches as much free memory as a run takes, and returns what frees it. A virtual machine's host takes back what is free
 * for a moment, and the next touch costs many times what it costs this machine: a chance that is none of the runs' doing.
 */
export function holdMemory(bytes: number): () => void {
  const mapping = mapAnonymous(bytes + bytes / 4)
  adviseHugePages(mapping.address, mapping.length)
  populate(mapping.address, mapping.length)
  return () => mapping.unmap()
}
