// Pools of threads that outlive a migration for a while: a thread's start takes 40 ms of a processor.

import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { giveBackFreed } from '../os/memory.js'

// Between two migrations of a program that moves on and on, or receives and sends on.
const KEEP_MS = 5000

// A channel's thread has next to nothing on its heap; V8's defaults would set far more aside for each.
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 256, stackSizeMb: 2 }

interface IdlePool {
  pool: Piscina
  end: NodeJS.Timeout
}

const idle = new Set<IdlePool>()

/**
 * A pool of its own for the length of a migration: one that an earlier migration left, or a new one.
 *
 * @param file the threads' entry file, which exports what a task runs
 * @param threads that it has room for
 * @param atOnce threads that a new one starts before it is asked to
 */
export function takePool(file: URL, threads: number, atOnce: number): Piscina {
  const filename = fileURLToPath(file)
  const fitting = [...idle].filter(({ pool: { options } }) => {
    return options.filename === filename && options.maxThreads >= threads
  })
  const found = fitting.sort((a, b) => a.pool.options.maxThreads - b.pool.options.maxThreads)[0]
  if (!found) return startPool(filename, threads, atOnce)
  clearTimeout(found.end)
  idle.delete(found)
  return found.pool
}

/** Gives a pool back whose tasks have all ended by themselves. */
export function keepPool(pool: Piscina): void {
  const entry: IdlePool = {
    pool,
    end: setTimeout(() => {
      idle.delete(entry)
      void endPools([pool])
    }, KEEP_MS).unref(),
  }
  idle.add(entry)
}

/**
 * Ends the threads that wait for another migration. They would end by themselves a few seconds after the last one; those of
 * a migration that runs are left alone.
 */
export async function endIdleThreads(): Promise<void> {
  const pools = [...idle].map(({ pool, end }) => {
    clearTimeout(end)
    return pool
  })
  idle.clear()
  await endPools(pools)
}

async function endPools(pools: Piscina[]): Promise<void> {
  await Promise.all(pools.map((pool) => pool.destroy()))
  if (pools.length > 0) giveBackFreed()
}

function startPool(filename: string, threads: number, atOnce: number): Piscina {
  // Few sizes, so that the next migration finds one that fits.
  const maxThreads = 2 ** Math.ceil(Math.log2(threads))
  return new Piscina({
    filename,
    minThreads: Math.min(atOnce, threads),
    maxThreads,
    // One thread a task, whoever of them is idle.
    concurrentTasksPerWorker: 1,
    idleTimeout: Number.POSITIVE_INFINITY,
    // A loader of the embedding program's has no business in them.
    execArgv: [],
    // A thread that waits for a task must not freeze in it: `destroy` could not end it.
    atomics: 'disabled',
    // What a coordinator that dies has open is closed once no channel's thread uses it any more: see threads.ts.
    trackUnmanagedFds: false,
    resourceLimits: THREAD_LIMITS,
  })
}
