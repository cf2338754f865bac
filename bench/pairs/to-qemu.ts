// What the library has of a guest, to a QEMU: a guest in its memory, or a snapshot.

import type { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import { type Pairing, STEP_MS } from '../pairing.js'
import type { SourceCalls } from '../processes/calls.js'
import { checkData, type Guests, listening } from './guests.js'

/** @param prepare starts the process that sends, with what it sends; called at the first run */
export function toQemu(
  guests: Guests,
  { name, label }: Pick<Pairing, 'name' | 'label'>,
  prepare: () => Promise<Child<SourceCalls>>,
): Pairing {
  const { version, session } = guests
  let sender: Child<SourceCalls> | undefined
  return {
    name: `${name}-${version}`,
    label: `${label} → QEMU ${version}`,
    memories: ['touched', 'untouched'],
    available: () => guests.available(),
    async run({ channels, memory, method }) {
      sender ??= await prepare()
      const source = sender
      await using destination = await guests.destination(memory)
      return await metered(
        { source: source.pid, destination: destination.pid! },
        ramOf(session, memory),
        () => listening(destination, channels, method),
        async (uri, begins) => {
          source.onSetUp = begins
          const times = await source.call('send', { uri, channels, method })
          await destination.waitMigration('completed', STEP_MS)
          checkData(times.dataBytes, session)
          return times
        },
      )
    },
    async [Symbol.asyncDispose]() {
      await sender?.[Symbol.asyncDispose]()
    },
  }
}
