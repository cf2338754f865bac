// Child process: sends a block's bytes over bare sockets.

import { connectTo } from '../../src/io/connect.js'
import { parseUri, resolveUri } from '../../src/io/uri.js'
import { closeDescriptor } from '../../src/os/socket.js'
import { RamBlock } from '../../src/ram/block.js'
import { serve, tellSetUp } from '../child.js'
import { startBare } from './bare.js'
import { digestOf, fill, type SourceCalls } from './calls.js'

const CONNECT_MS = 10_000

let block: RamBlock

serve<SourceCalls>({
  async prepare({ bytes, data }) {
    block = RamBlock.allocate({ idstr: 'heap', size: bytes })
    fill([block], data)
  },
  async send({ uri, channels }) {
    const began = performance.now()
    const addresses = await resolveUri(parseUri(uri), false)
    // One after the other, so that they are accepted in the same order.
    const fds = Array.from({ length: channels }, () => connectTo(addresses, CONNECT_MS, () => {}))
    const threads = startBare(block, fds, true)
    await threads.ready
    const active = performance.now()
    tellSetUp()
    threads.go()
    const doneAt = await threads.done
    for (const fd of fds) closeDescriptor(fd)
    return {
      setupMs: active - began,
      transferMs: doneAt - (performance.timeOrigin + active),
      dataBytes: block.size,
    }
  },
  digest: () => digestOf([block]),
})
