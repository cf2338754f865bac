// The JavaScript engine's settings, which are one for the whole process.

import { setFlagsFromString } from 'node:v8'

// Of V8, what a function must have run through, in bytes of bytecode, before it is looked at for optimizing.
const FLAG = '--interrupt-budget'
const BUDGET = 2_000_000
// The newest release line of Node on which this was tried; an unknown flag would be a line on standard error.
const NEWEST_TRIED = 24

let done = false

/**
 * Lets the engine optimize a function some milliseconds of its own running time later. By default it optimizes each thread's
 * loops in the middle of a migration, on processors that the transfer needs, and anew in every thread; what those loops do
 * per page is compiled already (src/wasm). Functions that stay hot are optimized all the same.
 *
 * Once for the process, and not where somebody has set the flag.
 */
export function delayOptimizing(): void {
  if (done) return
  done = true
  const [major = 0] = process.versions.node.split('.').map(Number)
  const { NODE_OPTIONS = '' } = process.env
  const given = [...process.execArgv, NODE_OPTIONS].join(' ').replaceAll('_', '-')
  if (major > NEWEST_TRIED || given.includes(FLAG)) return
  setFlagsFromString(`${FLAG}=${BUDGET}`)
}
