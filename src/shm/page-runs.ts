// Pages of one block as runs, in shared memory: what a batch carries from thread to thread, and what the page kernel
// works on.
//
//   word  0     number of runs
//         1     number of pages
//         2 …   a run: index of its first page, number of its pages

const RUNS = 0
const PAGES = 1
const LIST = 2

/** Words that so many runs take. */
export function runWords(capacity: number): number {
  return LIST + 2 * capacity
}

export class PageRuns {
  /** Where the list starts, bytes from the memory's start. */
  readonly at: number
  readonly #words: Uint32Array

  /** @param at bytes from the buffer's start, a multiple of 4 */
  constructor(buffer: SharedArrayBuffer, at: number, capacity: number) {
    this.at = at + 4 * LIST
    this.#words = new Uint32Array(buffer, at, runWords(capacity))
  }

  /** In memory of its own. */
  static alone(capacity: number): PageRuns {
    return new PageRuns(new SharedArrayBuffer(4 * runWords(capacity)), 0, capacity)
  }

  /** Number of runs. */
  get count(): number {
    return this.#words[RUNS]!
  }

  /** Number of pages. */
  get pages(): number {
    return this.#words[PAGES]!
  }

  /** Index of a run's first page. */
  first(run: number): number {
    return this.#words[LIST + 2 * run]!
  }

  /** Number of a run's pages. */
  length(run: number): number {
    return this.#words[LIST + 2 * run + 1]!
  }

  reset(): void {
    this.#words[RUNS] = 0
    this.#words[PAGES] = 0
  }

  /** Appends pages; those that follow on the last run's lengthen it. */
  push(first: number, pages: number): void {
    const words = this.#words
    const runs = words[RUNS]!
    words[PAGES] = words[PAGES]! + pages
    const last = LIST + 2 * (runs - 1)
    if (runs > 0 && words[last]! + words[last + 1]! === first) {
      words[last + 1] = words[last + 1]! + pages
      return
    }
    words[last + 2] = first
    words[last + 3] = pages
    words[RUNS] = runs + 1
  }

  /** Takes over a list that the page kernel wrote. */
  wrote(runs: number, pages: number): void {
    this.#words[RUNS] = runs
    this.#words[PAGES] = pages
  }
}

/** Reads a list in parts. */
export class PartReader {
  #runs!: PageRuns
  #run = 0
  // Pages of that run that were read.
  #done = 0

  start(runs: PageRuns): void {
    this.#runs = runs
    this.#run = 0
    this.#done = 0
  }

  /** Sets `part` to the next pages, `most` of them or what is left. */
  read(part: PageRuns, most: number): void {
    const runs = this.#runs
    part.reset()
    while (part.pages < most && this.#run < runs.count) {
      const left = runs.length(this.#run) - this.#done
      const pages = Math.min(left, most - part.pages)
      part.push(runs.first(this.#run) + this.#done, pages)
      if (pages === left) {
        this.#run++
        this.#done = 0
      } else this.#done += pages
    }
  }
}
