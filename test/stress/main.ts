// Random migrations between two processes, each checked against what its program wrote: npm run stress -- --help

import { Command, InvalidArgumentError } from 'commander'
import { soak } from './soak.js'
import { stress } from './stress.js'

interface Options {
  seed?: number
  run?: number
  runs?: number
  minutes?: number
  memory?: number
  soak?: boolean
  migrations: number
  every?: number
  endThreads: boolean
  namespaces: boolean
}

const MINUTES = 5
const SAMPLES = 50

function whole(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.')
  return Number(text)
}

function positive(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError('It must be a number above 0.')
  return value
}

const command = new Command('stress')
  .description('Random migrations between two processes, each checked against what its program wrote.')
  .option('--seed <number>', 'what everything is drawn from (default: of the clock)', whole)
  .option('--run <number>', 'this run of the seed alone', whole)
  .option('--runs <count>', 'so many runs', whole)
  .option('--minutes <count>', `for so long (default: ${MINUTES}, without --runs)`, positive)
  .option('--memory <MiB>', 'most that a program has (default: 48)', positive)
  .option('--no-namespaces', 'no network namespace, even where there could be one')
  .option('--soak', 'many small migrations in one pair of processes, which must not grow')
  .option('--migrations <count>', 'of a soak', whole, 5000)
  .option('--every <count>', `migrations between two samples of a soak (default: a ${SAMPLES}th of all)`, whole)
  .option('--end-threads', 'threads that wait for a migration are ended at each sample of a soak', false)
  .parse()

const options = command.opts<Options>()
const seed = options.seed ?? Date.now() % 2 ** 31
const say = (line: string): void => console.log(line)

say(`seed ${seed}`)
let well: boolean
if (options.soak) {
  const { migrations, every = Math.max(1, Math.floor(migrations / SAMPLES)), endThreads } = options
  well = await soak({ seed, migrations, every, endThreads, say })
} else {
  const runs = options.run === undefined ? options.runs : 1
  const minutes = options.minutes ?? (runs === undefined ? MINUTES : undefined)
  const failed = await stress({
    seed,
    ...(options.run !== undefined && { first: options.run }),
    ...(runs !== undefined && { runs }),
    ...(minutes !== undefined && { forMs: minutes * 60_000 }),
    ...(options.memory !== undefined && { draw: { memory: options.memory * 2 ** 20 } }),
    namespaces: options.namespaces,
    say,
  })
  well = failed.length === 0
}
process.exitCode = well ? 0 : 1
