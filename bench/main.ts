// The benchmark: multifd, QEMU and bare sockets, in turns on this machine, and how they compare.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { barriersByChannels } from './barrier.js'
import { downtimeByRate } from './downtime-rates.js'
import { planSeconds } from './estimate.js'
import { measureMatrix, type Voice } from './matrix.js'
import { micro } from './micro.js'
import { BASELINE, type Options, parseOptions } from './options.js'
import { type PartName, type Plan, planOf, tooLarge } from './parts.js'
import { compareReports, formatComparison } from './report/compare.js'
import { formatHtml } from './report/html.js'
import { machineFacts } from './report/machine.js'
import { formatJson, type MatrixInput, makeReport, parseReport, type Report } from './report/model.js'
import { formatReport } from './report/text.js'

const RESULTS = 'bench-results'
const BUSY_LOAD = 0.5

function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

function readReport(file: string): Report {
  try {
    return parseReport(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`)
  }
}

async function measureAll(options: Options): Promise<Report> {
  const began = performance.now()
  const date = new Date().toISOString()
  const remarks = new Set<string>()
  const remark = (text: string): void => {
    if (!remarks.has(text)) say(text)
    remarks.add(text)
  }
  const [load = 0] = loadavg()
  if (load > BUSY_LOAD) {
    remark(`the machine was busy when this began (load average ${load.toFixed(1)}): times mean little, CPU more`)
  }
  const plan = planOf(options)
  say(`about ${duration(planSeconds(plan))} on a machine of two cores with nothing else to do`)
  const step = (text: string): void => say(`[${duration((performance.now() - began) / 1000)}] ${text}`)
  const measured = await measurePlan(plan, { step, remark })
  const form = options.chosen ? 'chosen' : options.quick ? 'quick' : 'full'
  const seconds = Math.round((performance.now() - began) / 1000)
  return makeReport({ date, form, seconds, machine: machineFacts(), ...measured, remarks: [...remarks] })
}

async function measurePlan(
  { matrices, downtime, barrier }: Plan,
  voice: Voice,
): Promise<Pick<Report, 'downtime' | 'barrier'> & { matrices: MatrixInput[] }> {
  const inputs: MatrixInput[] = []
  for (const plan of matrices) {
    const reason = tooLarge(plan)
    if (reason === undefined) inputs.push(await measureMatrix(plan, voice))
    else voice.remark(`part ${plan.part}: left out, ${reason}`)
  }
  return {
    matrices: inputs,
    downtime: downtime ? await pointsOf('downtime', downtimeByRate(downtime, voice.step), voice) : [],
    barrier: barrier ? await pointsOf('barrier', barriersByChannels(barrier, voice.step), voice) : [],
  }
}

/** What one part can not do costs the report that part alone. */
async function pointsOf<T>(part: PartName, points: Promise<T[]>, voice: Voice): Promise<T[]> {
  try {
    return await points
  } catch (error) {
    voice.remark(`part ${part}: failed: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
    return []
  }
}

function duration(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(Math.round(seconds) % 60).padStart(2, '0')} min`
}

/** Writes the three forms, and says where. */
function write(report: Report, { json, save }: Options): void {
  const text = formatJson(report)
  const table = formatReport(report)
  mkdirSync(RESULTS, { recursive: true })
  const file = join(RESULTS, report.date.replaceAll(':', '-').slice(0, 19))
  writeFileSync(`${file}.json`, text)
  writeFileSync(`${file}.txt`, table)
  writeFileSync(`${file}.html`, formatHtml(report))
  if (save !== undefined) writeFileSync(save, text)
  if (json) process.stdout.write(text)
  const stream = json ? process.stderr : process.stdout
  stream.write(`\n${table}`)
  say(`\nalso in ${file}.json, .txt and .html`)
}

async function main(): Promise<void> {
  const options = parseOptions()
  if (options.micro) return micro(say)
  const { compare, from } = options
  // Before anything is measured: that takes time.
  const baseline = compare === undefined ? undefined : readReport(compare === true ? BASELINE : compare)
  const report = from === undefined ? await measureAll(options) : readReport(from)
  write(report, options)
  const failed = report.matrices.some(({ series }) => series.some(({ runs }) => runs.includes(undefined as never)))
  if (failed) process.exitCode = 1
  if (!baseline) return
  const comparison = compareReports(baseline, report)
  say(`\n${formatComparison(comparison)}`)
  if (comparison.slower.length > 0) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
}
