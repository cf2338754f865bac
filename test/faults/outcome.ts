// How what is broken on the walk ended.

import { setTimeout as delay } from 'node:timers/promises'
import { MultifdError } from '../../src/errors.js'
import type { FaultSide } from '../../src/faults.js'
import type { Logger } from '../../src/log.js'

export interface Ended {
  /** A code, `completed`, `waits`, or `hangs`. */
  outcome: string
  error?: Error
}

/** What was broken, and what is wrong with it so far. */
export interface Broken {
  ended: Partial<Record<FaultSide, Ended>>
  ms: number
  problems: string[]
  /** Does the same once more with nothing broken; says what is wrong then. */
  again(): Promise<string[]>
}

export async function ended(migration: Promise<unknown>): Promise<Ended> {
  try {
    await migration
    return { outcome: 'completed' }
  } catch (thrown) {
    const error = thrown as Error
    return { outcome: error instanceof MultifdError ? error.code : error.name, error }
  }
}

export async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const abort = new AbortController()
  try {
    return await Promise.race([promise, delay(ms, undefined, { signal: abort.signal })])
  } finally {
    abort.abort()
  }
}

/** An error is of one line, and says something. */
export function unclear(side: FaultSide, { message }: Error): string[] {
  return /\n/.test(message) || message.length < 10 ? [`the ${side}'s error is no line: ${message}`] : []
}

export function collecting(lines: string[]): Logger {
  const quiet = (): void => {}
  return {
    debug: quiet,
    info: quiet,
    warn: quiet,
    error: (_, line) => void lines.push(line),
    isLevelEnabled: () => false,
  }
}
