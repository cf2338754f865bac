// Damaged streams received into snapshot files: what is not whole leaves no file, and nothing is written beside it.

import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readSnapshot } from '../../src/snapshot/file.js'
import { SnapshotTarget } from '../../src/snapshot/target.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import { excerptMain } from './anatomy.js'
import { FileFeed, scratchFolder } from './feed.js'
import { damage, seededRandom } from './random.js'
import { FULL, PEER_CODES, receiveMain, Tally } from './runs.js'
import { splitMain } from './streams.js'

const RUNS = FULL ? 20_000 : 1000

const feed = new FileFeed()
const scratch = scratchFolder()
t.teardown(() => {
  feed.close()
  rmSync(scratch, { recursive: true })
})

const folder = join(scratch, 'snapshots')
const path = join(folder, 'guest')
mkdirSync(folder)

const streams = listCaptures()
  .map((name) => loadCapture(name))
  .filter(({ main }) => main.length > 0)
  .map((capture) => splitMain(capture))

t.test(`${RUNS} damaged streams received into a file`, async (t) => {
  const tally = new Tally()
  const random = seededRandom(t)
  // A damaged length may be larger than any disk; a damaged command may ask for an answer, which a file does not take.
  const codes = new Set([...PEER_CODES, 'ERR_MULTIFD_FILE', 'ERR_MULTIFD_IO'])
  while (tally.runs < RUNS) {
    const specimen = excerptMain(random.pick(streams), random, random.below(3) === 0)
    for (let i = 0; i < 10; i++) {
      const { bytes, what } =
        i === 0 ? { ...specimen, what: 'not damaged' } : damage(specimen.bytes, specimen.anatomy, random)
      feed.put(bytes)
      const words = (): string => `${specimen.name}: ${what}`
      const { code } = tally.run(
        () => receiveMain(feed.open(), () => new SnapshotTarget(path, undefined), 1),
        codes,
        words,
      )
      const left = readdirSync(folder).sort()
      const expected = code === 'end' ? ['guest'] : []
      if (left.join() !== expected.join()) tally.problem(`${words()}: ${code}, and left ${left.join()}`)
      if (code === 'end') {
        try {
          readSnapshot(path)
        } catch (error) {
          tally.problem(`${words()}: received, and then ${error}`)
        }
        rmSync(path)
      }
      if (readdirSync(scratch).length !== 1) tally.problem(`${words()}: wrote outside of its folder`)
    }
  }
  t.comment(tally.summary)
  t.same(tally.problems, [])
  t.ok(tally.count('end') > 50, 'some damage is harmless')
})
