// A guest that the library keeps in its memory, to a QEMU.

import { Child } from '../child.js'
import type { Pairing } from '../pairing.js'
import type { GuestSourceCalls } from '../processes/calls.js'
import { type Guests, migrated } from './guests.js'
import { toQemu } from './to-qemu.js'

const SETUP = { channels: 2, method: 'none' } as const

export function usToQemu(guests: Guests): Pairing {
  return toQemu(guests, { name: 'us-qemu', label: 'multifd (memory)' }, async () => {
    const source = await guests.source()
    const keeper = new Child<GuestSourceCalls>('guest-source')
    await migrated(source, await keeper.call('listen', SETUP), SETUP.channels)
    await keeper.call('received', null)
    return keeper
  })
}
