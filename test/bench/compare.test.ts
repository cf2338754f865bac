// What counts as slower than a baseline, on reports that are made up.

import t from 'tap'
import { compareReports, formatComparison } from '../../bench/report/compare.js'
import { formatJson, makeReport, parseReport, type Report } from '../../bench/report/model.js'
import type { Series } from '../../bench/statistics.js'

const MIB = 1024 ** 2

function series(pairing: string, times: readonly number[], cpu = 1): Series {
  const runs = times.map((transferMs) => ({
    ...{ setupMs: 10, transferMs },
    cpu: { source: cpu / 2, destination: cpu / 2 },
    beyondRam: { source: MIB, destination: MIB },
  }))
  return { pairing, label: pairing, data: 'random', method: 'none', channels: 1, memory: 'touched', runs }
}

/** Ours and the bare sockets' in turns. */
function report(ours: readonly number[], bare: readonly number[], { cpu = 1, label = 'bare' } = {}): Report {
  const libraries = {}
  const machine = { cpu: 'Some CPU', cores: 2, memoryGiB: 24, kernel: '6.1', node: 'v20', qemu: [], libraries }
  return makeReport({
    ...{ date: '2026-01-02T03:04:05.678Z', form: 'quick', seconds: 1, machine, downtime: [], barrier: [], remarks: [] },
    matrices: [
      {
        ...{ part: 'channels', bytes: 256 * MIB },
        series: [series('us-us', ours, cpu), series(label, bare)],
        comparisons: [{ over: 'us-us', under: label }],
      },
    ],
  })
}

const steady = report([100, 101, 99, 100, 100], [100, 100, 100, 100, 100])

t.test('the same again is neither slower nor faster', async (t) => {
  t.match(compareReports(steady, steady), { compared: 2, alone: 0, slower: [], faster: [] })
})

t.test('a rate that fell by far more than its runs differ is slower, and the other way round faster', async (t) => {
  const slow = report([130, 131, 129, 130, 130], [100, 100, 100, 100, 100])
  const { slower, faster } = compareReports(steady, slow)
  t.match(slower, [{ what: /us-us \/ bare, 256 MiB random, none, channels 1, touched, rate$/ }])
  t.ok(Math.abs(slower[0]!.change - (100 / 130 - 1)) < 1e-9)
  t.same(faster, [])
  t.match(compareReports(slow, steady), { slower: [], faster: [{ what: /, rate$/ }] })
})

t.test('a machine of half the speed is no slowdown: the peers are as slow', async (t) => {
  const half = report([200, 202, 198, 200, 200], [200, 200, 200, 200, 200])
  t.match(compareReports(steady, half), { slower: [], faster: [] })
})

t.test('the same fall within runs that differ as much is noise, whichever of the two has them', async (t) => {
  const restless = report([90, 130, 170, 110, 140], [100, 100, 100, 100, 100])
  t.same(compareReports(steady, restless).slower, [])
  t.same(compareReports(restless, report([160, 160, 160, 160, 160], [100, 100, 100, 100, 100])).slower, [])
})

t.test('one run of a report lies within what its other ratios say of the noise', async (t) => {
  const once = report([108], [100])
  t.same(compareReports(steady, once).slower, [], 'unknown noise is taken to be large')
  t.equal(compareReports(steady, report([200], [100])).slower.length, 1)
})

t.test('more processor time for the same is slower', async (t) => {
  const dear = report([100, 101, 99, 100, 100], [100, 100, 100, 100, 100], { cpu: 2 })
  t.match(compareReports(steady, dear), { slower: [{ what: /, CPU$/ }], faster: [] })
  t.match(compareReports(dear, steady), { slower: [], faster: [{ what: /, CPU$/ }] })
})

t.test('ratios that only one of the two has are counted, and not compared', async (t) => {
  const other = report([100], [100], { label: 'qemu-qemu-10.0' })
  const comparison = compareReports(steady, other)
  t.match(comparison, { compared: 0, alone: 4, slower: [] })
  t.match(formatComparison(comparison), /no ratio in common/)
})

t.test('the text names what is slower, or says that nothing is, and that the machine is another', async (t) => {
  const slow = report([130, 131, 129, 130, 130], [100, 100, 100, 100, 100])
  t.match(formatComparison(compareReports(steady, slow)), /^SLOWER.*\n.*\n.*\n.*us-us \/ bare.*-23 %/m)
  const elsewhere = { ...steady, machine: { ...steady.machine, cpu: 'Other CPU' } }
  const text = formatComparison(compareReports(elsewhere, steady))
  t.match(text, /compared with .*Other CPU/)
  t.match(text, /not the same machine/)
  t.match(text, /nothing is slower beyond the noise/)
})

t.test('a file that is no report, or of another version, is refused', async (t) => {
  t.throws(() => parseReport('{}'), /no report/)
  t.throws(() => parseReport(JSON.stringify({ ...steady, version: 2 })), /version 2 .* 1 is read/)
  t.same(parseReport(formatJson(steady)), steady)
})
