// What a snapshot's RAM blocks hold, read from the file.

import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import type { Snapshot } from '../../src/snapshot/file.js'

/** SHA-256 of every block: its pages with data, and zeros where the bitmap has none. */
export function blockHashes({ path, blocks }: Snapshot): Record<string, string> {
  const fd = openSync(path, 'r')
  try {
    const hashes: Record<string, string> = {}
    for (const { idstr, size, pageSize, pagesOffset, populated } of blocks) {
      const hash = createHash('sha256')
      const bytes = Buffer.alloc(pageSize)
      for (let page = 0; page < size / pageSize; page++) {
        bytes.fill(0)
        if (populated.has(page)) readSync(fd, bytes, 0, pageSize, pagesOffset + page * pageSize)
        hash.update(bytes)
      }
      hashes[idstr] = hash.digest('hex')
    }
    return hashes
  } finally {
    closeSync(fd)
  }
}
