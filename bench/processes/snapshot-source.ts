// Child process: sends a snapshot, as `multifd send` does.

import { SnapshotSender } from '../../src/snapshot/send.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import { type SourceCalls, timed } from './calls.js'

let snapshot: string

serve<SourceCalls>({
  async prepare({ path = '' }) {
    snapshot = path
  },
  async send({ uri, channels, method }) {
    const parameters = { multifdChannels: channels, ...parametersOf(method) }
    await using sender = new SnapshotSender(snapshot, { parameters })
    return await timed(sender.source, () => sender.send(uri))
  },
  digest: () => '',
})
