// Every fuzz target, for a short while: its seeds, the kept corpus, and both damaged at random. The long run: npm run fuzz.

import fc from 'fast-check'
import t from 'tap'
import { endIdleThreads } from '../../src/index.js'
import { seedOf } from '../input/random.js'
import { corpusFolder, readInputs } from './corpus.js'
import { leaveGround } from './receivers.js'
import { type AsyncTarget, execute, executeLater, isAsync, type Target } from './target.js'
import { TARGETS } from './targets.js'
import { leaveSockets } from './whole.js'

const RUNS = 300

t.teardown(leaveGround)
t.teardown(leaveSockets)
t.teardown(endIdleThreads)

/** Bytes that are set, cut out, put in or said again, in this order; places are taken modulo the length. */
const step = fc.record({
  kind: fc.constantFrom('set', 'cut', 'insert', 'end' as const),
  at: fc.nat(0xffff),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
})

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

function damaged(seed: Uint8Array, steps: readonly Step[], maxSize: number): Uint8Array {
  let bytes = Buffer.from(seed)
  for (const { kind, at: place, bytes: more } of steps) {
    const at = place % (bytes.length + 1)
    if (kind === 'set') bytes.set(more.subarray(0, bytes.length - at), at)
    else if (kind === 'cut') bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + more.length)])
    else if (kind === 'insert') bytes = Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)])
    else bytes = bytes.subarray(0, at)
  }
  return new Uint8Array(bytes.subarray(0, maxSize))
}

function inputsOf(target: Target | AsyncTarget): { seeds: Uint8Array[]; corpus: Uint8Array[] } {
  return { seeds: target.seeds(), corpus: readInputs(corpusFolder(target.name)) }
}

for (const target of TARGETS) {
  t.test(target.name, async (t) => {
    const { seeds, corpus } = inputsOf(target)
    const inputs = [...seeds, ...corpus]
    const run = (input: Uint8Array) => (isAsync(target) ? executeLater(target, input) : execute(target, input))
    const outcomes = new Set<string>()
    for (const input of inputs) outcomes.add(await run(input))
    t.ok(outcomes.has('value'), 'an undamaged input is taken')
    const damage = fc.array(step, { maxLength: 4 })
    const numRuns = isAsync(target) ? target.runs : RUNS
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...inputs), damage, async (seed, steps) => {
        await run(damaged(seed, steps, target.maxSize))
      }),
      { numRuns, seed: seedOf(t) },
    )
    t.comment(`${seeds.length} seeds, ${corpus.length} inputs of the corpus, ${numRuns} damaged`)
  })
}
