// The long run: each target in a process of its own, guided by coverage (Jazzer.js, which is LLVM's libFuzzer).

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError, Option } from 'commander'
import { corpusFolder, readInputs, writeInputs } from './corpus.js'
import { type AsyncTarget, isAsync, type Target } from './target.js'
import { TARGETS } from './targets.js'

interface Options {
  target: string[]
  minutes: number
  seed: number
  keep: boolean
  libc?: string
}

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
/** Of the corpus, for each target, bytes. */
const ROOM = 64 * 1024
const LOADER = 'ld-linux-x86-64.so.2'

function positive(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError('it must be a number above 0')
  return value
}

const { target: names, ...options } = new Command('fuzz')
  .description('Fuzzes the decoders and the receiver, guided by coverage.')
  .addOption(
    new Option('--target <names...>', 'these alone').choices(TARGETS.map(({ name }) => name)).default(
      TARGETS.map(({ name }) => name),
      'all',
    ),
  )
  .option('--minutes <n>', 'for all of them together', positive, 10)
  .option('--seed <n>', 'of the mutations', positive, 1 + Math.floor(Math.random() * 2 ** 31))
  .option('--keep', 'add what reaches new code to test/fuzz/corpus', false)
  .addOption(
    new Option('--libc <folder>', 'the C and C++ libraries to run with, where the system has them older than 2.38').env(
      'MULTIFD_FUZZ_LIBC',
    ),
  )
  .parse()
  .opts<Options>()

/** Node, under another C library where one is given. */
const node =
  options.libc === undefined
    ? [process.execPath]
    : [join(options.libc, LOADER), '--library-path', options.libc, process.execPath]
const jazzer = join(createRequire(import.meta.url).resolve('@jazzer.js/core'), '..', 'cli.js')

function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): { status: number; text: string } {
  const [command = '', ...rest] = [...node, ...args]
  const { status, stdout, stderr } = spawnSync(command, rest, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  return { status: status ?? 1, text: `${stdout}${stderr}` }
}

function fuzz(target: Target | AsyncTarget, seconds: number): boolean {
  const { name, maxSize, seeds } = target
  const scratch = mkdtempSync(join(tmpdir(), 'multifd-fuzz-'))
  const [work, first, kept] = [join(scratch, 'new'), join(scratch, 'seeds'), corpusFolder(name)]
  const findings = join(ROOT, 'fuzz-findings', name, '/')
  for (const folder of [work, findings, kept]) mkdirSync(folder, { recursive: true })
  writeInputs(
    first,
    seeds().filter(({ length }) => length <= maxSize),
  )
  const entry = [jazzer, 'dist/test/fuzz/entry.js']
  const jazzerOptions = [
    ...(isAsync(target) ? [] : ['--sync']),
    '-i',
    'dist/src',
    '-e',
    'node_modules',
    '--disable_bug_detectors',
    '.*',
    '--',
  ]
  const env = { MULTIFD_FUZZ_TARGET: name }
  const limits = [`-max_len=${maxSize}`, '-timeout=20', '-rss_limit_mb=4096', `-artifact_prefix=${findings}`]
  try {
    const { status, text } = run(
      [...entry, work, first, kept, ...jazzerOptions, ...limits, `-seed=${options.seed}`, `-max_total_time=${seconds}`],
      env,
    )
    const last = [...text.matchAll(/#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\S+)/g)].at(-1)
    const [, runs = '0', edges = '?', , corpus = '?'] = last ?? []
    console.log(`${name.padEnd(16)} ${runs.padStart(9)} executions, ${edges} edges, corpus ${corpus}`)
    if (status !== 0) {
      console.log(`${text.split('\n').slice(-60).join('\n')}\n${name}: see ${findings}`)
      return false
    }
    if (options.keep) keep(work, kept)
    return true
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** The smallest new inputs, as far as there is room: libFuzzer has left out those that another one makes needless. */
function keep(from: string, kept: string): void {
  let room = ROOM - readInputs(kept).reduce((sum, { length }) => sum + length, 0)
  const found = readInputs(from).sort((a, b) => a.length - b.length)
  writeInputs(
    kept,
    found.filter(({ length }) => {
      room -= length
      return room >= 0
    }),
  )
}

const probe = run(['-e', `require(${JSON.stringify(jazzer)}.replace('cli.js', 'core.js'))`])
if (probe.status !== 0) {
  const reason = /Error: .*/.exec(probe.text)?.[0] ?? probe.text
  console.error(`the fuzzer can not be loaded (docs/fuzzing.md says what it needs): ${reason}`)
  process.exit(1)
}
console.log(`seed ${options.seed}`)
const chosen = TARGETS.filter(({ name }) => names.includes(name))
const seconds = Math.max(5, Math.round((options.minutes * 60) / chosen.length))
let failed = 0
for (const target of chosen) if (!fuzz(target, seconds)) failed++
process.exit(failed === 0 ? 0 : 1)
