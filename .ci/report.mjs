// Reads tap's TAP output from standard input: a line a test file as it ends, what failed or was skipped, and the sums.
// The sums are also written to the file named by the argument, as `PASSED FAILED`; without it nobody knows of an end.
import { writeFileSync } from 'node:fs'
import { Parser } from 'tap-parser'

const [countsFile] = process.argv.slice(2)
const skips = new Map()
/** What tap itself says at the end: `# { total: 12, pass: 10, fail: 1, skip: 1 }`. */
let summary

/** Counts assertions, not the closing lines of subtests; a subtest that fails without one that failed counts as one. */
function count(parser, path) {
  const counts = { pass: 0, fail: 0, skip: 0, failures: [] }
  let child
  parser.on('child', (nested) => {
    child = count(nested, [...path, nested.name])
  })
  parser.on('assert', (result) => {
    const title = [...path, result.name].join(' > ')
    const ended = child
    child = undefined
    if (ended) {
      if (!result.ok && !result.todo && ended.fail === 0) {
        ended.fail = 1
        ended.failures.push(`${title}${ending(result.diag)}`)
      }
      counts.pass += ended.pass
      counts.fail += ended.fail
      counts.skip += ended.skip
      counts.failures.push(...ended.failures)
      if (path.length === 0) printFile(result, ended)
    } else if (result.skip || result.todo) {
      counts.skip++
      const reason = typeof result.skip === 'string' ? result.skip : title
      skips.set(reason, (skips.get(reason) ?? 0) + 1)
    } else if (result.ok) counts.pass++
    else {
      counts.fail++
      counts.failures.push(title)
    }
  })
  return counts
}

function ending(diag) {
  if (diag?.signal) return ` (ended by ${diag.signal})`
  return diag?.exitCode ? ` (exit status ${diag.exitCode})` : ''
}

function printFile(result, { pass, fail, skip, failures }) {
  const parts = [`${pass} passed`, `${fail} failed`, ...(skip > 0 ? [`${skip} skipped`] : [])]
  const seconds = result.time ? `, ${(result.time / 1000).toFixed(1)} s` : ''
  console.log(`${fail > 0 ? 'not ok' : 'ok    '} ${result.name}: ${parts.join(', ')}${seconds}`)
  for (const failure of failures) console.log(`         failed: ${failure}`)
}

const parser = new Parser()
const counts = count(parser, [])
parser.on('comment', (comment) => {
  const sums = /^# \{ total: \d+(?:, pass: (\d+))?(?:, fail: (\d+))?/.exec(comment)
  if (sums) summary = { pass: Number(sums[1] ?? 0), fail: Number(sums[2] ?? 0) }
})
parser.on('bailout', (reason) => console.log(`not ok: bailed out: ${reason}`))
parser.on('complete', (results) => {
  for (const [reason, times] of skips) console.log(`skipped: ${reason}${times > 1 ? ` (${times} times)` : ''}`)
  if (!summary) console.log('not ok: the runner ended without a summary')
  const pass = summary?.pass ?? counts.pass
  const fail = Math.max(summary?.fail ?? 1, counts.fail, results.ok ? 0 : 1)
  if (countsFile) writeFileSync(countsFile, `${pass} ${fail}\n`)
})
process.stdin.pipe(parser)
