// A QEMU to the library, which keeps the guest in its memory, or as a snapshot: a file in memory, or on the disk with the
// wait until it is there.

import { MEMORIES, type Pairing } from '../pairing.js'
import { fromQemu } from './from-qemu.js'
import type { Guests } from './guests.js'

export function qemuToUs(guests: Guests): Pairing {
  return fromQemu(guests, {
    name: 'qemu-us',
    label: 'multifd',
    memories: MEMORIES,
    process: (memory) => (memory === 'tmpfs' || memory === 'disk' ? 'snapshot-destination' : 'guest-destination'),
    returnPath: true,
  })
}
