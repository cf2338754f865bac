// What every failed migration is held to: an error that tells something, soon, and nothing left behind.

import type { Test } from 'tap'
import { type ErrorCode, MultifdError } from '../../../src/errors.js'
import { MigrationDestination, type MigrationParameters, type MigrationSource } from '../../../src/index.js'
import type { RamBlock } from '../../../src/ram/block.js'
import { allocate, checksums } from './memory.js'

export interface Expected {
  /** The code, or those that are right depending on which thread notices first. */
  code: ErrorCode | readonly ErrorCode[]
  /** What the message must say. */
  says: RegExp
  /** The error's `channel`, where only one can be meant. */
  channel?: 'main' | number
}

/** Resolves to what `promise` rejects with; fails when it resolves, or does neither in time. */
export async function rejection(promise: Promise<unknown>, withinMs = 20_000): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<unknown>((resolve) => {
    timer = setTimeout(() => resolve(new Error(`neither success nor failure within ${withinMs} ms`)), withinMs)
  })
  try {
    return await Promise.race([
      promise.then(
        () => new Error('it succeeded'),
        (error: unknown) => error,
      ),
      late,
    ])
  } finally {
    clearTimeout(timer)
  }
}

/** Checks an error against what is expected of it. */
export function tells(t: Test, error: unknown, { code, says, channel }: Expected): void {
  if (!(error instanceof MultifdError)) {
    t.fail(`not a MultifdError: ${error}`)
    return
  }
  const codes: readonly ErrorCode[] = typeof code === 'string' ? [code] : code
  t.ok(codes.includes(error.code), `${error.code} is ${codes.join(' or ')}: ${error.message}`)
  t.match(error.message, says)
  t.notMatch(error.message, /\n/, 'in one line')
  if (channel !== undefined) t.equal(error.channel, channel, 'names the channel')
}

/** A whole migration from `source` to a destination of its own, and the comparison of both memories. */
export async function worksAgain(
  t: Test,
  source: MigrationSource,
  ram: readonly RamBlock[],
  parameters: Partial<MigrationParameters> = {},
): Promise<void> {
  const theirs = allocate(ram)
  const destination = new MigrationDestination({ ram: theirs, parameters })
  const statistics = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  t.equal(statistics.status, 'completed', 'another migration works')
  t.strictSame(checksums(theirs), checksums(ram), 'and brings the same memory')
}
