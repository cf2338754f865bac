// Child process: receives a block's bytes over bare sockets.

import { setTimeout as sleep } from 'node:timers/promises'
import { acceptOne, inetAddress, localPort, openListener } from '../../src/os/socket.js'
import { RamBlock } from '../../src/ram/block.js'
import { serve } from '../child.js'
import { startBare } from './bare.js'
import { type DestinationCalls, digestOf } from './calls.js'

const LOOK_MS = 1

let block: RamBlock
let received: Promise<unknown>

async function receive(listener: number, channels: number): Promise<void> {
  const fds: number[] = []
  while (fds.length < channels) {
    const fd = acceptOne(listener)
    if (fd === undefined) await sleep(LOOK_MS)
    else fds.push(fd)
  }
  await startBare(block, fds, false).done
}

serve<DestinationCalls>({
  async prepare({ bytes, touched }) {
    block = RamBlock.allocate({ idstr: 'heap', size: bytes })
    if (touched) block.bytes(0, bytes).fill(1)
  },
  async listen({ channels }) {
    const listener = openListener(inetAddress('127.0.0.1', 0), 128)
    received = receive(listener, channels)
    return `tcp:127.0.0.1:${localPort(listener)}`
  },
  async completed() {
    await received
  },
  digest: () => digestOf([block]),
})
