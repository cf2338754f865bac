// Child process: a program that migrates its memory through the library.

import { MigrationSource, type RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import { allocate, digestOf, fill, type SourceCalls, timed } from './calls.js'

let ram: RamBlock[]

serve<SourceCalls>({
  async prepare({ bytes, data }) {
    ram = allocate(bytes)
    fill(ram, data)
  },
  async send({ uri, channels, method }) {
    const parameters = { multifdChannels: channels, ...parametersOf(method) }
    await using source = new MigrationSource({ ram, parameters })
    return await timed(source, () => source.migrate(uri))
  },
  digest: () => digestOf(ram),
})
