// The adaptive method beside every fixed choice, at several bandwidth limits, on memory of mixed pages: how much slower
// than the best of them it is. Run by `npm run bench:adaptive`.

import { randomFillSync } from 'node:crypto'
import { Command } from 'commander'
import { byteCount, whole } from '../src/cli/options.js'
import { MigrationDestination, type MigrationParameters, MigrationSource, RamBlock } from '../src/index.js'
import { spread } from './statistics.js'

const BANDWIDTHS = [0.05e9, 0.5e9, 5e9]
const CHOICES: Record<string, Partial<MigrationParameters>> = {
  none: { multifdCompression: 'none' },
  zlib: { multifdCompression: 'zlib' },
  'zstd 1': { multifdCompression: 'zstd' },
  'zstd 5': { multifdCompression: 'zstd', multifdZstdLevel: 5 },
  auto: { multifdCompression: 'auto' },
}
const PAGE = 4096

interface Options {
  runs: number
  channels: number
  size: number
}

const { runs, channels, size } = new Command('bench:adaptive')
  .option('--runs <n>', 'how often each is measured', whole(1, 100), 3)
  .option('--channels <n>', 'parallel channels', whole(1, 255), 2)
  .option('--size <bytes>', 'memory to migrate', byteCount, 512 * 1024 ** 2)
  .parse()
  .opts<Options>()

/** Pages as programs have them: noise, text, pointers, sparse records. */
function fill(block: RamBlock): void {
  let seed = 1
  const random = (): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
    return seed >> 8
  }
  const words = 'the pages of a running machine go where it is to live from now on'.split(' ')
  const noise = Buffer.alloc(PAGE)
  for (let page = 0; page < block.pages; page++) {
    const at = block.bytes(page * PAGE, PAGE)
    const view = new DataView(at.buffer, at.byteOffset, PAGE)
    if (page % 4 === 0) at.set(randomFillSync(noise))
    else if (page % 4 === 1) {
      let text = ''
      while (text.length < PAGE) text += `${words[random() % words.length]} ${random() % 1000} `
      at.set(Buffer.from(text.slice(0, PAGE)))
    } else if (page % 4 === 2) {
      for (let i = 0; i < PAGE; i += 8) {
        view.setUint32(i, 0x55000000 + (random() % 65536) * 16, true)
        view.setUint32(i + 4, 0x7fff, true)
      }
    } else for (let i = 0; i < PAGE; i += 64) view.setUint32(i, random(), true)
  }
}

const ram = RamBlock.allocate({ idstr: 'heap', size })
const theirs = RamBlock.allocate({ idstr: 'heap', size })
fill(ram)
theirs.bytes().fill(1)

async function run(name: string, maxBandwidth: number): Promise<{ ms: number; wire: number; picks: string }> {
  const destination = new MigrationDestination({ ram: [theirs], parameters: { multifdChannels: channels } })
  const parameters = { ...CHOICES[name], multifdChannels: channels, maxBandwidth }
  const source = new MigrationSource({ ram: [ram], parameters })
  const figures = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  await Promise.all([source.close(), destination.close()])
  const picks = figures.multifdPicks ? JSON.stringify(figures.multifdPicks) : ''
  return { ms: figures.totalTime - (figures.setupTime ?? 0), wire: figures.ram.multifdBytes, picks }
}

const gigabytes = size / 1e9
await run('none', 0) // the first one pays for what is loaded
for (const bandwidth of BANDWIDTHS) {
  const times = new Map(Object.keys(CHOICES).map((name) => [name, [] as number[]]))
  const last = new Map<string, { wire: number; picks: string }>()
  // In turns, so that the machine's moods meet all alike.
  for (let turn = 0; turn < runs; turn++) {
    for (const name of times.keys()) {
      const result = await run(name, bandwidth)
      times.get(name)!.push(result.ms)
      last.set(name, result)
    }
  }
  console.log(`at ${bandwidth / 1e9} GB/s, ${channels} channels, median of ${runs}:`)
  const medians = new Map([...times].map(([name, list]) => [name, spread(list).median]))
  const best = Math.min(...[...medians].filter(([name]) => name !== 'auto').map(([, ms]) => ms))
  for (const [name, ms] of medians) {
    const { wire, picks } = last.get(name)!
    const rate = `${(gigabytes / (ms / 1000)).toFixed(2)} GB/s of pages`
    const share = `${(ms / best).toFixed(2)} of the best fixed choice's time`
    console.log(
      `  ${name.padEnd(7)} ${ms.toFixed(0).padStart(6)} ms  ${rate}, ${(wire / 1e6).toFixed(0)} MB, ${share} ${picks}`,
    )
  }
}
