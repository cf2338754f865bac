// Memory made resident before pages arrive, in parallel; what can not be had is said early, and ends nothing else.

import { availableParallelism } from 'node:os'
import { MultifdError } from '../errors.js'
import { NO_ROOM } from '../os/memory.js'
import { hugePageRoom, type MemoryRoom, memoryRoom, type RoomSources } from '../os/memory-room.js'
import { populateWriteLater } from '../os/residency.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { RamBlock } from './block.js'

export interface PreallocateOptions {
  /** Threads of the process's own pool that take part. Default: as many as there are cores, at most 3 of its 4. */
  threads?: number
  signal?: AbortSignal
  /** Where the figures of what is free come from, for tests. */
  sources?: RoomSources
  /** Fault points that are armed, for tests: see docs/faults.md. */
  faults?: FaultPoints | undefined
}

// Small enough for a call to be over soon: first touch has been seen at 300 MB/s on virtual machines.
const CHUNK_BYTES = 2 ** 24
// Left for everybody else.
const RESERVE_BYTES = 2 ** 26
const THREADS_MAX = 3

interface Range {
  block: RamBlock
  offset: number
  length: number
}

/**
 * Makes what is populated of the blocks resident: all of a block that is not sparse.
 *
 * What is free is looked at first, and again as it goes: the kernel gives memory away that it does not have, and ends a
 * process when that comes out.
 *
 * @throws MultifdError ERR_MULTIFD_FILE when memory, huge pages or the disk have not got that much; ERR_MULTIFD_ABORTED
 */
export async function preallocate(blocks: readonly RamBlock[], options: PreallocateOptions = {}): Promise<void> {
  const { sources, signal, faults, threads = Math.min(availableParallelism(), THREADS_MAX) } = options
  const ranges = chunksOf(blocks)
  checkRoom(blocks, sources)
  let next = 0
  let failure: MultifdError | undefined
  const work = async (): Promise<void> => {
    while (next < ranges.length && !failure) {
      const range = ranges[next++]!
      try {
        if (signal?.aborted) {
          throw new MultifdError('ERR_MULTIFD_ABORTED', 'preallocation was cancelled', { cause: signal.reason })
        }
        checkStillRoom(range, sources)
        const refused = faults?.happens('no-resident-memory') ?? false
        if (!refused && (await populateWriteLater(range.block.address + range.offset, range.length))) continue
        throw new MultifdError('ERR_MULTIFD_FILE', `block '${range.block.idstr}' can not be preallocated: ${NO_ROOM}`)
      } catch (error) {
        failure ??= MultifdError.from(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.max(1, threads) }, work))
  if (failure) throw failure
}

function chunksOf(blocks: readonly RamBlock[]): Range[] {
  const ranges: Range[] = []
  for (const block of blocks) {
    const chunk = Math.max(CHUNK_BYTES, block.backing.unit)
    block.replayPopulated((offset, length) => {
      for (let at = 0; at < length; at += chunk) {
        ranges.push({ block, offset: offset + at, length: Math.min(chunk, length - at) })
      }
    })
  }
  return ranges
}

// Blocks that draw on one store are counted together.
function checkRoom(blocks: readonly RamBlock[], sources?: RoomSources): void {
  const needed = new Map<string, { bytes: number; block: RamBlock }>()
  for (const block of blocks) {
    const store = storeOf(block)
    if (store === undefined) continue
    const entry = needed.get(store) ?? { bytes: 0, block }
    block.replayPopulated((offset, length) => {
      entry.bytes += length - block.residentBytes(offset, length)
    })
    needed.set(store, entry)
  }
  for (const { bytes, block } of needed.values()) {
    const room = roomOf(block, sources)
    if (bytes <= room.available) continue
    const names = blocks.filter((other) => storeOf(other) === storeOf(block)).map(({ idstr }) => `'${idstr}'`)
    const message =
      `preallocating ${names.join(', ')} needs ${bytes} bytes, and there are ${Math.floor(room.available)}` +
      ` (${room.limit}${block.backing.kind === 'huge' ? '' : `, less ${RESERVE_BYTES} for the rest`})`
    throw new MultifdError('ERR_MULTIFD_FILE', message)
  }
}

function checkStillRoom({ block, length }: Range, sources?: RoomSources): void {
  // Huge pages are counted by the kernel itself, which refuses; of a disk the same is true.
  if (storeOf(block) !== 'memory') return
  const room = roomOf(block, sources)
  if (room.available >= length) return
  throw new MultifdError('ERR_MULTIFD_FILE', `memory ran short while '${block.idstr}' was preallocated: ${room.limit}`)
}

function storeOf({ backing }: RamBlock): string | undefined {
  if (backing.kind === 'file') return undefined // the page cache gives way, and a full disk is an error of its own
  return backing.kind === 'huge' ? `huge ${backing.unit}` : 'memory'
}

function roomOf({ backing }: RamBlock, sources?: RoomSources): MemoryRoom {
  if (backing.kind === 'huge') return hugePageRoom(backing.unit, sources)
  const { available, limit } = memoryRoom(sources)
  return { available: Math.max(available - RESERVE_BYTES, 0), limit }
}
