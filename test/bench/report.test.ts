// The benchmark's statistics and report, on runs that are made up.

import t from 'tap'
import type { Measurement } from '../../bench/pairing.js'
import { makeReport } from '../../bench/report/model.js'
import { formatReport } from '../../bench/report/text.js'
import { compare, type Series, spread, summarise } from '../../bench/statistics.js'

const GIB = 1024 ** 3
const MIB = 1024 ** 2

function run(transferMs: number, setupMs = 100): Measurement {
  return {
    setupMs,
    transferMs,
    cpu: { source: 0.25, destination: 0.5 },
    beyondRam: { source: 50 * MIB, destination: 70 * MIB },
  }
}

function series(pairing: string, channels: number, ...times: (number | undefined)[]): Series {
  const runs = times.map((ms) => (ms === undefined ? undefined : run(ms)))
  return { pairing, label: pairing.toUpperCase(), data: 'random', method: 'none', channels, memory: 'touched', runs }
}

t.test(
  'a spread has the middle of an odd number of values, and the mean of the two middle ones of an even',
  async (t) => {
    t.same(spread([3, 1, 2]), { median: 2, min: 1, max: 3 })
    t.same(spread([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 })
  },
)

t.test('a summary counts in GB a second, seconds a GiB and MiB', async (t) => {
  const summary = summarise(series('a', 1, 1000, 900, 1100), GIB)
  t.match(summary, {
    runs: 3,
    transfer: { median: 1.073741824 },
    total: { median: 1.073741824 / 1.1 },
    setupMs: { median: 100 },
    cpuPerGiB: { median: 0.75 },
    beyondRam: { source: { median: 50 }, destination: { max: 70 } },
  })
})

t.test('runs that failed do not count, and a series of nothing else has no summary', async (t) => {
  t.equal(summarise(series('a', 1, undefined, 500), GIB)?.runs, 1)
  t.equal(summarise(series('a', 1, undefined), GIB), undefined)
})

t.test('ratios are taken run by run, and once more at the best channel counts', async (t) => {
  const all = [series('a', 1, 100, 100, 400), series('a', 4, 50, 50, 50), series('b', 1, 200, 100, 100)]
  const ratios = compare(all, { over: 'a', under: 'b' })
  t.match(ratios, [
    { channels: { over: 1, under: 1 }, best: false, ratio: { median: 1, min: 0.25, max: 2 } },
    { channels: { over: 4, under: 1 }, best: true, ratio: { median: 2, min: 2, max: 4 } },
  ])
  t.equal(ratios.length, 2)
})

t.test('a run that failed on one side is left out of the ratio', async (t) => {
  const all = [series('a', 1, undefined, 100), series('b', 1, 300, 200)]
  t.match(compare(all, { over: 'a', under: 'b' }), [{ ratio: { median: 2, min: 2, max: 2 } }])
  t.same(compare(all, { over: 'a', under: 'c' }), [])
})

t.test('a ratio of processor time is that of both sides', async (t) => {
  const [ratio] = compare([series('a', 1, 100, 100), series('b', 1, 200, 200)], { over: 'a', under: 'b' })
  t.match(ratio, { runs: 2, cpu: { median: 1, min: 1, max: 1 } })
})

t.test('the report says what was measured, on what, and what was left out', async (t) => {
  const libraries = { zstd: '1.5.4' }
  const machine = { cpu: 'Some CPU', cores: 2, memoryGiB: 24, kernel: '6.1', node: 'v20', qemu: [], libraries }
  const text = formatReport(
    makeReport({
      ...{ date: '2026-01-02T03:04:05.678Z', form: 'chosen', seconds: 7, machine },
      matrices: [
        {
          ...{ part: 'matrix', bytes: GIB },
          series: [series('a', 1, 100), series('b', 1, 200)],
          comparisons: [{ over: 'a', under: 'b' }],
        },
      ],
      downtime: [],
      barrier: [{ channels: 8, rounds: 100, latency: { median: 150, min: 100, max: 900 }, percentile95: 300 }],
      remarks: ['QEMU: left out'],
    }),
  )
  t.match(text, /^2026-01-02T03:04:05\.678Z, chosen, 7 s$/m)
  t.match(text, /Some CPU, 2 cores/)
  t.match(text, /zstd 1\.5\.4/)
  t.match(text, /^A +random +none +1 +touched +1 +10\.74 \(10\.74–10\.74\) +5\.37 +100 /m)
  t.match(text, /^A {2}\/ {2}B +random +none +1 +touched +1 +2\.00 +2\.00–2\.00 +1\.00 \(1\.00–1\.00\)$/m)
  t.match(text, /^8 +150 \(100–900\) +300 +100$/m)
  t.match(text, /transfer: from the end of the set-up/)
  t.match(text, /QEMU: left out\n$/)
})
