// Child process: keeps a guest in its memory, and sends it as often as wanted.

import { GuestReceiver } from '../../src/index.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import { type GuestSourceCalls, timed } from './calls.js'

let receiver: GuestReceiver

serve<GuestSourceCalls>({
  async prepare() {},
  async listen({ channels, method }) {
    receiver = new GuestReceiver({ parameters: { multifdChannels: channels, ...parametersOf(method) } })
    return await receiver.listen('tcp:127.0.0.1:0')
  },
  async received() {
    await receiver.completed
  },
  async send({ uri, channels, method }) {
    const parameters = { multifdChannels: channels, ...parametersOf(method) }
    await using source = receiver.guest.source({ parameters })
    return await timed(source, () => source.migrate(uri))
  },
  digest: () => '',
})
