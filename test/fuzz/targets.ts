// Every fuzz target, by name.

import { receiverTargets } from './receivers.js'
import { stateTargets } from './state.js'
import type { Target } from './target.js'
import { wireTargets } from './wire.js'

export const TARGETS: readonly Target[] = [...wireTargets, ...stateTargets, ...receiverTargets]

/** A target by its name. */
export function targetNamed(name: string): Target | undefined {
  return TARGETS.find((target) => target.name === name)
}
