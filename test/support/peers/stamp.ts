// What a page of a test's program holds: words that name its block and its place in it, and how often it was changed.

import type { RamBlock } from '../../../src/ram/block.js'
import { PAGE } from './stream.js'

const WORDS = PAGE / 4
const MARK = 0x10000

/** Writes a page of a block as the program does. */
export function stamp(words: Int32Array, block: number, page: number, change: number): void {
  const first = page * WORDS
  for (let at = first; at < first + WORDS; at += 4) {
    words[at] = MARK + block
    words[at + 1] = page
    words[at + 2] = change
  }
}

export function wordsOf(block: RamBlock): Int32Array {
  return new Int32Array(block.memory!, 0, block.size / 4)
}

export function stampAll(blocks: readonly RamBlock[]): void {
  for (const [index, block] of blocks.entries()) {
    for (let page = 0; page < block.pages; page++) stamp(wordsOf(block), index, page, 0)
  }
}

/** Says which pages of `theirs` are not what `ours` has, or not where they belong. */
export function misplaced(ours: readonly RamBlock[], theirs: readonly RamBlock[]): string[] {
  const wrong: string[] = []
  for (const [index, block] of theirs.entries()) {
    const words = wordsOf(block)
    const expected = wordsOf(ours[index]!)
    for (let page = 0; page < block.pages; page++) {
      const first = page * WORDS
      if (words[first] !== MARK + index || words[first + 1] !== page) {
        wrong.push(`block ${index} page ${page} is block ${words[first]! - MARK} page ${words[first + 1]}`)
      } else if (words.subarray(first, first + WORDS).some((word, at) => word !== expected[first + at])) {
        wrong.push(`block ${index} page ${page} has change ${words[first + 2]}, not ${expected[first + 2]}`)
      }
    }
  }
  return wrong
}
