// multifd demo: its end, its two forms, and that nothing of it is left behind.

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { noKernelLog } from '../support/kernel.js'
import { hasTerminal, onTerminal, result, run, runWithout, start } from './cli.js'

t.setTimeout(300_000)

const small = ['demo', '--size', '32M', '--channels', '3']
const tooFast = [...small, '--dirty-rate', '1G', '--max-bandwidth', '50M']

t.test('it tells the passes as they happen, and ends with equal checksums', async (t) => {
  const { code, stdout, stderr } = await run(...small)
  t.equal(code, 0, stderr)
  t.equal(stderr, '')
  t.match(stdout, /source {7}process \d+: 32\.00 MiB/)
  t.match(stdout, /destination {2}process \d+: tcp:127\.0\.0\.1:\d+, 3 channels/)
  t.match(stdout, /^ {5}1 +8192 +[\d.]+ m?s +[\d.]+ \wiB\/s +[\d.]+ \w+\/s +/m)
  t.match(stdout, /^ +last +\d+ +[\d.]+ ms +stopped +0 B$/m)
  const sums = [...stdout.matchAll(/sha256 ([0-9a-f]{64})/g)].map(([, sum]) => sum)
  t.equal(sums.length, 2)
  t.equal(sums[0], sums[1])
  t.match(stdout, / {2}equal$/m)
  t.match(stdout, /the program stood still for [\d.]+ m?s/)
  for (const steering of ['\r', '\u001b'])
    t.notOk(stdout.includes(steering), 'nothing for a terminal where there is none')
})

t.test('on a narrow terminal what goes on stays in one row', async (t) => {
  if (!hasTerminal(t)) return
  const { code, text } = await onTerminal(40, ['demo', '--size', '32M', '--max-bandwidth', '50M'])
  t.equal(code, 0)
  // Each is erased by the next, or by a line.
  const live = text.split('\r\x1b[K').filter((shown) => shown.includes('%') && !shown.includes('\n'))
  t.ok(live.length > 2, 'there is something to see')
  t.ok(live.every((shown) => shown.length < 40))
})

t.test('--json prints one object', async (t) => {
  const end = await run(...small, '--json')
  t.equal(end.code, 0, end.stderr)
  const { passes, checksums, ...outcome } = result(end) as ReturnType<typeof result> & {
    passes: Record<string, number>[]
    checksums: { source: string; destination: string; equal: boolean }
  }
  t.match(outcome, { status: 'completed', ram: { total: 32 * 1024 * 1024, 'page-size': 4096, remaining: 0 } })
  t.type(outcome.downtime, 'number')
  t.equal(passes.length + 1, outcome.ram!['dirty-sync-count'])
  t.match(passes[0], { pass: 1, pages: 8192 })
  t.match(checksums, { source: /^[0-9a-f]{64}$/, equal: true })
  t.equal(checksums.source, checksums.destination)
})

t.test('the kernel tells what the program writes', { skip: noKernelLog }, async (t) => {
  const { code, stdout, stderr } = await run(...small, '--size', '128M')
  t.equal(code, 0, stderr)
  t.match(stdout, /^ {2}dirty log {4}kernel: the program writes as it likes$/m)
  t.match(stdout, / {2}equal$/m)
  const json = await run(...small, '--size', '128M', '--json')
  const { passes, ...outcome } = result(json) as ReturnType<typeof result> & { passes: Record<string, number>[] }
  t.match(outcome, { 'dirty-log': { kind: 'kernel' }, checksums: { equal: true } })
  t.ok(passes[0]!['remaining-pages']! > 0, 'it told some')
})

