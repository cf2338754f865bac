// CPU time and peak memory of a process, from /proc: the same for Node and for QEMU, ended threads included.

import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { RESIDENT_PART } from './data.js'
import type { Measurement, Memory, Session, Side } from './pairing.js'
import { holdMemory } from './temporary.js'

// USER_HZ, which is 100 on every Linux that Node runs on.
const TICKS_PER_SECOND = 100
const UTIME = 11 // fields after the name's closing bracket
const STIME = 12
const RESET_PEAK = '5'
const REST_MS = 100
const REST_MAX_MS = 10_000

function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND
}

function peakBytes(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1] ?? Number.NaN) * 1024
}

/** Measures one process from its construction on. */
class Meter {
  readonly #pid: number
  readonly #cpu: number

  constructor(pid: number) {
    this.#pid = pid
    writeFileSync(`/proc/${pid}/clear_refs`, RESET_PEAK)
    this.#cpu = cpuSeconds(pid)
  }

  read(): { cpu: number; peak: number } {
    return { cpu: cpuSeconds(this.#pid) - this.#cpu, peak: peakBytes(this.#pid) }
  }
}

/** Bytes of the RAM that are resident on each side in the end, and of those that nobody has touched before. */
export interface Ram {
  resident: Side<number>
  fresh: number
}

/** Zeros are no data: memory that gets nothing else stays untouched. */
export function ramOf({ bytes, data }: Session, memory: Memory): Ram {
  const held = bytes * RESIDENT_PART[data]
  const touched = memory === 'touched'
  return { resident: { source: held, destination: touched ? bytes : held }, fresh: touched ? 0 : held }
}

/**
 * Measures both processes of a run. The destination's part begins before it listens: its threads are part of its cost,
 * as the source's are of the source's. The source gets its order when the destination has come to rest. `migrate` calls
 * `begins` when the set-up is over: then there is free memory for the RAM.
 */
export async function metered(
  pids: Side<number>,
  ram: Ram,
  listen: () => Promise<string>,
  migrate: (uri: string, begins: () => void) => Promise<{ setupMs: number; transferMs: number }>,
): Promise<Measurement> {
  const destination = new Meter(pids.destination)
  const uri = await listen()
  await atRest(pids.destination)
  const free = ram.fresh > 0 ? holdMemory(ram.fresh) : (): void => {}
  const source = new Meter(pids.source)
  const { setupMs, transferMs } = await migrate(uri, free).finally(free)
  const [src, dst] = [source.read(), destination.read()]
  return {
    setupMs,
    transferMs,
    cpu: { source: src.cpu, destination: dst.cpu },
    beyondRam: { source: src.peak - ram.resident.source, destination: dst.peak - ram.resident.destination },
  }
}

/** Waits until a process takes next to no CPU time: its threads are up and wait. */
async function atRest(pid: number): Promise<void> {
  let before = Number.NaN
  for (const deadline = performance.now() + REST_MAX_MS; performance.now() < deadline; ) {
    const now = cpuSeconds(pid)
    if (now === before) return
    before = now
    await sleep(REST_MS)
  }
}
