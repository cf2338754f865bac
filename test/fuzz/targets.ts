// Every fuzz target, by name.

import { receiverTargets } from './receivers.js'
import { stateTargets } from './state.js'
import type { AsyncTarget, Target } from './target.js'
import { wholeTargets } from './whole.js'
import { wireTargets } from './wire.js'

export const TARGETS: readonly (Target | AsyncTarget)[] = [
  ...wireTargets,
  ...stateTargets,
  ...receiverTargets,
  ...wholeTargets,
]

/** A target by its name. */
export function targetNamed(name: string): Target | AsyncTarget | undefined {
  return TARGETS.find((target) => target.name === name)
}
