// Child process: sends a snapshot, as `multifd send` does.

import { SnapshotSender } from '../../src/snapshot/send.js'
import { serve } from '../child.js'
import { type SourceCalls, timed } from './calls.js'

let snapshot: string

serve<SourceCalls>({
  async prepare({ path = '' }) {
    snapshot = path
  },
  async send({ uri, channels }) {
    await using sender = new SnapshotSender(snapshot, { parameters: { multifdChannels: channels } })
    return await timed(sender.source, () => sender.send(uri))
  },
  digest: () => '',
})
