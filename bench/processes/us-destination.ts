// Child process: a program that receives memory through the library.

import { MigrationDestination, RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { type DestinationCalls, digestOf } from './calls.js'

let block: RamBlock
let destination: MigrationDestination

serve<DestinationCalls>({
  async prepare({ bytes, touched }) {
    block = RamBlock.allocate({ idstr: 'heap', size: bytes })
    if (touched) block.bytes(0, bytes).fill(1)
  },
  async listen({ channels }) {
    destination = new MigrationDestination({ ram: [block], parameters: { multifdChannels: channels } })
    return await destination.listen('tcp:127.0.0.1:0')
  },
  async completed() {
    await destination.completed
  },
  digest: () => digestOf(block),
})
