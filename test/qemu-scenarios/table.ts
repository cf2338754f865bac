// What a row of the table is: a scenario of QEMU's own migration tests, and what came of it with us at one of the ends.

import { MultifdError } from '../../src/index.js'
import type { QemuVersion } from '../support/qemu/index.js'
import type { Ground } from './ground.js'

/** Where a peer of ours stands: source, destination, reader or writer of the file, or driven by QMP. */
export type Role = 'S' | 'D' | 'F' | 'Q'

/** What came of a run, in words that are the same every time. */
export type Result =
  | { result: 'works'; seen: string }
  | { result: 'refused by name'; seen: string }
  | { result: 'not yet'; seen: string }
  | { result: 'not applicable'; seen: string }

/** One run: against a real QEMU wherever there is one to be had. */
export interface Run {
  roles: readonly Role[]
  /** The test of the default run that does the same: it is not done twice there. */
  covered?: string
  /** Whether QEMU 7.2 has what it needs, and is run as well. */
  old?: true
  /** Whether there is no QEMU in it. */
  alone?: true
  /** Throws where the scenario fails. */
  run(ground: Ground): Promise<Result>
}

export interface Row {
  /** As QEMU 10.0 names it, without `/migration/`. */
  name: string
  runs: readonly Run[]
  /** Why no peer of ours has a part in it; there are no runs then. */
  without?: string
}

export const NONE = '–'

/** The versions of QEMU that a run is done with. */
export function versionsOf({ alone, old }: Run): readonly (QemuVersion | typeof NONE)[] {
  if (alone) return [NONE]
  return old ? ['10.0', '7.2'] : ['10.0']
}

export function works(seen: string): Result {
  return { result: 'works', seen }
}

export function notYet(seen: string): Result {
  return { result: 'not yet', seen }
}

/** The refusal of something that we know and have not got. @throws where it is not refused, or by something else's code */
export async function refusedByName(...attempts: (() => unknown)[]): Promise<Result> {
  const codes = new Set<string>()
  for (const attempt of attempts) codes.add((await rejection(attempt)).code)
  return { result: 'refused by name', seen: [...codes].map((code) => `\`${code}\``).join(', ') }
}

/** The error that something must end with. */
export async function rejection(attempt: (() => unknown) | Promise<unknown>): Promise<MultifdError> {
  try {
    await (typeof attempt === 'function' ? attempt() : attempt)
  } catch (error) {
    if (error instanceof MultifdError) return error
    throw error
  }
  throw new Error('it was to fail, and did not')
}
