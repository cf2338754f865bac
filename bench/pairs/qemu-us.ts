// A QEMU to the library, which keeps the guest in its memory, or as a snapshot: a file in memory, or on the disk with the
// wait until it is there.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { onProcessEnd } from '../../test/support/qemu/cleanup.js'
import { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import { MEMORIES, type Measurement, type Pairing, type Shape } from '../pairing.js'
import type { DestinationCalls } from '../processes/calls.js'
import { removeNow } from '../temporary.js'
import { type Guests, migrated, timesOf } from './guests.js'

export function qemuToUs(guests: Guests): Pairing {
  const { version, session } = guests
  return {
    name: `qemu-us-${version}`,
    label: `QEMU ${version} → multifd`,
    memories: MEMORIES,
    available: () => guests.available(),
    async run({ channels, memory, method }: Shape): Promise<Measurement> {
      const { bytes, tmpfs, disk } = session
      const source = await guests.source()
      const path = join(memory === 'tmpfs' ? tmpfs : disk, `multifd-bench-${process.pid}.snapshot`)
      const files = [path, `${path}.partial`, `${path}.meta`]
      const untrack = onProcessEnd(() => files.forEach(removeNow))
      try {
        await using destination = new Child<DestinationCalls>(
          memory === 'tmpfs' || memory === 'disk' ? 'snapshot-destination' : 'guest-destination',
        )
        await destination.call('prepare', { bytes, touched: memory === 'touched', path })
        return await metered(
          { source: source.pid!, destination: destination.pid },
          ramOf(session, memory),
          () => destination.call('listen', { channels, method }),
          async (uri, begins) => {
            begins()
            const info = await migrated(source, uri, channels, method)
            await destination.call('completed', null)
            return timesOf(info, session)
          },
        )
      } finally {
        await Promise.all(files.map((file) => rm(file, { force: true })))
        untrack()
      }
    },
    async [Symbol.asyncDispose]() {},
  }
}
