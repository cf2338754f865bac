// What the coverage-guided fuzzer calls: the target that MULTIFD_FUZZ_TARGET names.

import { execute } from './target.js'
import { targetNamed } from './targets.js'

const { MULTIFD_FUZZ_TARGET = '' } = process.env
const target = targetNamed(MULTIFD_FUZZ_TARGET)
if (!target) throw new Error(`there is no fuzz target '${MULTIFD_FUZZ_TARGET}'`)
const chosen = target

export function fuzz(data: Buffer): void {
  // A copy: the fuzzer's own memory is used again.
  execute(chosen, new Uint8Array(data))
}
