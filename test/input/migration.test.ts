// Whole migrations in their threads, over tcp, of which one connection is cut off, damaged, or falls silent.

import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MultifdError } from '../../src/errors.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import { leavesNothing, openDescriptors, Wire } from '../support/peers/index.js'
import { channelSpecimen } from './anatomy.js'
import { scratchFolder } from './feed.js'
import { type Anatomy, damage, type Random, seededRandom } from './random.js'
import { FULL, PEER_CODES } from './runs.js'
import { splitChannel, splitMain } from './streams.js'

const RUNS = FULL ? 1000 : 12
const STALL_MS = 400
/** From the last byte to the outcome, ms: far more than silence and the threads' end take, also on a busy machine. */
const ANSWER_MS = 60_000

const CODES = new Set([...PEER_CODES, 'ERR_MULTIFD_CHANNEL', 'ERR_MULTIFD_TIMEOUT', 'ERR_MULTIFD_FILE'])
const INITIAL_SIZE = 64

const captures = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ channels }) => channels.length > 0)
  // The small ones, without compression.
  .filter(({ meta, channels }) => {
    const size = channels.reduce((sum, { length }) => sum + length, 0)
    const method = meta.parameters['multifd-compression'] ?? 'none'
    return size < 700_000 && method === 'none'
  })

/** A connection's bytes, harmed in one of the ways there are, and whether it is closed after them. */
function harm(
  bytes: Uint8Array,
  anatomy: Anatomy,
  random: Random,
): { bytes: Uint8Array; closes: boolean; what: string } {
  const closes = random.below(4) !== 0
  const after = closes ? '' : ', then silence'
  if (random.below(3) === 0) {
    const length = random.below(bytes.length + 1)
    return { bytes: bytes.subarray(0, length), closes, what: `cut at ${length}${after}` }
  }
  const damaged = damage(bytes, anatomy, random)
  return { bytes: damaged.bytes, closes, what: `${damaged.what}${after}` }
}

t.test(`${RUNS} whole migrations with one connection harmed`, async (t) => {
  const random = seededRandom(t)
  const before = openDescriptors()
  const scratch = scratchFolder()
  t.teardown(() => rmSync(scratch, { recursive: true }))
  const counts = new Map<string, number>()
  for (let run = 0; run < RUNS; run++) {
    const capture = random.pick(captures)
    const connections = [capture.main, ...capture.channels].map((bytes) => ({ bytes, closes: true, what: '' }))
    const harmed = random.below(connections.length)
    connections[harmed] =
      harmed === 0
        ? harm(capture.main, mainAnatomy(capture, random), random)
        : harm(capture.channels[harmed - 1]!, channelAnatomy(capture.channels[harmed - 1]!), random)
    const { what } = connections[harmed]!
    const name = `run ${run}: ${capture.meta.name}, ${harmed === 0 ? 'main' : `channel ${harmed - 1}`}: ${what}`

    await using destination = new SnapshotReceiver(join(scratch, 'guest'), {
      parameters: { multifdChannels: capture.channels.length, helloTimeoutMs: STALL_MS, stallTimeoutMs: STALL_MS },
      allowMissingPages: true,
    })
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const wires = await Promise.all(connections.map(() => Wire.to(uri)))
    for (const [i, { bytes, closes }] of connections.entries()) {
      wires[i]!.send(bytes)
      if (closes) wires[i]!.close()
    }
    const began = performance.now()
    const code = await destination.completed.then(
      () => 'end',
      (error) => (error instanceof MultifdError ? error.code : String(error)),
    )
    const took = performance.now() - began
    for (const wire of wires) wire.reset()
    counts.set(code, (counts.get(code) ?? 0) + 1)
    if (!CODES.has(code)) t.fail(`${name}: ${code}`)
    if (took > ANSWER_MS) t.fail(`${name}: ${code} after ${took.toFixed(0)} ms`)
    const left = readdirSync(scratch).filter((file) => file !== 'guest.meta')
    if (left.join() !== (code === 'end' ? 'guest' : '')) t.fail(`${name}: ${code}, and left ${left.join()}`)
    for (const file of readdirSync(scratch)) rmSync(join(scratch, file))
  }
  t.comment([...counts].map(([code, count]) => `${code} ${count}`).join(', '))
  t.ok(counts.size > 2, 'more than one kind of outcome')
  await leavesNothing(t, before)
})

function mainAnatomy(capture: (typeof captures)[number], random: Random): Anatomy {
  const { units } = splitMain(capture)
  const fields = Array.from({ length: 20 }, () => ({
    at: random.pick(units).at,
    size: random.pick([1, 4, 8] as const),
  }))
  return { fields, units: units.slice(0, 20) }
}

function channelAnatomy(bytes: Uint8Array): Anatomy {
  const { fields, units } = channelSpecimen(splitChannel('', bytes)).anatomy
  return {
    fields: fields.map(({ at, size }) => ({ at: at + INITIAL_SIZE, size })),
    units: units.map(({ at, end }) => ({ at: at + INITIAL_SIZE, end: end + INITIAL_SIZE })),
  }
}
