// Changes to a guest's memory that a source makes up, as a guest could.

import type { RamBlock } from '../../../src/index.js'
import { patternAddress, patternPages } from './pattern.js'
import { pageSize } from './program.js'

/**
 * What a guest could do to its memory: a byte of most pages, all of some, and some become zero for a while. The pages are
 * those of the pattern, and so no business of the guest's program.
 */
export function changePattern(ram: RamBlock, round: number): void {
  for (let at = 0; at < patternPages; at += 2) {
    const offset = patternAddress + at * pageSize
    const page = ram.bytes(offset, pageSize)
    const kind = (at / 2 + round) % 16
    if (kind === 0) page.fill(0)
    else if (kind === 1) for (let i = 0; i < pageSize; i++) page[i] = i * 3 + at + round
    else if (kind < 8) for (let i = round % 64; i < pageSize; i += 64) page[i]!++
    else page[(at * 7 + round) % pageSize]!++
    ram.markDirty(offset, pageSize)
  }
}
