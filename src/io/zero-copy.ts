// The sends of one connection that the kernel does not copy: how many it still holds the memory of.
//
// Every sendmsg with MSG_ZEROCOPY that moved a byte has a number of its own, from 0; notifications name ranges of them.

import { CompletionReader, enableZeroCopy } from '../os/zero-copy.js'

export class ZeroCopySends {
  /** Most sends that may be under way: each locks as much memory as a packet has. */
  readonly most: number
  readonly #completions: CompletionReader
  #queued = 0
  #completed = 0
  #copied = 0

  /** @throws MultifdError ERR_MULTIFD_IO where the kernel refuses */
  constructor(fd: number, most: number) {
    this.most = most
    enableZeroCopy(fd)
    this.#completions = new CompletionReader(fd)
  }

  /** Sends whose memory the kernel may still read. */
  get outstanding(): number {
    return this.#queued - this.#completed
  }

  /** Counts a send that moved bytes. */
  note(): void {
    this.#queued++
  }

  /** Takes the notifications that wait; returns whether there were any. */
  collect(): boolean {
    const before = this.#completed
    for (let next = this.#completions.next(); next; next = this.#completions.next()) {
      this.#completed += next.count
      if (next.copied) this.#copied += next.count
    }
    return this.#completed > before
  }

  /** Sends that the kernel copied after all, since the last call. */
  takeCopied(): number {
    const copied = this.#copied
    this.#copied = 0
    return copied
  }
}
