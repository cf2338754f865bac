// Coordinator thread of the barrier bench's source: connects, and ends sections without pages.

import { introduce } from '../../src/channel/introduce.js'
import { noteLoaded, type ThreadOutcome } from '../../src/channel/thread.js'
import { connectTo } from '../../src/io/connect.js'
import { makeConnection, openChannel } from '../../src/io/connection.js'
import { StreamWriter } from '../../src/io/stream-writer.js'
import { Coordinator, type CoordinatorTask } from '../../src/migration/coordinator.js'
import { RamSave } from '../../src/migration/ram-save.js'
import { SendChannels } from '../../src/migration/send-channels.js'
import { monotonicMs } from '../../src/os/clock.js'
import { inetAddress } from '../../src/os/socket.js'
import { RamBlock } from '../../src/ram/block.js'
import { encodeRamSetup, ramSetupSize } from '../../src/wire/ram.js'
import { encodeStreamHeader } from '../../src/wire/stream.js'
import { awaitRelease, type SectionsPlan } from './barrier-clock.js'

export default function run(task: CoordinatorTask & SectionsPlan): ThreadOutcome {
  noteLoaded(task.shm)
  return Coordinator.run(task, 'src', (coordinator) => runSections(coordinator, task))
}

function runSections(coordinator: Coordinator, { clock, port, block: handle }: SectionsPlan): void {
  const { shm, parameters } = coordinator
  const check = (): void => coordinator.checkStopped()
  const connect = (): number => {
    return connectTo([inetAddress('127.0.0.1', port)], parameters.connectTimeoutMs, check, shm.channels > 1)
  }
  const block = RamBlock.from(handle)
  const writer = new StreamWriter(coordinator.openMain(makeConnection(connect(), undefined), check))
  const channels = new SendChannels(coordinator, block.pageSize, [handle])
  const ram = new RamSave(coordinator, writer, {
    blocks: [block],
    channels,
    pageSize: block.pageSize,
    flush: 'per-round',
    findZeroPages: false,
  })
  for (let id = 0; id < shm.channels; id++) {
    const connection = coordinator.own(makeConnection(connect(), undefined))
    const channel = openChannel(connection, id, coordinator.channelWait(id))
    introduce(channel, { uuid: undefined })
    channels.add(id, connection, undefined, channel)
  }
  writer.commit(encodeStreamHeader(writer.view, writer.reserve(8)))
  const entries = [{ idstr: block.idstr, usedLength: block.size }]
  writer.commit(encodeRamSetup(writer.view, writer.reserve(ramSetupSize(entries)), entries))
  ram.endRecords()
  awaitRelease(clock, 1, check)
  const latencies = new Float64Array(clock.latencies)
  for (let round = 0; round < latencies.length; round++) {
    const began = monotonicMs()
    ram.endRecords()
    latencies[round] = awaitRelease(clock, round + 2, check) - began
  }
  channels.quit()
}
