// One QEMU to another.

import { metered, ramOf } from '../meter.js'
import { MEMORIES, type Measurement, type Pairing, type Shape, STEP_MS } from '../pairing.js'
import { type Guests, listening, migrated, timesOf } from './guests.js'

export function qemuToQemu(guests: Guests): Pairing {
  const { version, session } = guests
  return {
    name: `qemu-qemu-${version}`,
    label: `QEMU ${version} → QEMU ${version}`,
    memories: MEMORIES,
    available: () => guests.available(),
    async run({ channels, memory, method }: Shape): Promise<Measurement> {
      const source = await guests.source()
      await using destination = await guests.destination(memory)
      return await metered(
        { source: source.pid!, destination: destination.pid! },
        ramOf(session, memory),
        () => listening(destination, channels, method),
        async (uri, begins) => {
          begins()
          const info = await migrated(source, uri, channels, method)
          await destination.waitMigration('completed', STEP_MS)
          return timesOf(info, session)
        },
      )
    },
    async [Symbol.asyncDispose]() {},
  }
}
