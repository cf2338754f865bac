// How long a program stands still that dirties its memory while it moves to another process: one run.

import { MigrationSource, RamBlock } from '../src/index.js'
import { Child } from './child.js'
import type { DowntimeCalls } from './processes/calls.js'
import { Program } from './program.js'

export interface Move {
  channels: number
  /** Bytes a second that the link takes. */
  maxBandwidth: number
  /** ms. */
  downtimeLimit: number
  /** Bytes a second of the pages that the program writes to. */
  dirtyRate: number
}

/** Times in ms. */
export interface Standstill {
  passes: number
  /** By the statistics. */
  downtime: number
  /** By the program's own clock, from its last write here to its first there. */
  pause: number
}

/** Memory that the kernel tracks, every page of it written. */
export function programMemory(size: number): RamBlock {
  const block = RamBlock.allocate({ idstr: 'heap', size, dirtyLog: 'kernel' })
  const words = new Int32Array(block.memory!)
  for (let at = 0; at < words.length; at++) words[at] = at
  return block
}

export async function move(
  block: RamBlock,
  { channels, maxBandwidth, downtimeLimit, dirtyRate }: Move,
): Promise<Standstill> {
  await using destination = new Child<DowntimeCalls>('downtime-destination')
  const uri = await destination.call('listen', { size: block.size, channels })
  const program = await Program.start(block, dirtyRate)
  try {
    const parameters = { multifdChannels: channels, maxBandwidth, downtimeLimit }
    await using source = new MigrationSource({ ram: [block], parameters })
    await program.goOn()
    const wentOn = destination.call('goOn', null)
    let halted = 0
    const [{ downtime = 0, ram }, at] = await Promise.all([
      source.migrate(uri, {
        async stop() {
          halted = await program.halt()
        },
      }),
      wentOn,
    ])
    return { passes: ram.dirtySyncCount, downtime, pause: at - halted }
  } finally {
    await program.end()
  }
}
