// The descriptors that a thread has open: whoever finds that thread dead closes them.

/** Most that are noted of a coordinator, which has far fewer. */
export const DESCRIPTORS_MAX = 1024

/** Each word has a descriptor plus 1, or 0. Written by that thread only, read once it is no more. */
export class OpenDescriptors {
  readonly #words: Int32Array

  constructor(words: Int32Array) {
    this.#words = words
  }

  add(fd: number): void {
    if (this.#words.includes(fd + 1)) return
    const free = this.#words.indexOf(0)
    if (free >= 0) Atomics.store(this.#words, free, fd + 1)
  }

  remove(fd: number): void {
    const at = this.#words.indexOf(fd + 1)
    if (at >= 0) Atomics.store(this.#words, at, 0)
  }

  list(): number[] {
    return [...this.#words].filter((word) => word !== 0).map((word) => word - 1)
  }
}
