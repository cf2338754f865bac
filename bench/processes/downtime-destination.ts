// The destination of the downtime bench: the program goes on here, in a thread that waits for it.

import { MigrationDestination, RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { Program } from '../program.js'
import type { DowntimeCalls } from './calls.js'

let block: RamBlock | undefined
let destination: MigrationDestination | undefined
let program: Program | undefined

serve<DowntimeCalls>({
  async listen({ size, channels }) {
    block ??= RamBlock.allocate({ idstr: 'heap', size, prealloc: true })
    destination = new MigrationDestination({ ram: [block], parameters: { multifdChannels: channels } })
    program = await Program.start(block, 0)
    // Code that runs for the first time is slow, and none of the migration's doing.
    await program.goOn()
    await program.halt()
    return await destination.listen('tcp:127.0.0.1:0')
  },
  async goOn() {
    await destination!.completed
    const at = await program!.goOn()
    await program!.end()
    await destination!.close()
    return at
  },
})
