// What a page of a stressed program holds: a function of where it is and how often it was written, and of nothing else.
//
// So the record of what was written is one version a page, kept apart from the memory that is moved.

const PAGE = 4096
const WORDS = PAGE / 4

/**
 * What a page's versions are made of. `noise`: nothing compresses it. `text`: everything does. `mixed`: page by page, with
 * zero pages. `zeroing`: every second version is zero. `patches`: a new page now and then, and a few bytes of it in between.
 */
export const CONTENTS = ['noise', 'text', 'mixed', 'zeroing', 'patches'] as const
export type Content = (typeof CONTENTS)[number]

/** Versions that share a page's ground, each with some words more of its own. */
const PATCHES = 16
const PATCH_WORDS = 4

const LETTERS = new TextEncoder().encode('the quick brown fox jumps over the lazy dog and away from it again; ')

function mix(a: number, b: number, c: number): number {
  let hash = Math.imul(a + 1, 0x85ebca6b) ^ Math.imul(b + 1, 0xc2b2ae35) ^ Math.imul(c + 1, 0x27d4eb2f)
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39)
  return (hash ^ (hash >>> 15)) | 0
}

/** Writes and checks pages of one block. */
export class PageContents {
  readonly #block: number
  readonly #content: Content
  readonly #page = new Int32Array(WORDS)
  readonly #bytes = new Uint8Array(this.#page.buffer)

  /** @param block its number among the program's blocks */
  constructor(block: number, content: Content) {
    this.#block = block
    this.#content = content
  }

  /** The page in that version; valid until the next call. Version 0 is memory that nobody wrote to: zero. */
  page(page: number, version: number): Uint8Array {
    this.#draw(page, version)
    return this.#bytes
  }

  /**
   * Brings a page from the version before to `version`: only what changes is written.
   *
   * @param bytes the whole block's
   */
  write(bytes: Uint8Array, page: number, version: number): void {
    this.#draw(page, version)
    const at = page * PAGE
    const minor = version % PATCHES
    if (this.#content !== 'patches' || minor === 0 || version < PATCHES) {
      bytes.set(this.#bytes, at)
      return
    }
    for (let patch = 0; patch < PATCH_WORDS; patch++) {
      const word = this.#patchAt(page, version, patch)
      bytes.set(this.#bytes.subarray(word * 4, word * 4 + 4), at + word * 4)
    }
  }

  #draw(page: number, version: number): void {
    const words = this.#page
    if (version === 0) {
      words.fill(0)
      return
    }
    if (this.#content !== 'patches') {
      this.#ground(this.#kind(page, version), page, version)
      return
    }
    // Versions below the first ground have one of their own, so that none is zero but the untouched.
    const major = version < PATCHES ? version : version - (version % PATCHES)
    this.#ground('mixed', page, major)
    for (let minor = major + 1; minor <= version; minor++) {
      for (let patch = 0; patch < PATCH_WORDS; patch++) {
        words[this.#patchAt(page, minor, patch)] = mix(minor, page, patch)
      }
    }
  }

  #patchAt(page: number, version: number, patch: number): number {
    return (mix(page, version, patch) >>> 0) % WORDS
  }

  #kind(page: number, version: number): 'noise' | 'text' | 'zero' | 'mixed' {
    if (this.#content === 'noise' || this.#content === 'text') return this.#content
    if (this.#content === 'zeroing') return version % 2 === 0 ? 'zero' : 'mixed'
    return (['noise', 'text', 'zero', 'mixed'] as const)[(mix(this.#block, page, version) >>> 0) % 4]!
  }

  #ground(kind: 'noise' | 'text' | 'zero' | 'mixed', page: number, version: number): void {
    const words = this.#page
    const start = mix(this.#block, page, version)
    if (kind === 'noise') {
      let state = start || 1
      for (let at = 0; at < WORDS; at++) {
        state ^= state << 13
        state ^= state >>> 17
        state ^= state << 5
        words[at] = state
      }
      return
    }
    words.fill(0)
    if (kind === 'zero') return
    if (kind === 'text') {
      const shift = (start >>> 0) % LETTERS.length
      for (let at = 0; at < PAGE; at += LETTERS.length) {
        const room = Math.min(LETTERS.length, PAGE - at)
        this.#bytes.set(LETTERS.subarray(0, room), at)
      }
      this.#bytes.copyWithin(0, shift)
    }
    // A page that is zero but for a word, often its last; and what tells one version of text from another.
    const at = (start & 3) === 0 ? WORDS - 1 : (start >>> 2) % WORDS
    words[at] = start | 1
  }
}
