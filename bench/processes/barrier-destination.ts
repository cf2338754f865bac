// Coordinator thread of the barrier bench's destination: reads sections without pages, and meets their barriers.

import { noteLoaded, type ThreadOutcome } from '../../src/channel/thread.js'
import { StreamReader } from '../../src/io/stream-reader.js'
import { Acceptor } from '../../src/migration/acceptor.js'
import { Coordinator, type CoordinatorTask } from '../../src/migration/coordinator.js'
import { RamLoad } from '../../src/migration/ram-load.js'
import { RecvChannels } from '../../src/migration/recv-channels.js'
import { RamBlock } from '../../src/ram/block.js'
import { MemoryLoadBlock } from '../../src/ram/load-block.js'
import { decodeRamSetup } from '../../src/wire/ram.js'
import { decodeStreamHeader } from '../../src/wire/stream.js'
import { noteRelease, type SectionsPlan } from './barrier-clock.js'

export default function run(task: CoordinatorTask & SectionsPlan): ThreadOutcome {
  noteLoaded(task.shm)
  return Coordinator.run(task, 'dst', (coordinator) => runSections(coordinator, task))
}

function runSections(coordinator: Coordinator, { clock, listener, block: handle }: SectionsPlan): void {
  const { shm, parameters } = coordinator
  const block = RamBlock.from(handle)
  const { pageSize } = block
  const acceptor = new Acceptor({
    listener,
    channels: shm.channels,
    uuid: undefined,
    helloTimeoutMs: parameters.helloTimeoutMs,
    own: (connection) => coordinator.own(connection),
    warn: (text) => coordinator.tell({ type: 'warning', text }),
    checkStopped: () => coordinator.checkStopped(),
  })
  try {
    const { main, channels: connections } = acceptor.collect()
    const reader = new StreamReader(coordinator.openMain(main, () => coordinator.checkStopped()))
    decodeStreamHeader(reader)
    const channels = new RecvChannels(coordinator, connections, main, pageSize)
    const ram = new RamLoad(coordinator, reader, channels, {
      pageSize,
      setUp(total) {
        decodeRamSetup(reader, total, { ignoreShared: false, mappedRam: false, pageSize })
        return [new MemoryLoadBlock(block)]
      },
      quiet: () => acceptor.checkExtra(),
    })
    const rounds = new Float64Array(clock.latencies).length
    for (let section = 0; section <= rounds; section++) {
      ram.loadSection()
      noteRelease(clock)
    }
    channels.end(false)
    channels.dismiss()
  } finally {
    acceptor.close()
  }
}
