// Which method a channel's next packet gets: none, zstd at a low level, or zstd at a higher one.
//
// What counts is the time that a byte of pages takes, from one packet to the next, whatever it is spent on. A window of
// packets tells it for the method in use. For the others it is foreseen: where processors are free, compressing and
// sending go on side by side, so the slower of the two decides, `max(cost, ratio × link)`. Cost and ratio come from small
// samples, the link from how fast the packets of the window left. That is a promise: it is tried, and what does not keep
// it, because processors were not free, is taken back and left alone for a while. Pure: figures in, choice out.

export const CHOICES = ['none', 'low', 'high'] as const
export type Choice = (typeof CHOICES)[number]

/** A packet, as its channel saw it. */
export interface PacketFigures {
  /** Bytes of pages. */
  raw: number
  /** Bytes of payload. */
  wire: number
  /** ms spent on compressing. */
  compressMs: number
  /** ms from the packet's begin to the next one's. */
  totalMs: number
}

/** Shortest window: enough packets that a hiccup does not decide; on a slow link fewer take long enough. */
const WINDOWS = [
  { packets: 4, ms: 20 },
  { packets: 2, ms: 30 },
] as const
/** Packets after a change that fill or empty what lies between the channel and the link. */
const SETTLE_PACKETS = 2
/** A change must promise this share of the time, at most. */
const WORTH = 0.92
/** It is kept when it takes less than this share of the time before, and given up early above the other. */
const KEPT = 0.97
const HOPELESS = 1.5
const HOPELESS_PACKETS = 2
/** A share of the time spent on compressing above which the time says little of the link. */
const BUSY = 0.5
/** Windows until what failed is tried again, and until less compression is tried by a channel that never waits. */
const RETRY_WINDOWS = 16
const RETRY_WINDOWS_MAX = 256
const PROBE_WINDOWS = 32
const PROBE_WINDOWS_MAX = 256
/** Windows between samples: while they matter, and while compressing is far too slow for the link. */
const SAMPLE_WINDOWS = 4
const SAMPLE_WINDOWS_FAR = 32
const FAR = 2
/** Weight of the newest measurement. */
const FRESH = 0.4

interface Known {
  /** ms of compressing a byte of pages. */
  cost: number
  /** Bytes of payload of a byte of pages. */
  ratio: number
}

interface Trial {
  from: Choice
  /** ms a byte before. */
  before: number
}

export class AdaptivePolicy {
  #choice: Choice = 'none'
  readonly #known: Record<Choice, Known | undefined> = { none: { cost: 0, ratio: 1 }, low: undefined, high: undefined }
  readonly #blockedUntil: Record<Choice, number> = { none: 0, low: 0, high: 0 }
  readonly #retry: Record<Choice, number> = { none: RETRY_WINDOWS, low: RETRY_WINDOWS, high: RETRY_WINDOWS }
  // ms that the link takes for a byte of payload, as last seen; it may be faster.
  #link = Number.POSITIVE_INFINITY
  // ms a byte of pages takes with the choice that is kept.
  #time: number | undefined
  #trial: Trial | undefined
  #windows = 0
  #sampleAt = 0
  #probeAt = PROBE_WINDOWS
  #probeEvery = PROBE_WINDOWS
  #settle = 0
  #packets = 0
  #raw = 0
  #wire = 0
  #compressMs = 0
  #totalMs = 0

  /** What the next packet gets. */
  get choice(): Choice {
    return this.#choice
  }

  /** Whether {@link sampled} is wanted for the choices that are not in use. */
  get wantsSamples(): boolean {
    return this.#windows >= this.#sampleAt
  }

  /** What compressing a little with a method cost. */
  sampled(choice: Choice, raw: number, wire: number, ms: number): void {
    this.#learn(choice, ms / raw, wire / raw)
  }

  /** The samples that were wanted are taken. */
  samplesTaken(): void {
    this.#sampleAt = this.#windows + (this.#far ? SAMPLE_WINDOWS_FAR : SAMPLE_WINDOWS)
  }

