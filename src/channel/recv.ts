// A receiving channel's thread: rehearses while it waits, takes its connection over, and runs the receive loop.

import type { Channel } from '../io/channel.js'
import { type Connection, openChannel } from '../io/connection.js'
import { type MethodName, RecvMethods } from '../method/methods.js'
import { type LoadBlock, type LoadBlockHandle, loadBlockFrom } from '../ram/load-block.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import type { PacketMemory } from '../shm/packet-memory.js'
import { type RecvContext, RecvLoop } from './recv-loop.js'
import { Rehearsal } from './rehearsal.js'
import {
  breakThread,
  type ChannelTask,
  channelWait,
  runChannelThread,
  Stopped,
  type ThreadOutcome,
  takeHandOver,
  waitHandOver,
} from './thread.js'

const LOOK_MS = 100
// Further ones change nothing any more.
const REHEARSALS = 4

/** The coordinator's first hand-over: the connection, its initial packet already read. */
export interface RecvConnection extends Partial<RecvBlocks> {
  connection: Connection
  /** Bytes of a target page, from the main channel's configuration. */
  pageSize: number
  /** Of the next packet, where that has been read already. */
  header?: Uint8Array
}

/** Instead of it: the channel's connection was at its end before there was anything to do. */
export const NOTHING = {} as const

/** Its second, before the first barrier is released, where the first came sooner: the blocks of the RAM set-up. */
export interface RecvBlocks {
  blocks: LoadBlockHandle[]
}

export interface RecvTask extends ChannelTask {
  /** The method agreed on; `auto`: that of the channel's first pages. */
  compression: MethodName | 'auto'
}

/** Runs a channel to the end of its stream. The connection stays the coordinator's to close. */
export function runRecv(task: RecvTask): ThreadOutcome {
  const { channel } = task
  return runChannelThread(task, `mig/dst/recv_${channel}`, (shm, log) => {
    const connect = (connection: Connection): Channel => {
      return openChannel(connection, channel, channelWait(shm, channel, task.stallTimeoutMs))
    }
    const packet = shm.packetMemory(channel)
    rehearse(shm, channel, packet, connect)
    const given = waitHandOver<RecvConnection | typeof NOTHING>(shm, task)
    if (!('connection' in given)) return
    const { connection, blocks: known, ...first } = given
    breakThread(shm, 'destination', connection)
    let blocks: LoadBlock[] | undefined
    const methods = RecvMethods.of(shm, channel, task.compression)
    const loop = makeLoop(shm, channel, 1, {
      methods,
      channel: connect(connection),
      packet,
      ...first,
      synced: shm.syncs(channel) > 0,
      blocks() {
        blocks ??= (known ?? takeHandOver<RecvBlocks>(task)?.blocks)?.map((handle) => loadBlockFrom(handle))
        return blocks
      },
      reachBarrier: () => shm.reachSync(channel),
      passBarrier: (reached) => passBarrier(shm, reached),
      faults: shm.faults,
      log,
    })
    try {
      loop.run()
    } finally {
      methods.close()
    }
  })
}

/** @param counts 1, or 0 for packets that are nobody's */
function makeLoop(
  shm: MigrationShm,
  channel: number,
  counts: 0 | 1,
  context: Omit<RecvContext, 'ending' | 'counted'>,
): RecvLoop {
  return new RecvLoop({
    ...context,
    // A rehearsal may still play when the stream of a channel without pages has ended.
    ending: () => counts === 1 && shm.ending,
    counted(bytes, normalPages, zeroPages) {
      shm.countPackets(channel, counts * bytes, counts, counts * normalPages, counts * zeroPages)
    },
  })
}

// A thread that stays for further migrations needs no more of them.
let rehearsals = 0

// See rehearsal.ts. Unless the source is there already, which would wait for it.
function rehearse(
  shm: MigrationShm,
  channel: number,
  packet: PacketMemory,
  connect: (connection: Connection) => Channel,
): void {
  if (rehearsals === REHEARSALS) return
  const rehearsal = new Rehearsal(connect)
  const { pageSize } = rehearsal
  const blocks: LoadBlock[] = [rehearsal.block]
  for (; rehearsals < REHEARSALS && !shm.stopped && !shm.wake(channel).posted; rehearsals++) {
    rehearsal.play((connection) => {
      const methods = new RecvMethods()
      makeLoop(shm, channel, 0, {
        methods,
        channel: connection,
        packet,
        pageSize,
        blocks: () => blocks,
        reachBarrier: () => 1,
        passBarrier() {},
      }).run()
    })
  }
}

function passBarrier(shm: MigrationShm, reached: number): void {
  if (shm.fault('recv-without-barrier')) return
  // A stop wakes those who wait already: whoever comes later looks first, and whoever comes in between waits shortly.
  while (!shm.stopped && !shm.waitReleased(reached, LOOK_MS));
  if (shm.stopped) throw new Stopped()
}