for (const [feature, reason] of [
  ['userfaultfd', /userfaultfd can not be opened\. \/dev\/userfaultfd: \w+ .*System call userfaultfd: \w+ /],
  ['wp-async', /UFFD_FEATURE_WP_ASYNC \(Linux 6\.7\)/],
  ['pagemap-scan', /PAGEMAP_SCAN \(Linux 6\.7\)/],
] as const) {
  t.test(`on a kernel without ${feature} the program says what it writes, and the demo says why`, async (t) => {
    const { code, stdout, stderr } = await runWithout(feature, ...small)
    t.equal(code, 0, stderr)
    const [, why] =
      /^ {2}dirty log {4}explicit: the program says what it writes; the kernel's: (.*)$/m.exec(stdout) ?? []
    t.match(why, reason)
    t.match(stdout, / {2}equal$/m)
    const insisting = await runWithout(feature, ...small, '--dirty-log', 'kernel')
    t.equal(insisting.code, 1)
    t.match(insisting.stderr, reason)
    t.match(insisting.stderr, /^multifd: .* \(ERR_MULTIFD_UNSUPPORTED\)\n$/)
  })
}

t.test('with the explicit log nothing is asked of the kernel', async (t) => {
  const { code, stdout, stderr } = await runWithout('userfaultfd', ...small, '--dirty-log', 'explicit')
  t.equal(code, 0, stderr)
  t.match(stdout, /^ {2}dirty log {4}explicit: the program says what it writes$/m)
  t.match(stdout, / {2}equal$/m)
})

t.test('a program that writes too fast is slowed down', async (t) => {
  const end = await run(...tooFast, '--timeout', '3.5', '--at-limit', 'switchover')
  t.equal(end.code, 0, end.stderr)
  t.match(end.stdout, /it gets no nearer: the program is slowed down to 512\.00 MiB\/s/)
  t.match(end.stdout, /equal$/m)
})

t.test('or is at its limit', async (t) => {
  const fast = [...tooFast, '--no-auto-converge']
  const passes = await run(...fast, '--max-passes', '2')
  t.equal(passes.code, 1)
  t.match(passes.stderr, /after 2 passes .* \(ERR_MULTIFD_TIMEOUT\)\n$/)
  t.equal((await run(...fast, '--timeout', '0.3')).code, 1)
  const stopped = await run(...fast, '--max-passes', '1', '--at-limit', 'switchover')
  t.equal(stopped.code, 0, stopped.stderr)
  t.match(stopped.stdout, /^ +last +\d+ /m)
})

for (const after of [150, 600, 1200]) {
  t.test(`Ctrl-C after ${after} ms ends both processes`, async (t) => {
    const demo = start('demo', '--size', '1G')
    await sleep(after)
    const children = childrenOf(demo.pid)
    demo.kill('SIGINT')
    const began = performance.now()
    const { code, signal, stderr } = await demo.ended
    t.ok(performance.now() - began < 5000, 'promptly')
    // So early that the command was not even there, it is node's own end.
    if (signal === null) {
      t.equal(code, 130)
      t.match(stderr, /multifd: interrupted\n$/)
    }
    const deadline = performance.now() + 3000
    while (children.some(isAlive) && performance.now() < deadline) await sleep(20)
    t.notOk(children.some(isAlive), 'no process is left')
  })
}

t.test('the destination ends when the source is killed', async (t) => {
  const demo = start('demo', '--size', '256M')
  let children: number[] = []
  while (children.length === 0) {
    await sleep(20)
    children = childrenOf(demo.pid)
  }
  demo.kill('SIGKILL')
  await demo.ended
  const deadline = performance.now() + 10_000
  while (children.some(isAlive) && performance.now() < deadline) await sleep(20)
  t.notOk(children.some(isAlive))
})

t.test('a destination that dies fails the demo', async (t) => {
  const demo = start('demo', '--size', '1G', '--json')
  let children: number[] = []
  while (children.length === 0) {
    await sleep(20)
    children = childrenOf(demo.pid)
  }
  await sleep(300)
  for (const pid of children) process.kill(pid, 'SIGKILL')
  const end = await demo.ended
  t.equal(end.code, 1)
  t.match(result(end), { error: { code: /^ERR_MULTIFD_/ } })
})

/** Process ids of a process's children. */
function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => statOf(child)?.[1] === String(pid))
}

function isAlive(pid: number): boolean {
  return (statOf(pid)?.[0] ?? 'Z') !== 'Z'
}

/** State, parent and so on. */
function statOf(pid: number): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
  } catch {
    return undefined
  }
}
