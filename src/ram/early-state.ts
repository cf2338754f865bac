// A sparse block's early state: what a destination must know, and check, before any page of it arrives.

import { MultifdError } from '../errors.js'
import { protocolError } from '../wire/bytes.js'
import type { RamBlock } from './block.js'
import type { RamDiscardManager } from './discard-manager.js'

/** What never changes of a sparse block. Bytes. */
export interface SparseProperties {
  address: number
  size: number
  granuleSize: number
}

/** What is populated of it. */
export interface PopulatedMap {
  /** In all. */
  bytes: number
  /** Granule k is bit k % 8 of byte k / 8. */
  bitmap: Uint8Array
}

export function propertiesOf(block: RamBlock): SparseProperties {
  const { address, granuleSize } = managerOf(block)
  return { address, size: block.size, granuleSize }
}

export function populatedMapOf(block: RamBlock): PopulatedMap {
  const manager = managerOf(block)
  const { granuleSize, granules, populatedBytes } = manager
  const bitmap = new Uint8Array(Math.ceil(granules / 8))
  manager.replayPopulated((offset, length) => {
    const end = (offset + length) / granuleSize
    for (let granule = offset / granuleSize; granule < end; granule++) bitmap[granule >> 3]! |= 1 << (granule & 7)
  })
  return { bytes: populatedBytes, bitmap }
}

/** @throws MultifdError ERR_MULTIFD_BLOCK for another address, size or granule size than this side's */
export function checkProperties(block: RamBlock, theirs: SparseProperties): void {
  const ours = propertiesOf(block)
  for (const [key, what] of [
    ['address', 'address'],
    ['size', 'size'],
    ['granuleSize', 'granule size'],
  ] as const) {
    if (theirs[key] === ours[key]) continue
    const message = `block '${block.idstr}': ${what} ${theirs[key]} at the source, ${ours[key]} here`
    throw new MultifdError('ERR_MULTIFD_BLOCK', message)
  }
}

/**
 * Makes this side's map the same as the source's.
 *
 * @throws MultifdError ERR_MULTIFD_PROTOCOL for a map that contradicts itself; what {@link RamDiscardManager.populate} and
 * `discard` throw
 */
export function loadPopulatedMap(block: RamBlock, { bytes, bitmap }: PopulatedMap): void {
  const manager = managerOf(block)
  const has = (granule: number): boolean => (bitmap[granule >> 3]! & (1 << (granule & 7))) !== 0
  let granules = 0
  for (let granule = 0; granule < manager.granules; granule++) if (has(granule)) granules++
  const counted = granules * manager.granuleSize
  if (counted !== bytes) {
    throw protocolError(`block '${block.idstr}' has ${bytes} bytes populated, its map says ${counted}`)
  }
  manager.become(has)
}

function managerOf(block: RamBlock): RamDiscardManager {
  if (block.discardManager) return block.discardManager
  throw new MultifdError('ERR_MULTIFD_BLOCK', `block '${block.idstr}' is not sparse on this side`)
}
