// The calling thread's identity in the operating system.

import { libc } from './libc.js'

const PR_SET_NAME = 15
const NAME_BYTES = 15

/** Names the calling thread, as `top -H` shows it. Returns its id (Linux's tid). */
export function nameThread(name: string): number {
  const bytes = new Uint8Array(NAME_BYTES + 1)
  bytes.set(new TextEncoder().encode(name).subarray(0, NAME_BYTES))
  libc().prctl(PR_SET_NAME, bytes)
  return libc().gettid()
}

/** Of a thread that waits for its next migration. */
export const IDLE_THREAD = 'multifd/idle'

/** Names the calling thread as one that waits for its next migration. */
export function nameIdleThread(): void {
  nameThread(IDLE_THREAD)
}

/** Lets those run first who wait for this processor. */
export function giveWay(): void {
  libc().sched_yield()
}
