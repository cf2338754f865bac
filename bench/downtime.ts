// How long a program stands still: `node dist/bench/downtime.js [--size MIB] [--runs N] [--bandwidth MB/s] [--limits MS,…]`
//
// The program dirties pages at half the rate that the link takes, and moves to another process. Its own clock tells when
// it wrote last here and first there; that stands beside what the migration's statistics say, and beside the limit.

import { parseArgs } from 'node:util'
import { move, programMemory, type Standstill } from './standstill.js'
import { spread } from './statistics.js'

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '512' },
    runs: { type: 'string', default: '7' },
    bandwidth: { type: 'string', default: '500' },
    channels: { type: 'string', default: '4' },
    limits: { type: 'string', default: '300,50,10' },
  },
})

const size = Number(values.size) * 2 ** 20
const maxBandwidth = Number(values.bandwidth) * 1e6
const channels = Number(values.channels)

const AGREEMENT_MS = 2

function row(what: string, numbers: number[]): string {
  const { median, min, max } = spread(numbers)
  return `  ${what.padEnd(34)} ${median.toFixed(1).padStart(7)}   ${min.toFixed(1)} to ${max.toFixed(1)}`
}

const block = programMemory(size)
console.log(
  `${values.size} MiB, ${channels} channels, ${values.bandwidth} MB/s, of which half is dirtied; ms, ${values.runs} runs`,
)
for (const limit of values.limits.split(',').map(Number)) {
  const runs: Standstill[] = []
  for (let run = 0; run < Number(values.runs); run++) {
    runs.push(await move(block, { channels, maxBandwidth, downtimeLimit: limit, dirtyRate: maxBandwidth / 2 }))
  }
  const within = runs.filter(({ downtime, pause }) => Math.max(downtime, pause) <= limit).length
  const agree = runs.filter(({ downtime, pause }) => Math.abs(pause - downtime) <= AGREEMENT_MS).length
  console.log(
    `downtimeLimit ${limit}: ${within} of ${runs.length} within by both clocks, which agree within ${AGREEMENT_MS} ms in ${agree}`,
  )
  console.log(
    row(
      'passes',
      runs.map(({ passes }) => passes),
    ),
  )
  console.log(
    row(
      'downtime, by the statistics',
      runs.map(({ downtime }) => downtime),
    ),
  )
  console.log(
    row(
      'pause, by the program',
      runs.map(({ pause }) => pause),
    ),
  )
  console.log(
    row(
      'the pause is longer by',
      runs.map(({ pause, downtime }) => pause - downtime),
    ),
  )
}
