// Small things done with bytes.

import { createHash } from 'node:crypto'

export function concatBytes(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** Remembers byte strings that were tried: the same bytes end in the same way. */
export class Seen {
  readonly #digests = new Set<string>()

  /** Whether the parts, one after the other, are new. */
  add(...parts: Uint8Array[]): boolean {
    const hash = createHash('sha1')
    for (const part of parts) hash.update(part)
    const digest = hash.digest('base64')
    if (this.#digests.has(digest)) return false
    this.#digests.add(digest)
    return true
  }
}
