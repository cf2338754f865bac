// A snapshot, sent by the library, to a QEMU.

import { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import { type Measurement, type Pairing, type Shape, STEP_MS } from '../pairing.js'
import type { SourceCalls } from '../processes/calls.js'
import { checkData, type Guests, listening } from './guests.js'

export function snapshotToQemu(guests: Guests): Pairing {
  const { version, session } = guests
  let source: Child<SourceCalls> | undefined
  async function prepared(): Promise<Child<SourceCalls>> {
    const path = await guests.snapshot()
    if (!source) {
      source = new Child<SourceCalls>('snapshot-source')
      await source.call('prepare', { ...session, path })
    }
    return source
  }
  return {
    name: `snapshot-qemu-${version}`,
    label: `multifd (snapshot) → QEMU ${version}`,
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
      await source?.[Symbol.asyncDispose]()
    },
  }
}
