// A sparse block as a device: QEMU's virtio-mem, whose early section has what never changes of it, and what is plugged.

import type { RamBlock } from '../ram/block.js'
import { checkProperties, loadPopulatedMap, populatedMapOf, propertiesOf } from '../ram/early-state.js'
import { type DescribedDevice, device } from '../vmstate/device.js'
import { bitmap, describe, END_OF_LIST, u32, u64, withTmp } from '../vmstate/index.js'
import { argumentError, CSTR8_MAX, protocolError } from '../wire/bytes.js'
import { VIRTIO_MEM_EARLY_SUFFIX } from '../wire/virtio-mem.js'

interface SparseState {
  readonly block: RamBlock
  size: number
  bitmap: Uint8Array
}

interface Properties {
  readonly parent: SparseState
  addr: number
  region_size: number
  block_size: number
  node: number
}

// Compared before the map is read, whose length follows from them.
const properties = describe<Properties>({
  name: 'virtio-mem-device/sanity-checks',
  versionId: 0,
  fields: [
    u64('addr', { as: 'number' }),
    u64('region_size', { as: 'number' }),
    u64('block_size', { as: 'number' }),
    u32('node'),
    END_OF_LIST,
  ],
  preSave(state) {
    const { address, size, granuleSize } = propertiesOf(state.parent.block)
    Object.assign(state, { addr: address, region_size: size, block_size: granuleSize, node: 0 })
  },
  postLoad({ parent, addr, region_size: size, block_size: granuleSize, node }) {
    checkProperties(parent.block, { address: addr, size, granuleSize })
    if (node !== 0) throw protocolError(`node is ${node}, expected 0`)
  },
})

const early = describe<SparseState>({
  name: 'virtio-mem-device-early',
  early: true,
  fields: [
    withTmp(properties, {
      create: (parent: SparseState) => ({ parent, addr: 0, region_size: 0, block_size: 0, node: 0 }),
    }),
    u64('size', { as: 'number' }),
    bitmap('bitmap', { bits: ({ block }: SparseState) => block.discardManager!.granules }),
    END_OF_LIST,
  ],
  preSave(state) {
    const { bytes, bitmap: map } = populatedMapOf(state.block)
    state.size = bytes
    state.bitmap = map
  },
  postLoad({ block, size, bitmap: map }) {
    loadPopulatedMap(block, { bytes: size, bitmap: map })
  },
})

/**
 * A device for each sparse block among `ram`.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT for a name that leaves no room for the section's
 */
export function sparseDevices(ram: readonly RamBlock[]): DescribedDevice[] {
  const sparse = ram.filter(({ discardManager }) => discardManager !== undefined)
  return sparse.map((block) => {
    const idstr = block.idstr + VIRTIO_MEM_EARLY_SUFFIX
    if (idstr.length > CSTR8_MAX) {
      const most = CSTR8_MAX - VIRTIO_MEM_EARLY_SUFFIX.length
      throw argumentError(`sparse block '${block.idstr}': its name may have ${most} bytes at most`)
    }
    return device(early, { block, size: 0, bitmap: new Uint8Array() }, { idstr })
  })
}
