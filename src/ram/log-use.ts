// Whose the kernel's log of some memory is, in the program's thread: a migration or a background snapshot goes before a
// measurement.

import type { RamBlock } from './block.js'

/** Somebody who has the log and can do without. */
export interface Measuring {
  readonly blocks: readonly RamBlock[]
  /** Gives the log back; resolves when it is free. */
  giveWay(): Promise<void>
}

const claims = new Set<readonly RamBlock[]>()
const measuring = new Set<Measuring>()

/** A migration or a snapshot has the log of these, until the function that is returned is called. */
export function claimLog(blocks: readonly RamBlock[]): () => void {
  // Of its own: two may have one list.
  const claim = [...blocks]
  claims.add(claim)
  return () => claims.delete(claim)
}

/** Whether a migration or a snapshot has the log of any of these. */
export function isLogClaimed(blocks: readonly RamBlock[]): boolean {
  return [...claims].some((claim) => overlap(claim, blocks))
}

/** Measures these with the log until the function that is returned is called. */
export function measureWithLog(entry: Measuring): () => void {
  measuring.add(entry)
  return () => measuring.delete(entry)
}

/** Resolves when no measurement has the log of any of these; undefined where none has it, and nothing is to be waited for. */
export function logFree(blocks: readonly RamBlock[]): Promise<void> | undefined {
  const found = [...measuring].filter((entry) => overlap(entry.blocks, blocks))
  if (found.length === 0) return undefined
  return Promise.all(found.map((entry) => entry.giveWay())).then(() => logFree(blocks))
}

// By address: two blocks may have the same memory.
function overlap(some: readonly RamBlock[], others: readonly RamBlock[]): boolean {
  return some.some(({ address, size }) => {
    return others.some((other) => address < other.address + other.size && other.address < address + size)
  })
}
