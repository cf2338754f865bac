// Child process: receives a guest into memory.

import { GuestReceiver } from '../../src/index.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import type { DestinationCalls } from './calls.js'

let receiver: GuestReceiver

serve<DestinationCalls>({
  async prepare() {},
  async listen({ channels, method }) {
    receiver = new GuestReceiver({ parameters: { multifdChannels: channels, ...parametersOf(method) } })
    return await receiver.listen('tcp:127.0.0.1:0')
  },
  async completed() {
    await receiver.completed
  },
  digest: () => '',
})
