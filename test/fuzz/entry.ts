// What the coverage-guided fuzzer calls: the target that MULTIFD_FUZZ_TARGET names.

import { execute, executeLater, isAsync } from './target.js'
import { targetNamed } from './targets.js'

const { MULTIFD_FUZZ_TARGET = '' } = process.env
const target = targetNamed(MULTIFD_FUZZ_TARGET)
if (!target) throw new Error(`there is no fuzz target '${MULTIFD_FUZZ_TARGET}'`)
const chosen = target

export function fuzz(data: Buffer): unknown {
  // A copy: the fuzzer's own memory is used again.
  const input = new Uint8Array(data)
  return isAsync(chosen) ? executeLater(chosen, input) : void execute(chosen, input)
}
