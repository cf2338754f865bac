// Child process: a program that migrates its memory through the library.

import { MigrationSource, RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { digestOf, fillRandom, type SourceCalls, timed } from './calls.js'

let block: RamBlock

serve<SourceCalls>({
  async prepare({ bytes }) {
    block = RamBlock.allocate({ idstr: 'heap', size: bytes })
    fillRandom(block)
  },
  async send({ uri, channels }) {
    await using source = new MigrationSource({ ram: [block], parameters: { multifdChannels: channels } })
    return await timed(source, () => source.migrate(uri))
  },
  digest: () => digestOf(block),
})
