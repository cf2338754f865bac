// Child process: a program that receives memory through the library.

import { MigrationDestination, type RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import { allocate, type DestinationCalls, digestOf } from './calls.js'

let ram: RamBlock[]
const WINDOW = 2 ** 30
let destination: MigrationDestination

// Zeros, for those pages that come as zero: what is written over is resident all the same.
function touch(block: RamBlock): void {
  for (let at = 0; at < block.size; at += WINDOW) block.bytes(at, Math.min(WINDOW, block.size - at)).fill(0)
}

serve<DestinationCalls>({
  async prepare({ bytes, touched }) {
    ram = allocate(bytes)
    if (touched) for (const block of ram) touch(block)
  },
  async listen({ channels, method }) {
    destination = new MigrationDestination({ ram, parameters: { multifdChannels: channels, ...parametersOf(method) } })
    return await destination.listen('tcp:127.0.0.1:0')
  },
  async completed() {
    await destination.completed
  },
  digest: () => digestOf(ram),
})
