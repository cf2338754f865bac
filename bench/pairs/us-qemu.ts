// A guest that the library keeps in its memory, to a QEMU.

import { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import { type Measurement, type Pairing, type Shape, STEP_MS } from '../pairing.js'
import type { GuestSourceCalls } from '../processes/calls.js'
import { checkData, type Guests, listening, migrated } from './guests.js'

const SETUP = { channels: 2, method: 'none' } as const

export function usToQemu(guests: Guests): Pairing {
  const { version, session } = guests
  let keeper: Child<GuestSourceCalls> | undefined
  async function prepared(): Promise<Child<GuestSourceCalls>> {
    const source = await guests.source()
    if (!keeper) {
      keeper = new Child<GuestSourceCalls>('guest-source')
      await migrated(source, await keeper.call('listen', SETUP), SETUP.channels)
      await keeper.call('received', null)
    }
    return keeper
  }
  return {
    name: `us-qemu-${version}`,
    label: `multifd (memory) → QEMU ${version}`,
    memories: ['touched', 'untouched'],
    available: () => guests.available(),
    async run({ channels, memory, method }: Shape): Promise<Measurement> {
      const sender = await prepared()
      await using destination = await guests.destination(memory)
      return await metered(
        { source: sender.pid, destination: destination.pid! },
        ramOf(session, memory),
        () => listening(destination, channels, method),
        async (uri, begins) => {
          sender.onSetUp = begins
          const times = await sender.call('send', { uri, channels, method })
          await destination.waitMigration('completed', STEP_MS)
          checkData(times.dataBytes, session)
          return times
        },
      )
    },
    async [Symbol.asyncDispose]() {
      await keeper?.[Symbol.asyncDispose]()
    },
  }
}
