// The calling thread's identity in the operating system, and what it does between two migrations.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { libc } from './libc.js'

const PR_SET_NAME = 15
const NAME_BYTES = 15
// A thread collects garbage when it has rested for so long, or has had so many tasks without a rest: it takes some 6 ms.
const REST_MS = 250
const MOST_TASKS = 8

/** Names the calling thread, as `top -H` shows it. Returns its id (Linux's tid). */
export function nameThread(name: string): number {
  const bytes = new Uint8Array(NAME_BYTES + 1)
  bytes.set(new TextEncoder().encode(name).subarray(0, NAME_BYTES))
  libc().prctl(PR_SET_NAME, bytes)
  return libc().gettid()
}

/** Of a thread that waits for its next migration. */
export const IDLE_THREAD = 'multifd/idle'

let tasks = 0
let rest: NodeJS.Timeout | undefined

/**
 * The calling thread has done its task: names it as one that waits for its next migration, and has it collect garbage soon.
 *
 * By itself it would not for hundreds of migrations. The engine counts a shared memory as an object of a few bytes, so
 * each program that left would keep its memory for as long as one such thread has seen it.
 */
export function restThread(): void {
  nameThread(IDLE_THREAD)
  clearTimeout(rest)
  rest = setTimeout(collect, ++tasks < MOST_TASKS ? REST_MS : 0).unref()
}

let gc: (() => void) | undefined

function collect(): void {
  tasks = 0
  gc ??= exposed()
  gc?.()
}

// The flag is the whole process's, and another thread may take it back in between: then the next time will do.
function exposed(): typeof gc {
  setFlagsFromString('--expose-gc')
  const found = runInNewContext('globalThis.gc')
  setFlagsFromString('--no-expose-gc')
  return found
}

/** Lets those run first who wait for this processor. */
export function giveWay(): void {
  libc().sched_yield()
}
