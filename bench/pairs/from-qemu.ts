// A QEMU to a process that has no guest: the library, or bare sockets.

import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { onProcessEnd } from '../../test/support/qemu/cleanup.js'
import { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import type { Measurement, Memory, Pairing, Shape } from '../pairing.js'
import type { DestinationCalls } from '../processes/calls.js'
import { removeNow } from '../temporary.js'
import { type Guests, migrated, timesOf } from './guests.js'

export interface FromQemu extends Pick<Pairing, 'name' | 'label' | 'memories'> {
  /** File of bench/processes that receives into such memory. */
  process(memory: Memory): string
  /** Whether the QEMU waits for the destination's word. */
  returnPath: boolean
}

export function fromQemu(guests: Guests, { name, label, memories, process: entry, returnPath }: FromQemu): Pairing {
  const { version, session } = guests
  return {
    name: `${name}-${version}`,
    label: `QEMU ${version} → ${label}`,
    memories,
    available: () => guests.available(),
    async run({ channels, memory, method }: Shape): Promise<Measurement> {
      const { bytes, tmpfs, disk } = session
      const source = await guests.source()
      const path = join(memory === 'tmpfs' ? tmpfs : disk, `multifd-bench-${process.pid}.snapshot`)
      const files = [path, `${path}.partial`, `${path}.meta`]
      const untrack = onProcessEnd(() => files.forEach(removeNow))
      try {
        await using destination = new Child<DestinationCalls>(entry(memory))
        await destination.call('prepare', { bytes, touched: memory === 'touched', path })
        return await metered(
          { source: source.pid!, destination: destination.pid },
          ramOf(session, memory),
          () => destination.call('listen', { channels, method }),
          async (uri, begins) => {
            begins()
            const info = await migrated(source, uri, channels, method, returnPath)
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
