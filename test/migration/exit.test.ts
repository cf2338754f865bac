// A program that embeds the library ends when it wants to: no thread of ours keeps its process, whatever it does.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  Child,
  HandDestination,
  HandSource,
  HEADER_SIZE,
  PAGE,
  packet,
  pageOf,
  ramSection,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
const channels = 8
const folder = mkdtempSync(join(tmpdir(), 'multifd-exit-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
let sockets = 0
const shape = { idstr: 'heap', size: 8 * MiB }
const parameters = { multifdChannels: channels }
// At 1 MB/s the 8 MiB take some seconds: it is in the middle of them for as long as it matters.
const throttled = { ...parameters, maxBandwidth: 1e6 }
// A second, and what a busy machine adds.
const soonMs = 2000

interface State {
  title: string
  /** Brings a child into the state. */
  reach(t: Test): Promise<Child>
}

function child(t: Test, job: Omit<ConstructorParameters<typeof Child>[0], 'blocks'>): Child {
  const started = new Child({ blocks: [shape], ...job })
  t.teardown(() => started.destroy())
  return started
}

async function handSource(t: Test, destination: Child): Promise<HandSource> {
  const { uri } = await destination.says('listening')
  const source = await HandSource.connect(uri, { blocks: [shape], channels })
  t.teardown(() => source.destroy())
  return source
}

const states: State[] = [
  {
    title: 'a destination that listens',
    async reach(t) {
      const destination = child(t, { role: 'destination', uri: 'tcp:127.0.0.1:0', parameters })
      await destination.says('listening')
      return destination
    },
  },
  {
    title: 'a destination that waits for channels',
    async reach(t) {
      const destination = child(t, { role: 'destination', uri: 'tcp:127.0.0.1:0', parameters })
      const source = await handSource(t, destination)
      source.head()
      await source.openChannels([0, 1, 2])
      await delay(100)
      return destination
    },
  },
  {
    title: 'a destination at a barrier',
    async reach(t) {
      const destination = child(t, { role: 'destination', uri: 'tcp:127.0.0.1:0', parameters })
      const source = await handSource(t, destination)
      await source.begin()
      source.main.send(ramSection('part', [], 'per-round'))
      source.sync([0, 1, 2, 3, 4, 5, 6])
      await destination.says('status', ({ status }) => status === 'active')
      await delay(100)
      return destination
    },
  },
  {
    title: 'a destination in mid-transfer',
    async reach(t) {
      const destination = child(t, { role: 'destination', uri: 'tcp:127.0.0.1:0', parameters })
      const source = await handSource(t, destination)
      await source.begin()
      // Every channel is inside the data of a packet.
      const pages = Array.from({ length: 16 }, (_, page) => [page * PAGE, pageOf(1)] as const)
      const half = packet({ idstr: 'heap', pages }).subarray(0, HEADER_SIZE + 7 * PAGE + 100)
      for (const channel of source.channels) channel.send(half)
      await destination.says('status', ({ status }) => status === 'active')
      await delay(100)
      return destination
    },
  },
  {
    title: 'a source in mid-transfer',
    async reach(t) {
      const destination = await HandDestination.listen()
      t.teardown(() => destination.destroy())
      const source = child(t, { role: 'source', uri: destination.uri, parameters: throttled })
      await source.says('status', ({ status }) => status === 'active')
      await (await destination.channel(0)).received(64 + 2 * HEADER_SIZE + PAGE)
      return source
    },
  },
  {
    title: 'a source whose destination reads nothing',
    async reach(t) {
      // Over a unix socket, which keeps little between the two: the source's threads are in their writes.
      const destination = await HandDestination.listen(join(folder, `socket-${++sockets}`))
      t.teardown(() => destination.destroy())
      const source = child(t, { role: 'source', uri: destination.uri, parameters })
      for (let id = 0; id < channels; id++) (await destination.channel(id)).stopReading()
      await source.says('status', ({ status }) => status === 'active')
      await delay(200)
      return source
    },
  },
  {
    title: "a source that waits for the destination's word",
    async reach(t) {
      const destination = await HandDestination.listen()
      t.teardown(() => destination.destroy())
      const source = child(t, { role: 'source', uri: destination.uri, parameters })
      await destination.wholeStream()
      return source
    },
  },
]

type Way = 'exit' | 'throw' | 'SIGINT' | 'SIGTERM'

const outcomes: Record<Way, { code: number | null; signal: NodeJS.Signals | null }> = {
  exit: { code: 0, signal: null },
  throw: { code: 1, signal: null },
  SIGINT: { code: null, signal: 'SIGINT' },
  SIGTERM: { code: null, signal: 'SIGTERM' },
}

async function endsSoon(t: Test, { reach }: State, way: Way): Promise<void> {
  const process = await reach(t)
  const began = performance.now()
  if (way === 'exit' || way === 'throw') process.tell(way)
  else process.process.kill(way)
  const outcome = await process.ended()
  const took = Math.round(performance.now() - began)
  t.strictSame(outcome, outcomes[way])
  t.ok(took < soonMs, `${took} ms`)
}

t.jobs = 2
for (const [at, state] of states.entries()) {
  // A signal that nobody listens to ends the process without asking it: one of the two will do for each state.
  const ways: Way[] = ['exit', 'throw', at % 2 === 0 ? 'SIGINT' : 'SIGTERM']
  for (const way of ways) {
    const how = way === 'exit' ? 'calls process.exit' : way === 'throw' ? 'throws' : `gets ${way}`
    t.test(`${state.title} ends soon when it ${how}`, { buffered: true }, (t) => endsSoon(t, state, way))
  }
}
