// Thread of the bare-socket processes: sends or receives every nth 512 KiB of a block.

import { parentPort, workerData } from 'node:worker_threads'
import { PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock } from '../../src/ram/block.js'
import { type BareMessage, BareSocket, type BareTask, CALL_BYTES } from './bare.js'

const task = workerData as BareTask
const block = RamBlock.from(task.block)
const socket = new BareSocket(task.fd)
const word = new PinnedBuffer(1)
const wordRange = { address: word.address, size: 1 }
const tell = (message: BareMessage): void => parentPort!.postMessage(message)

// Nobody starts before both ends' threads are up.
if (task.sends) socket.receive(wordRange, 0, 1)
else socket.send(wordRange, 0, 1)
tell('ready')
if (task.sends) Atomics.wait(new Int32Array(task.go), 0, 0)
for (let at = task.channel * CALL_BYTES; at < block.size; at += task.channels * CALL_BYTES) {
  const length = Math.min(CALL_BYTES, block.size - at)
  if (task.sends) socket.send(block, at, length)
  else socket.receive(block, at, length)
}
// The receiver's word that it has everything ends the measurement, as the return path's does.
if (task.sends) socket.receive(wordRange, 0, 1)
else socket.send(wordRange, 0, 1)
tell({ doneAt: performance.timeOrigin + performance.now() })
