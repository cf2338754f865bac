// A QEMU to threads of Node that only read, a packet's bytes a call: the most that a receiver made of them can do.

import type { Pairing } from '../pairing.js'
import { fromQemu } from './from-qemu.js'
import type { Guests } from './guests.js'

export function qemuToBare(guests: Guests): Pairing {
  return fromQemu(guests, {
    name: 'qemu-bare',
    label: 'bare sockets',
    memories: ['touched', 'untouched'],
    process: () => 'sink-destination',
    // Nobody is there who could give the word.
    returnPath: false,
  })
}
