// Child process: takes a QEMU's migration over bare sockets, and makes nothing of it.

import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { acceptOne, inetAddress, localPort, openListener } from '../../src/os/socket.js'
import { RamBlock } from '../../src/ram/block.js'
import { serve } from '../child.js'
import type { DestinationCalls } from './calls.js'
import type { SinkTask } from './sink-thread.js'

const LOOK_MS = 1

let block: RamBlock
let received: Promise<unknown>

/** A thread that stands ready for a connection. */
async function startThread(place: number, channels: number): Promise<Worker> {
  const workerData: SinkTask = { block: block.handle, place, channels }
  const worker = new Worker(new URL('./sink-thread.js', import.meta.url), { workerData })
  await new Promise((resolve) => worker.once('message', resolve))
  return worker
}

/** The main channel is a connection like the others. */
async function receive(listener: number, threads: Worker[]): Promise<void> {
  const ends: Promise<unknown>[] = []
  while (ends.length < threads.length) {
    const fd = acceptOne(listener)
    if (fd === undefined) {
      await sleep(LOOK_MS)
      continue
    }
    const thread = threads[ends.length]!
    ends.push(new Promise((resolve, reject) => thread.once('exit', resolve).once('error', reject)))
    thread.postMessage(fd)
  }
  await Promise.all(ends)
}

serve<DestinationCalls>({
  async prepare({ bytes, touched }) {
    block = RamBlock.allocate({ idstr: 'heap', size: bytes })
    if (touched) block.bytes(0, bytes).fill(1)
  },
  async listen({ channels }) {
    const listener = openListener(inetAddress('127.0.0.1', 0), 128)
    const threads = await Promise.all(Array.from({ length: channels + 1 }, (_, at) => startThread(at, channels)))
    received = receive(listener, threads)
    return `tcp:127.0.0.1:${localPort(listener)}`
  },
  async completed() {
    await received
  },
  digest: () => '',
})
