// A snapshot, sent by the library, to a QEMU.

import { Child } from '../child.js'
import type { Pairing } from '../pairing.js'
import type { SourceCalls } from '../processes/calls.js'
import type { Guests } from './guests.js'
import { toQemu } from './to-qemu.js'

export function snapshotToQemu(guests: Guests): Pairing {
  return toQemu(guests, { name: 'snapshot-qemu', label: 'multifd (snapshot)' }, async () => {
    const path = await guests.snapshot()
    const source = new Child<SourceCalls>('snapshot-source')
    await source.call('prepare', { ...guests.session, path })
    return source
  })
}
