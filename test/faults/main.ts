// Walks fault points from the command line: `npm run faults`.

import { Command, InvalidArgumentError } from 'commander'
import { whole } from '../../src/cli/options.js'
import { FAULT_POINTS, type FaultName } from '../../src/faults.js'
import { endIdleThreads } from '../../src/index.js'
import { allCases, missingHere } from './cases.js'
import { METHODS, type MethodName } from './methods.js'
import { Walk } from './walk.js'

interface Options {
  points: FaultName[]
  methods: MethodName[]
  seed: number
}

function among<T extends string>(names: readonly T[]): (text: string) => T[] {
  return (text) => {
    const picked = text.split(',') as T[]
    const unknown = picked.find((name) => !names.includes(name))
    if (unknown !== undefined) throw new InvalidArgumentError(`'${unknown}' is none of ${names.join(', ')}.`)
    return picked
  }
}

const points = Object.keys(FAULT_POINTS) as FaultName[]
const options = new Command('faults')
  .description('breaks migrations at every fault point, by every method, on both sides, and checks what must hold')
  .option('--points <names>', 'fault points, with commas between (default: all)', among(points), points)
  .option('--methods <names>', `of ${METHODS.join(', ')} (default: all)`, among(METHODS), [...METHODS])
  .option('--seed <n>', 'decides at which time each point happens', whole(0, 2 ** 31 - 1), 1)
  .parse()
  .opts<Options>()

const walk = new Walk()
let failed = 0
let done = 0
for (const one of allCases(options.points, options.methods, options.seed)) {
  const name = `${String(FAULT_POINTS[one.point].number).padStart(2)} ${`${one.point}@${one.at}`.padEnd(27)}`
  const where = `${one.side.padEnd(11)} ${one.method.padEnd(9)}`
  const missing = missingHere(one.point)
  if (missing !== undefined) {
    console.log(`skipped ${name} ${where} ${missing}`)
    continue
  }
  const { source, destination, ms, problems } = await walk.step(one)
  const verdict = problems.length === 0 ? 'ok     ' : 'not ok '
  console.log(`${verdict} ${name} ${where} ${String(ms).padStart(6)} ms  ${source.padEnd(24)} ${destination}`)
  for (const problem of problems) console.log(`          ${problem}`)
  if (problems.length > 0) failed++
  done++
}
await walk.close()
await endIdleThreads()
console.log(`${done} migrations broken, ${failed} of them not as they must be (seed ${options.seed})`)
process.exitCode = failed === 0 ? 0 : 1
