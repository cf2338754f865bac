// What a fuzz target is, and one execution of it with everything that must hold of any input.

import { deepStrictEqual } from 'node:assert'
import { getHeapStatistics } from 'node:v8'
import { type ErrorCode, MultifdError } from '../../src/errors.js'

/** What an input came to: a value, or an error of the target's codes. */
export type Outcome = 'value' | ErrorCode

export interface Target {
  name: string
  /** Longest input, bytes. */
  maxSize: number
  /** The codes that an input may end in. */
  codes: readonly ErrorCode[]
  /** Inputs to begin with, besides the corpus. */
  seeds(): Uint8Array[]
  /** Takes any bytes; throws a MultifdError, or anything else where a property does not hold. */
  run(input: Uint8Array): void
}

/** One over sockets and in threads, which takes its time. */
export interface AsyncTarget extends Omit<Target, 'run'> {
  /** Damaged inputs in the short form. */
  runs: number
  run(input: Uint8Array): Promise<void>
}

export function isAsync(target: Target | AsyncTarget): target is AsyncTarget {
  return 'runs' in target
}

/** What an execution may allocate however short the input is, bytes, and for each byte of input. */
const MEMORY_BASE = 48 * 2 ** 20
const MEMORY_PER_BYTE = 256
/** An execution that takes longer hangs, ms. */
const HANG_MS = 5000

// The stacks of expected errors would be most of the time.
Error.stackTraceLimit = 5

/** Runs once. Throws where an input ends in anything but a value or a code of the target's, hangs, or takes memory out of proportion. */
export function execute(target: Target, input: Uint8Array): Outcome {
  const check = begin(target, input)
  let thrown: [unknown] | [] = []
  try {
    target.run(input)
  } catch (error) {
    thrown = [error]
  }
  return check(...thrown)
}

/** The same where it takes more than a call. */
export async function executeLater(target: AsyncTarget, input: Uint8Array): Promise<Outcome> {
  const check = begin(target, input)
  let thrown: [unknown] | [] = []
  try {
    await target.run(input)
  } catch (error) {
    thrown = [error]
  }
  return check(...thrown)
}

/** Notes what there is before a run, and gives what looks at its end. */
function begin(
  { name, codes }: Pick<Target, 'name' | 'codes'>,
  input: Uint8Array,
): (...thrown: [unknown] | []) => Outcome {
  const memory = allocated()
  const began = performance.now()
  return (...thrown) => {
    const [error] = thrown
    let outcome: Outcome = 'value'
    if (thrown.length > 0) {
      if (!(error instanceof MultifdError)) throw error
      if (!codes.includes(error.code)) throw new Error(`${name} ends in ${error.code}`, { cause: error })
      outcome = error.code
    }
    const took = performance.now() - began
    if (took > HANG_MS) throw new Error(`${name} takes ${took.toFixed(0)} ms for ${input.length} bytes`)
    const grown = allocated() - memory
    if (grown > MEMORY_BASE + MEMORY_PER_BYTE * input.length) {
      throw new Error(`${name} takes ${grown} bytes of memory for ${input.length} bytes`)
    }
    return outcome
  }
}

function allocated(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

/** That what was decoded is encoded, and decoded again as the same. */
export function comesAgain<T>(value: T, encode: (value: T) => Uint8Array, decode: (bytes: Uint8Array) => T): void {
  deepStrictEqual(decode(encode(value)), value)
}
