// Receiving channel's thread of the barrier bench: a migration's receive loop and wait, and the time when it goes on.

import { type RecvConnection, RecvLoop, waitBarrier } from '../../src/channel/recv.js'
import {
  type ChannelTask,
  channelWait,
  runChannelThread,
  type ThreadOutcome,
  waitHandOver,
} from '../../src/channel/thread.js'
import { openChannel } from '../../src/io/connection.js'
import { RecvMethods } from '../../src/method/methods.js'
import { type BarrierClock, notePassage } from './barrier-clock.js'

export default function run(task: ChannelTask & { clock: BarrierClock }): ThreadOutcome {
  const { channel, clock, stallTimeoutMs } = task
  return runChannelThread(task, `mig/dst/recv_${channel}`, (shm) => {
    const { connection, pageSize } = waitHandOver<RecvConnection>(shm, task)
    new RecvLoop({
      channel: openChannel(connection, channel, channelWait(shm, channel, stallTimeoutMs)),
      packet: shm.packetMemory(channel),
      methods: new RecvMethods(),
      pageSize,
      blocks: () => undefined,
      barrier() {
        waitBarrier(shm, channel)
        notePassage(clock, channel)
      },
      ending: () => shm.ending,
      counted(bytes, normalPages, zeroPages) {
        shm.countPackets(channel, bytes, 1, normalPages, zeroPages)
      },
    }).run()
  })
}
