// What a thread that made system calls, or served migrations, leaves behind and holds on to.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { endIdleThreads, MigrationDestination, MigrationSource, RamBlock } from '../../src/index.js'
import { foreignCallback } from '../../src/os/libc.js'

/** Address space that the engine sets aside for one shared memory, at least. */
const RESERVED = 2 ** 32
/** A thread that rests has collected its garbage by then, ms. */
const RESTED_MS = 800

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

const mappings = (): number => readFileSync('/proc/self/maps', 'utf8').split('\n').length

function addressSpace(): number {
  const [, kibibytes] = /^VmSize:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))!
  return Number(kibibytes) * 1024
}

/** Waits until nothing is left that a collector can give back. */
async function collect(): Promise<void> {
  for (let round = 0; round < 3; round++) {
    gc()
    // What was collected is given back by a thread of the engine's.
    await delay(50)
  }
}

t.test('a thread that made system calls leaves no mapping when it ends', async (t) => {
  const THREADS = 20
  const calls = `import { libc } from ${JSON.stringify(new URL('../../src/os/libc.js', import.meta.url).href)}; libc().gettid()`
  const run = async (): Promise<void> => {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(calls)}`), { execArgv: [] })
    const [code] = await once(worker, 'exit')
    if (code !== 0) t.fail(`the thread ended with ${code}`)
  }
  for (let warm = 0; warm < 5; warm++) await run()
  await collect()
  const before = mappings()
  for (let thread = 0; thread < THREADS; thread++) await run()
  await collect()
  t.ok(mappings() - before < THREADS, `${mappings() - before} mappings more after ${THREADS} threads`)
})

t.test('threads that wait for a migration do not hold the memory of programs that left', async (t) => {
  const MIGRATIONS = 20
  const migrate = async (): Promise<void> => {
    const make = (): RamBlock => RamBlock.allocate({ idstr: 'heap', size: 2 ** 20 })
    const parameters = { multifdChannels: 2 }
    const destination = new MigrationDestination({ ram: [make()], parameters })
    const source = new MigrationSource({ ram: [make()], parameters })
    await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
    await destination.completed
    await Promise.all([source.close(), destination.close()])
  }
  t.teardown(endIdleThreads)
  await migrate()
  await delay(RESTED_MS)
  await collect()
  const before = addressSpace()
  for (let count = 0; count < MIGRATIONS; count++) await migrate()
  await delay(RESTED_MS)
  await collect()
  const held = (addressSpace() - before) / RESERVED
  // Two blocks, and what threads share on each side.
  t.ok(held < MIGRATIONS, `at most ${held.toFixed(0)} of ${4 * MIGRATIONS} memories are still there`)
})

t.test('a callback for foreign code leaves nothing on the heap when it is released', async (t) => {
  const CALLBACKS = 1000
  const make = (): void => foreignCallback('int called(int)', () => 0).release()
  const heap = (): number => getHeapStatistics().used_global_handles_size
  make()
  await collect()
  const before = heap()
  for (let count = 0; count < CALLBACKS; count++) make()
  await collect()
  t.ok(heap() - before < 8 * CALLBACKS, `${heap() - before} bytes of handles after ${CALLBACKS} callbacks`)
})
