// The source's question whether its channels may choose a method for each packet: see src/wire/agreement.ts.

import { hasZstd } from '../method/zstd.js'
import { ADAPTIVE_ANSWER, ADAPTIVE_QUESTION } from '../wire/agreement.js'
import type { Coordinator } from './coordinator.js'
import type { ReturnPath } from './return-path.js'

const LOOK_MS = 100
/** A destination answers as soon as it has read so far; one that does not answer does not agree. */
const ANSWER_MS = 5000

/**
 * Settles, where `auto` is asked for, whether it is had. Where not, the channels send pages as they are, and a warning
 * says why.
 *
 * @param ping writes a PING of a value, and brings it and all before it on its way
 */
export function agreeOnMethod(
  coordinator: Coordinator,
  returnPath: ReturnPath | undefined,
  ping: (value: number) => void,
): void {
  const { multifd, multifdCompression } = coordinator.parameters
  if (multifdCompression !== 'auto') return
  const why = !multifd
    ? 'multifd is off'
    : !returnPath
      ? 'there is no return path to agree on it'
      : !hasZstd()
        ? 'this side has no zstd'
        : ask(coordinator, returnPath, ping)
  if (why === undefined) coordinator.shm.agreeAdaptive()
  else coordinator.tell({ type: 'warning', text: `compression auto: ${why}; pages are sent as they are` })
}

function ask(coordinator: Coordinator, returnPath: ReturnPath, ping: (value: number) => void): string | undefined {
  ping(ADAPTIVE_QUESTION)
  const deadline = performance.now() + ANSWER_MS
  while (performance.now() < deadline) {
    returnPath.poll()
    if (returnPath.pong === ADAPTIVE_ANSWER) return undefined
    if (returnPath.pong === ADAPTIVE_QUESTION) return 'the destination does not know it, or does not allow it'
    coordinator.checkStopped()
    returnPath.wait(LOOK_MS)
  }
  return `the destination did not answer within ${ANSWER_MS} ms`
}
