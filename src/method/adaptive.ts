// Method auto of a source, towards a destination of ours that agreed to it: each packet is plain or zstd at one of two
// levels, as the channel's policy has it. Plain packets leave the zstd stream alone; another level ends the frame and
// begins one, which is what libzstd permits (a level that is set inside a frame counts from the next frame on).

import type { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { RamBlock } from '../ram/block.js'
import type { PageRuns } from '../shm/page-runs.js'
import { MAX_PAYLOAD_SIZE, MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { AdaptivePolicy, CHOICES, type Choice } from './adaptive-policy.js'
import { CompressedSend, type Compressor, type Span, spanOf } from './compressed.js'
import type { SendMethod } from './method.js'
import { NoneSend } from './none.js'
import { makeZstdCompressor } from './zstd.js'

/** Fast enough for most networks; and about the best that a slow one can be fed with. */
const LEVELS = { low: 1, high: 5 } as const
type Level = keyof typeof LEVELS
const LEVEL_NAMES = ['low', 'high'] as const
/** Pages of a batch that a sample takes, spread over it. */
const SAMPLE_PAGES = 8

/** Compressors of both levels, of which one has the frame. */
class TwoLevels implements Compressor {
  level: Level = 'low'
  readonly #compressors: Partial<Record<Level, Compressor>> = {}
  #open: Level | undefined

  compress(input: Span, chunk: PinnedBuffer, used: number, flush: boolean): number {
    const { level } = this
    let start = used
    if (this.#open !== undefined && this.#open !== level) start = this.#compressors[this.#open]!.end(chunk, used)
    this.#open = level
    this.#compressors[level] ??= makeZstdCompressor(LEVELS[level])
    return this.#compressors[level].compress(input, chunk, start, flush)
  }

  end(chunk: PinnedBuffer, used: number): number {
    const open = this.#open
    this.#open = undefined
    return open === undefined ? used : this.#compressors[open]!.end(chunk, used)
  }

  close(): void {
    for (const level of LEVEL_NAMES) this.#compressors[level]?.close()
  }
}

export class AdaptiveSend implements SendMethod {
  readonly #policy: Pick<AdaptivePolicy, keyof AdaptivePolicy>
  readonly #picked: (choice: Choice) => void
  readonly #none = new NoneSend()
  readonly #levels = new TwoLevels()
  readonly #zstd = new CompressedSend(MULTIFD_FLAG.zstd, this.#levels)
  // Samples have streams of their own: nothing of them is sent.
  readonly #probes: Partial<Record<Level, Compressor>> = {}
  #scratch: PinnedBuffer | undefined
  #flag = 0
  // The packet before, until the next one tells how long it took.
  #began = 0
  readonly #last = { raw: 0, wire: 0, compressMs: 0, totalMs: 0 }

  /** @param picked is told the choice of every packet with data */
  constructor(
    picked: (choice: Choice) => void,
    policy: Pick<AdaptivePolicy, keyof AdaptivePolicy> = new AdaptivePolicy(),
  ) {
    this.#picked = picked
    this.#policy = policy
  }

  get flag(): number {
    return this.#flag
  }

  prepare(runs: PageRuns, block: RamBlock, into: IoVector): number {
    const policy = this.#policy
    const last = this.#last
    const now = performance.now()
    if (last.raw > 0) {
      last.totalMs = now - this.#began
      policy.sent(last)
    }
    if (policy.wantsSamples) this.#sample(runs, block)
    const { choice } = policy
    const began = performance.now()
    this.#began = began
    last.raw = runs.pages * block.pageSize
    last.wire = this.#preparePacket(choice, runs, block, into)
    last.compressMs = choice === 'none' ? 0 : performance.now() - began
    this.#picked(choice)
    return last.wire
  }

  /** What is waited for now is no packet's. */
  rest(): void {
    this.#last.raw = 0
  }

  #preparePacket(choice: Choice, runs: PageRuns, block: RamBlock, into: IoVector): number {
    this.#flag = choice === 'none' ? 0 : MULTIFD_FLAG.zstd
    if (choice === 'none') return this.#none.prepare(runs, block, into)
    this.#levels.level = choice
    return this.#zstd.prepare(runs, block, into)
  }

  #sample(runs: PageRuns, block: RamBlock): void {
    this.#scratch ??= new PinnedBuffer(MAX_PAYLOAD_SIZE)
    const pages = samplePages(runs)
    for (const level of LEVEL_NAMES) {
      if (level === this.#policy.choice) continue
      // A stream's first sample pays for its tables: it is taken twice.
      if (!this.#probes[level]) this.#compressSample(level, pages, block)
      const began = performance.now()
      const wire = this.#compressSample(level, pages, block)
      this.#policy.sampled(level, pages.length * block.pageSize, wire, performance.now() - began)
    }
    this.#policy.samplesTaken()
  }

  #compressSample(level: Level, pages: readonly number[], block: RamBlock): number {
    this.#probes[level] ??= makeZstdCompressor(LEVELS[level])
    const probe = this.#probes[level]
    let used = 0
    for (const [at, page] of pages.entries()) {
      const input = spanOf(block, page * block.pageSize, block.pageSize)
      used = probe.compress(input, this.#scratch!, used, at + 1 === pages.length)
    }
    return used
  }

  close(): void {
    this.#zstd.close()
    for (const level of LEVEL_NAMES) this.#probes[level]?.close()
  }
}

export { CHOICES, type Choice }

function samplePages(runs: PageRuns): number[] {
  const count = Math.min(SAMPLE_PAGES, runs.pages)
  const picked: number[] = []
  let before = 0
  for (let run = 0; run < runs.count && picked.length < count; run++) {
    const end = before + runs.length(run)
    for (;;) {
      const wanted = Math.floor((picked.length * runs.pages) / count)
      if (picked.length === count || wanted >= end) break
      picked.push(runs.first(run) + wanted - before)
    }
    before = end
  }
  return picked
}
