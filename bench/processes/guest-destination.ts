// Child process: receives a guest into memory.

import { GuestReceiver, RamBlock } from '../../src/index.js'
import { serve } from '../child.js'
import { parametersOf } from '../method.js'
import type { DestinationCalls } from './calls.js'

const GIB = 1024 ** 3
const RAM = 'pc.ram'
const ram: RamBlock[] = []
let receiver: GuestReceiver

serve<DestinationCalls>({
  async prepare({ bytes, touched }) {
    if (!touched) return
    ram.push(RamBlock.allocate({ idstr: RAM, size: bytes }))
    for (let at = 0; at < bytes; at += GIB) ram[0]!.bytes(at, Math.min(GIB, bytes - at)).fill(1)
  },
  async listen({ channels, method }) {
    receiver = new GuestReceiver({ ram, parameters: { multifdChannels: channels, ...parametersOf(method) } })
    return await receiver.listen('tcp:127.0.0.1:0')
  },
  async completed() {
    await receiver.completed
  },
  digest: () => '',
})
