// A sparse block's early state: what a destination must know, and check, before any page of it arrives.
//
// The payload is virtio-mem's (src/wire/virtio-mem.ts): address, size and granule size, which never change, and the map.

import { MultifdError } from '../errors.js'
import { protocolError } from '../wire/bytes.js'
import { isPlugged, type VirtioMemEarly } from '../wire/virtio-mem.js'
import type { RamBlock } from './block.js'
import type { RamDiscardManager } from './discard-manager.js'

const BLOCKS_PER_WORD = 64

/** What the source says of a sparse block. */
export function earlyStateOf(block: RamBlock): VirtioMemEarly {
  const manager = sparse(block)
  const { granuleSize, granules, address } = manager
  const bitmap = new Uint8Array(Math.ceil(granules / BLOCKS_PER_WORD) * 8)
  manager.replayPopulated((offset, length) => {
    const end = (offset + length) / granuleSize
    for (let granule = offset / granuleSize; granule < end; granule++) plug(bitmap, granule)
  })
  return {
    addr: address,
    regionSize: block.size,
    blockSize: granuleSize,
    node: 0,
    size: manager.populatedBytes,
    bitmap,
  }
}

// Granule k is bit k % 64 of word k / 64, and the words are big-endian: see isPlugged.
function plug(bitmap: Uint8Array, granule: number): void {
  const byte = Math.floor(granule / BLOCKS_PER_WORD) * 8 + 7 - ((granule % BLOCKS_PER_WORD) >> 3)
  bitmap[byte] = bitmap[byte]! | (1 << (granule & 7))
}

/**
 * Takes over what a source said of a sparse block: checks what never changes, then makes this side's map the same.
 *
 * @throws MultifdError ERR_MULTIFD_BLOCK for another address, size or granule size; ERR_MULTIFD_PROTOCOL for a map that
 * contradicts itself; what {@link RamDiscardManager.populate} and `discard` throw
 */
export function loadEarlyState(block: RamBlock, theirs: VirtioMemEarly): void {
  const manager = sparse(block)
  checkSame(block, 'address', theirs.addr, manager.address)
  checkSame(block, 'size', theirs.regionSize, block.size)
  checkSame(block, 'granule size', theirs.blockSize, manager.granuleSize)
  checkSame(block, 'node', theirs.node, 0)
  const granules = theirs.bitmap.length * 8
  let plugged = 0
  for (let granule = 0; granule < granules; granule++) {
    if (!isPlugged(theirs.bitmap, granule)) continue
    if (granule >= manager.granules) throw protocolError(`the map of block '${block.idstr}' has a granule past its end`)
    plugged++
  }
  if (plugged * manager.granuleSize !== theirs.size) {
    const counted = plugged * manager.granuleSize
    throw protocolError(`block '${block.idstr}' has ${theirs.size} bytes populated, its map says ${counted}`)
  }
  manager.become((granule) => isPlugged(theirs.bitmap, granule))
}

function checkSame(block: RamBlock, what: string, theirs: number, ours: number): void {
  if (theirs === ours) return
  throw new MultifdError('ERR_MULTIFD_BLOCK', `block '${block.idstr}': ${what} ${theirs} at the source, ${ours} here`)
}

function sparse(block: RamBlock): RamDiscardManager {
  if (block.discardManager) return block.discardManager
  throw new MultifdError('ERR_MULTIFD_BLOCK', `block '${block.idstr}' is not sparse on this side`)
}
