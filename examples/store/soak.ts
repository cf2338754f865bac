// The store moves to and fro, many times in a row, under full load; nothing may be lost, and nothing may grow.
//
//   npm run store:soak [-- --migrations N --channels N --size MIB --clients N --pipeline N --keys N --downtime-limit MS]

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { ask, Load } from './client.js'
import { growth, look, type Possessions } from './possessions.js'
import { type Moved, Store } from './store.js'

const { values } = parseArgs({
  options: {
    migrations: { type: 'string', default: '50' },
    channels: { type: 'string', default: '4' },
    size: { type: 'string', default: '128' },
    clients: { type: 'string', default: '8' },
    pipeline: { type: 'string', default: '16' },
    keys: { type: 'string', default: '4000' },
    'downtime-limit': { type: 'string', default: '20' },
    'max-bandwidth': { type: 'string', default: '0' },
  },
})

const { size, channels, 'downtime-limit': limit, 'max-bandwidth': bandwidth } = values

/** What the processes may have more at their last rest than at their first. */
const GROWTH_MIB = 16
/** Moves between two rests. */
const REST_EVERY = 10
/** Longer than a migration's threads wait for the next one. */
const REST_MS = 6000
const BETWEEN_MS = 200
const SETTLE_MS = 300

function spread(numbers: number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b)
  const [least, middle, most] = [sorted[0]!, sorted[sorted.length >> 1]!, sorted.at(-1)!]
  return `median ${middle.toFixed(1)}, ${least.toFixed(1)} to ${most.toFixed(1)}`
}

async function soak(store: Store): Promise<boolean> {
  const { port } = await store.expect('listening')
  const count = Number(values.migrations)
  const load = new Load({
    port,
    clients: Number(values.clients),
    pipeline: Number(values.pipeline),
    keys: Number(values.keys),
  })
  await sleep(1000)
  const moves: Moved[] = []
  const pauses: number[] = []
  const looks = new Map<number, Possessions[]>()
  for (let move = 1; move <= count; move++) {
    load.takeLongestPause()
    const answer = await ask(port, 'RELOCATE')
    if (answer !== 'Background relocation started') throw new Error(`RELOCATE: ${answer}`)
    const moved = await store.expect('moved')
    await sleep(SETTLE_MS)
    moves.push(moved)
    pauses.push(load.takeLongestPause())
    const { totalTime, passes, downtime, pause } = moved
    const times = `${totalTime.toFixed(0)} ms, ${passes} passes, downtime ${downtime.toFixed(1)} ms, pause ${pause.toFixed(1)} ms`
    console.log(`move ${move}: ${times}; longest wait of a client ${pauses.at(-1)!.toFixed(1)} ms`)
    await sleep(BETWEEN_MS)
    if (move % REST_EVERY > 0) continue
    await sleep(REST_MS)
    for (const pid of [store.pid, moved.from, moved.to]) {
      const seen = look(pid, Number(size) * 2 ** 20)
      looks.set(pid, [...(looks.get(pid) ?? []), seen])
      console.log(`at rest: process ${pid} has ${seen.memory.toFixed(1)} MiB`)
    }
  }
  const report = await load.finish()
  console.log(
    `\n${count} moves with ${values.channels} channels, ${values.clients} clients × ${values.pipeline} requests`,
  )
  console.log(`requests       ${report.requests}, of them ${report.acknowledgedWrites} acknowledged writes`)
  console.log(`reconnects     ${report.reconnects}, ${(report.reconnects / count).toFixed(1)} a move`)
  console.log(`wrong          ${report.wrongCount}${report.wrong.map((text) => `\n  ${text}`).join('')}`)
  console.log(`downtime, ms   ${spread(moves.map(({ downtime }) => downtime))}`)
  console.log(
    `pause, ms      ${spread(moves.map(({ pause }) => pause))} (from the last request here to the first there)`,
  )
  console.log(`clients, ms    ${spread(pauses)} (longest wait for a reply around each move)`)
  let level = true
  for (const [pid, all] of looks) {
    const grown = {
      memory: growth(all, 'memory'),
      descriptors: growth(all, 'descriptors'),
      threads: growth(all, 'threads'),
    }
    const { memory, descriptors, threads } = all.at(-1)!
    const changes = `memory ${memory.toFixed(0)} MiB (${signed(grown.memory)}), descriptors ${descriptors} (${signed(grown.descriptors)}), threads ${threads} (${signed(grown.threads)})`
    console.log(`process ${pid}   ${changes}`)
    level &&= grown.memory <= GROWTH_MIB && grown.descriptors <= 0 && grown.threads <= 0
  }
  // Every client reconnects once a move: twice where it came just as the store stopped.
  const calm = report.reconnects <= 2 * count * Number(values.clients)
  console.log(report.wrongCount === 0 && level && calm ? 'all is well' : 'NOT WELL')
  return report.wrongCount === 0 && level && calm
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${Math.round(value)}`
}

const store = new Store({ size, channels, 'downtime-limit': limit, 'max-bandwidth': bandwidth })
try {
  process.exitCode = (await soak(store)) ? 0 : 1
} finally {
  await store.end()
}
