// Which pages a source may rightly leave out.

import { type LoadBlock, nothingCame } from '../ram/load-block.js'

export interface Sender {
  /** Paths of its devices, as its vmdesc and its early sections name them. */
  devices: string[]
  /** Whether it is a machine with device state, and not a program. */
  guest: boolean
  ignoreShared: boolean
}

/**
 * Whether a block may lack pages. A balloon gives pages back, and virtio-mem's memory may be unplugged: such pages are never
 * sent. Of a program's own blocks it is known what is unplugged.
 */
export function mayLackPages({ devices, guest, ignoreShared }: Sender): (block: LoadBlock) => boolean {
  const balloon = devices.some((name) => name.endsWith('/virtio-balloon'))
  const pluggable = devices.filter((name) => guest && /\/virtio-mem(-device-early)?$/.test(name))
  // A QEMU's block has the device's path before its own name, a program's that name alone.
  const paths = pluggable.map((name) => name.slice(0, name.lastIndexOf('/') + 1))
  // A program's blocks say that they are shared; a QEMU does not, and of its shared ones nothing comes.
  const left = (block: LoadBlock): boolean => {
    return ignoreShared && (guest ? nothingCame(block) : block.inPlace?.shared === true)
  }
  return (block) => balloon || left(block) || paths.some((path) => `${block.idstr}/`.startsWith(path))
}
