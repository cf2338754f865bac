// Child process: receives a snapshot, as `multifd receive` does.

import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import type { DestinationCalls } from './calls.js'

let snapshot: string
let receiver: SnapshotReceiver

serve<DestinationCalls>({
  async prepare({ path = '' }) {
    snapshot = path
  },
  async listen({ channels, method }) {
    receiver = new SnapshotReceiver(snapshot, { parameters: { multifdChannels: channels, ...parametersOf(method) } })
    return await receiver.listen('tcp:127.0.0.1:0')
  },
  async completed() {
    await receiver.completed
  },
  digest: () => '',
})
