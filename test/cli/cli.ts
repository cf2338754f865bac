// The command as a process of its own, as a user runs it from a script.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { KernelFeature } from '../../src/faults.js'
import { loadCapture } from '../support/captures.js'
import { plainEnvironment } from '../support/environment.js'
import { onProcessEnd } from '../support/qemu/index.js'

/** The command itself. */
export const cli = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const patienceMs = 60_000

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** The shape of what `--json` prints, as far as tests look at it. */
export interface Result {
  status: string
  'total-time'?: number
  'setup-time'?: number
  downtime?: number
  ram?: Record<string, number> & { transferred: number }
  error?: { code: string; message: string }
}

export interface Running {
  readonly pid: number
  /** Its end, and all that it wrote. */
  readonly ended: Promise<Ended>
  kill(signal: NodeJS.Signals): void
  /** Waits until `pattern` is in what it wrote to standard error; returns its first group. */
  says(pattern: RegExp): Promise<string>
  /** The same for standard output. */
  prints(pattern: RegExp): Promise<string>
}

/** Starts `multifd` with these arguments. */
export function start(...args: string[]): Running {
  return startNode(cli, ...args)
}

function startNode(...args: string[]): Running {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env: plainEnvironment() })
  const untrack = onProcessEnd(() => child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    untrack()
    return { code, signal, stdout, stderr }
  })
  const wait = async (pattern: RegExp, written: () => string): Promise<string> => {
    const deadline = Date.now() + patienceMs
    for (;;) {
      const match = pattern.exec(written())
      if (match) return match[1] ?? match[0]
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`no ${pattern} in: ${written()}`)
      await sleep(5)
    }
  }
  return {
    pid: child.pid!,
    ended,
    kill: (signal) => child.kill(signal),
    says: (pattern) => wait(pattern, () => stderr),
    prints: (pattern) => wait(pattern, () => stdout),
  }
}

/** Runs `multifd` to its end. */
export async function run(...args: string[]): Promise<Ended> {
  return await start(...args).ended
}

/** The same on a kernel that lacks something. */
export async function runWithout(feature: KernelFeature, ...args: string[]): Promise<Ended> {
  const faults = new URL('../../src/faults.js', import.meta.url).href
  const code = `import { missingFromKernel } from '${faults}'; missingFromKernel.add('${feature}')`
  return await startNode('--import', `data:text/javascript,${encodeURIComponent(code)}`, cli, ...args).ended
}

/** Whether there is script(1), whose pseudo-terminal {@link onTerminal} has; skips a test where there is none. */
export function hasTerminal(t: Test): boolean {
  if (!spawnSync('script', ['--version']).error) return true
  t.pass('there is no script(1)', { skip: 'there is no script(1)' })
  return false
}

/**
 * Runs `multifd` on a terminal of so many columns, to its end.
 *
 * @param interrupt Ctrl-C is typed once all that was written so far fulfils this
 */
export async function onTerminal(
  columns: number,
  args: string[],
  interrupt: (text: string) => boolean = () => false,
): Promise<{ code: number | null; text: string }> {
  const command = `stty rows 30 columns ${columns}; exec ${[process.execPath, cli, ...args].join(' ')}`
  const child = spawn('script', ['-q', '-e', '-c', command, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: plainEnvironment(),
  })
  const untrack = onProcessEnd(() => child.kill('SIGKILL'))
  let text = ''
  let interrupted = false
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    if (interrupted || !interrupt(text)) return
    interrupted = true
    child.stdin.write('\x03')
  })
  const [code] = await once(child, 'close')
  untrack()
  return { code, text }
}

/** What a command with `--json` printed: one object, and nothing else. */
export function result({ stdout }: Ended): Result {
  if (!/^\{.*\}\n$/.test(stdout)) throw new Error(`not one line with one object: ${stdout}`)
  return JSON.parse(stdout) as Result
}

/** The recorded mapped-ram file of a real QEMU, unpacked into `dir`. */
export function recordedSnapshot(dir: string): { path: string; meta: ReturnType<typeof loadCapture>['meta'] } {
  const { meta, mappedRam } = loadCapture('q10.0.2-mapped-ram')
  const path = join(dir, 'recorded.snapshot')
  writeFileSync(path, mappedRam!)
  return { path, meta }
}
