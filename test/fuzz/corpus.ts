// The inputs that are kept in the repository, by target: one file an input, named by its content.

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

// This module runs as dist/test/fuzz/corpus.js; the corpus is not compiled.
const ROOT = fileURLToPath(new URL('../../../test/fuzz/corpus/', import.meta.url))

/** The folder of a target's inputs. */
export function corpusFolder(target: string): string {
  return join(ROOT, target)
}

/** Every file of a folder. */
export function readInputs(folder: string): Uint8Array[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .sort()
    .map((name) => new Uint8Array(readFileSync(join(folder, name))))
}

export function writeInputs(folder: string, inputs: Iterable<Uint8Array>): void {
  mkdirSync(folder, { recursive: true })
  for (const input of inputs) writeFileSync(join(folder, createHash('sha1').update(input).digest('hex')), input)
}