  /** A packet of the present choice is on its way, and the next one begins. */
  sent({ raw, wire, compressMs, totalMs }: PacketFigures): void {
    if (this.#settle > 0) {
      this.#settle--
      return
    }
    this.#packets++
    this.#raw += raw
    this.#wire += wire
    this.#compressMs += compressMs
    this.#totalMs += totalMs
    const whole = WINDOWS.some(({ packets, ms }) => this.#packets >= packets && this.#totalMs >= ms)
    if (whole) this.#closeWindow()
    else if (this.#trial && this.#packets >= HOPELESS_PACKETS) {
      if (this.#totalMs / this.#raw > HOPELESS * this.#trial.before) this.#closeWindow()
    }
  }

  get #far(): boolean {
    const low = this.#known.low
    return this.#choice === 'none' && low !== undefined && low.cost > FAR * this.#link
  }

  #learn(choice: Choice, cost: number, ratio: number): void {
    const known = this.#known[choice]
    if (known) {
      known.cost += FRESH * (cost - known.cost)
      known.ratio += FRESH * (ratio - known.ratio)
    } else this.#known[choice] = { cost, ratio }
  }

  #closeWindow(): void {
    const raw = this.#raw
    const time = this.#totalMs / raw
    const busy = this.#compressMs / this.#totalMs > BUSY
    const link = this.#totalMs / this.#wire
    // A channel that is busy with compressing tells only how fast the link is at least.
    this.#link = busy ? Math.min(this.#link, link) : link
    if (this.#choice !== 'none') this.#learn(this.#choice, this.#compressMs / raw, this.#wire / raw)
    this.#windows++
    this.#begin(0)
    const trial = this.#trial
    this.#trial = undefined
    if (trial && time > KEPT * trial.before) {
      this.#takeBack(trial.from)
      return
    }
    if (trial) {
      this.#retry[this.#choice] = RETRY_WINDOWS
      this.#probeEvery = PROBE_WINDOWS
      this.#probeAt = this.#windows + PROBE_WINDOWS
      this.#time = time
    }
    this.#time = this.#time === undefined ? time : this.#time + FRESH * (time - this.#time)
    this.#choose(this.#time, busy)
  }

  #takeBack(from: Choice): void {
    const failed = this.#choice
    this.#blockedUntil[failed] = this.#windows + this.#retry[failed]
    this.#retry[failed] = Math.min(2 * this.#retry[failed], RETRY_WINDOWS_MAX)
    this.#probeEvery = Math.min(2 * this.#probeEvery, PROBE_WINDOWS_MAX)
    this.#probeAt = this.#windows + this.#probeEvery
    this.#choice = from
    this.#begin(SETTLE_PACKETS)
    // #time is still that of `from`.
  }

  #choose(time: number, busy: boolean): void {
    let best = this.#choice
    let bestTime = WORTH * time
    for (const other of CHOICES) {
      const known = this.#known[other]
      if (other === this.#choice || !known || this.#windows < this.#blockedUntil[other]) continue
      const foreseen = Math.max(known.cost, known.ratio * this.#link)
      if (foreseen >= bestTime) continue
      best = other
      bestTime = foreseen
    }
    // Nothing tells a channel that never waits how fast the link has become: it has to try.
    if (best === this.#choice && busy && this.#windows >= this.#probeAt) {
      best = CHOICES[CHOICES.indexOf(best) - 1] ?? best
      this.#probeAt = this.#windows + this.#probeEvery
    }
    if (best === this.#choice) return
    this.#trial = { from: this.#choice, before: time }
    this.#choice = best
    this.#begin(SETTLE_PACKETS)
  }

  #begin(settle: number): void {
    this.#settle = settle
    this.#packets = 0
    this.#raw = 0
    this.#wire = 0
    this.#compressMs = 0
    this.#totalMs = 0
  }
}
