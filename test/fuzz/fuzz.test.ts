// Every fuzz target, for a short while: its seeds, the kept corpus, and both damaged at random. The long run: npm run fuzz.

import fc from 'fast-check'
import t from 'tap'
import { seedOf } from '../input/random.js'
import { corpusFolder, readInputs } from './corpus.js'
import { leaveGround } from './receivers.js'
import { execute, type Target } from './target.js'
import { TARGETS } from './targets.js'

const RUNS = 300

t.teardown(leaveGround)

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

function inputsOf(target: Target): { seeds: Uint8Array[]; corpus: Uint8Array[] } {
  return { seeds: target.seeds(), corpus: readInputs(corpusFolder(target.name)) }
}

for (const target of TARGETS) {
  t.test(target.name, async (t) => {
    const { seeds, corpus } = inputsOf(target)
    const inputs = [...seeds, ...corpus]
    const taken = inputs.filter((input) => execute(target, input) === 'value')
    t.ok(taken.length > 0, 'an undamaged input is taken')
    const damage = fc.array(step, { maxLength: 4 })
    fc.assert(
      fc.property(fc.constantFrom(...inputs), damage, (seed, steps) => {
        execute(target, damaged(seed, steps, target.maxSize))
      }),
      { numRuns: RUNS, seed: seedOf(t) },
    )
    t.comment(`${seeds.length} seeds, ${corpus.length} inputs of the corpus, ${RUNS} damaged`)
  })
}
