// The adaptive method's policy against links, compressors and data that are simulated, so that the clock has no say.

import t from 'tap'
import { AdaptivePolicy, CHOICES, type Choice } from '../../src/method/adaptive-policy.js'

const PACKET = 524288

interface World {
  /** Bytes a ms. */
  link: number
  /** Bytes between the channel and the link. */
  buffer: number
  /** Bytes a ms that a method compresses, and what is left of a byte. */
  speed: Record<Choice, number>
  ratio: Record<Choice, number>
}

const MIXED = { none: 1, low: 0.33, high: 0.28 }
const NOISE = { none: 1, low: 1, high: 1 }
const SPEED = { none: Number.POSITIVE_INFINITY, low: 320_000, high: 70_000 }
// What the kernel takes to copy a byte of payload.
const COPY_MS = 1 / 4e6

/** A channel over a link that drains its buffer all the time. */
class Channel {
  now = 0
  #queued = 0

  pass(ms: number, link: number): void {
    this.now += ms
    this.#queued = Math.max(0, this.#queued - ms * link)
  }

  send(choice: Choice, { link, buffer, speed, ratio }: World): { wire: number; compressMs: number } {
    const compressMs = PACKET / speed[choice]
    this.pass(compressMs, link)
    const wire = PACKET * ratio[choice]
    this.pass(wire * COPY_MS, link)
    this.#queued += wire
    if (this.#queued > buffer) this.pass((this.#queued - buffer) / link, link)
    return { wire, compressMs }
  }
}

/** ms that so many packets take with a fixed choice, or as the policy has it. */
function timeOf(packets: number, world: (sent: number) => World, fixed?: Choice) {
  const channel = new Channel()
  const policy = new AdaptivePolicy()
  const picks = { none: 0, low: 0, high: 0 }
  for (let sent = 0; sent < packets; sent++) {
    const here = world(sent)
    const began = channel.now
    if (!fixed && policy.wantsSamples) {
      for (const choice of ['low', 'high'] as const) {
        if (choice === policy.choice) continue
        channel.pass(32768 / here.speed[choice], here.link)
        policy.sampled(choice, 32768, 32768 * here.ratio[choice], 32768 / here.speed[choice])
      }
      policy.samplesTaken()
    }
    const choice = fixed ?? policy.choice
    picks[choice]++
    const figures = channel.send(choice, here)
    policy.sent({ raw: PACKET, ...figures, totalMs: channel.now - began })
  }
  return { ms: channel.now, picks }
}

for (const [name, gigabytes] of [
  ['a slow link', 0.025],
  ['a middling link', 0.25],
  ['a fast link', 2.5],
] as const) {
  for (const [data, ratio] of [
    ['mixed pages', MIXED],
    ['noise', NOISE],
  ] as const) {
    t.test(`${name} with ${data}: as fast as the best fixed choice`, async (t) => {
      const world = (): World => ({ link: gigabytes * 1e6, buffer: 2 ** 20, speed: SPEED, ratio })
      const best = Math.min(...CHOICES.map((choice) => timeOf(2048, world, choice).ms))
      const { ms, picks } = timeOf(2048, world)
      t.ok(ms <= 1.1 * best, `${Math.round(ms)} ms, the best fixed ${Math.round(best)} ms, ${JSON.stringify(picks)}`)
    })
  }
}

t.test('a fast link hardly ever waits for the compressor', async (t) => {
  const world = (): World => ({ link: 2.5e6, buffer: 2 ** 20, speed: SPEED, ratio: MIXED })
  const { picks } = timeOf(2048, world)
  t.ok(picks.none > 0.98 * 2048, JSON.stringify(picks))
})

t.test('it follows a link that becomes fast, and one that becomes slow', async (t) => {
  for (const [before, after] of [
    [0.025e6, 2.5e6],
    [2.5e6, 0.025e6],
  ] as const) {
    const at = (sent: number): World => ({
      link: sent < 1024 ? before : after,
      buffer: 2 ** 20,
      speed: SPEED,
      ratio: MIXED,
    })
    const half = (link: number): number =>
      Math.min(
        ...CHOICES.map(
          (choice) => timeOf(1024, () => ({ link, buffer: 2 ** 20, speed: SPEED, ratio: MIXED }), choice).ms,
        ),
      )
    const best = half(before) + half(after)
    const { ms, picks } = timeOf(2048, at)
    t.ok(ms <= 1.15 * best, `${Math.round(ms)} ms, the best ${Math.round(best)} ms, ${JSON.stringify(picks)}`)
  }
})

t.test('it follows data that stop compressing', async (t) => {
  const world = (sent: number): World => ({
    link: 0.1e6,
    buffer: 2 ** 20,
    // What does not compress is found out quickly.
    speed: sent < 1024 ? SPEED : { ...SPEED, low: 60_000, high: 60_000 },
    ratio: sent < 1024 ? MIXED : NOISE,
  })
  const { picks } = timeOf(4096, world)
  t.ok(picks.none > 2700, JSON.stringify(picks))
  t.ok(picks.low + picks.high > 900, JSON.stringify(picks))
})

t.test('a promise that is not kept is taken back, and seldom tried again', async (t) => {
  // Samples say that compressing is cheap; packets say that it is not, as where processors are all in use.
  const policy = new AdaptivePolicy()
  const picks = { none: 0, low: 0, high: 0 }
  for (let sent = 0; sent < 4096; sent++) {
    if (policy.wantsSamples) {
      for (const choice of ['low', 'high'] as const) policy.sampled(choice, 32768, 10000, 0.05)
      policy.samplesTaken()
    }
    const { choice } = policy
    picks[choice]++
    const none = choice === 'none'
    policy.sent({
      raw: PACKET,
      wire: none ? PACKET : PACKET / 3,
      compressMs: none ? 0 : 1,
      totalMs: none ? 2 : 3,
    })
  }
  t.ok(picks.none > 0.9 * 4096, JSON.stringify(picks))
  t.ok(picks.low + picks.high > 0, 'but it was tried')
})
