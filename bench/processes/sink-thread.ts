// Thread of the process that makes nothing of a QEMU's migration: reads one connection to its end, as many bytes a call as a
// full packet has, its pages into the block.

import { parentPort, workerData } from 'node:worker_threads'
import { PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock, type RamBlockHandle } from '../../src/ram/block.js'
import { packetHeaderSize, pagesPerPacket } from '../../src/wire/multifd-packet.js'
import { BareSocket, CALL_BYTES } from './bare.js'

export interface SinkTask {
  block: RamBlockHandle
  /** Of the thread among all. */
  place: number
  channels: number
}

const PAGE = 4096

const { block: handle, place, channels } = workerData as SinkTask
const block = RamBlock.from(handle)
const size = packetHeaderSize(pagesPerPacket(PAGE))
const header = new PinnedBuffer(size)
const range = { address: header.address, size }

parentPort!.once('message', (fd: number) => {
  const socket = new BareSocket(fd)
  const step = channels * CALL_BYTES
  let at = place * CALL_BYTES
  do at = (at + step) % block.size
  while (socket.receiveBoth(block, at, Math.min(CALL_BYTES, block.size - at), range))
  process.exit()
})
parentPort!.postMessage('ready')
