// Walks fault points from the command line: `npm run faults`.

import { Command, InvalidArgumentError, Option } from 'commander'
import { whole } from '../../src/cli/options.js'
import { FAULT_POINTS, type FaultName, type FaultSide } from '../../src/faults.js'
import { allCases, missingHere } from './cases.js'
import { METHODS, type MethodName } from './methods.js'
import { Walk } from './walk.js'

interface Options {
  points: FaultName[]
  methods: MethodName[]
  sides: FaultSide[]
  seed: number
  times: number
}

function among<T extends string>(names: readonly T[]): (text: string) => T[] {
  return (text) => {
    const picked = text.split(',') as T[]
    const unknown = picked.find((name) => !names.includes(name))
    if (unknown !== undefined) throw new InvalidArgumentError(`'${unknown}' is none of ${names.join(', ')}.`)
    return picked
  }
}

function namesOption<T extends string>(flags: string, description: string, names: readonly T[]): Option {
  return new Option(flags, description).default([...names], 'all').argParser(among(names))
}

const POINTS = Object.keys(FAULT_POINTS) as FaultName[]
const SIDES: FaultSide[] = ['source', 'destination', 'snapshot']
const { points, methods, sides, seed, times } = new Command('faults')
  .description('breaks migrations at every fault point, by every method, on every side, and checks what must hold')
  .addOption(namesOption('--points <names>', 'fault points, with commas between', POINTS))
  .addOption(namesOption('--methods <names>', `of ${METHODS.join(', ')}`, METHODS))
  .addOption(namesOption('--sides <names>', `of ${SIDES.join(', ')}`, SIDES))
  .option('--seed <n>', 'decides at which time each point happens', whole(0, 2 ** 31 - 1), 1)
  .option('--times <n>', 'breaks each so often, for what goes wrong seldom', whole(1, 2 ** 31 - 1), 1)
  .parse()
  .opts<Options>()

const walk = new Walk()
const began = performance.now()
let failed = 0
let done = 0

function tell(line: string, problems: string[]): void {
  console.log(`${problems.length === 0 ? 'ok     ' : 'not ok '} ${line}`)
  for (const problem of problems) console.log(`          ${problem}`)
  if (problems.length > 0) failed++
}

for (const point of points) {
  for (const one of allCases([point], methods, seed).filter(({ side }) => sides.includes(side))) {
    const number = String(FAULT_POINTS[point].number).padStart(2)
    const name = `${number} ${`${point}@${one.at}`.padEnd(27)} ${one.side.padEnd(11)} ${one.method.padEnd(9)}`
    const missing = missingHere(one)
    if (missing !== undefined) {
      console.log(`skipped ${name} ${missing}`)
      continue
    }
    for (let time = 0; time < times; time++) {
      const { outcomes, ms, problems } = await walk.step(one)
      tell(
        `${name} ${String(ms).padStart(6)} ms  ${outcomes.map((outcome) => outcome.padEnd(24)).join(' ')}`.trim(),
        problems,
      )
      done++
    }
  }
  const left = await walk.settle()
  if (left.length > 0) tell(`   after ${point}`, left)
}
await walk.close()
const seconds = Math.round((performance.now() - began) / 1000)
console.log(`${done} broken in ${seconds} s, ${failed} of them not as they must be (seed ${seed})`)
process.exitCode = failed === 0 ? 0 : 1
