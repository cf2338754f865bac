// One round trip of a guest: out of a QEMU into a snapshot file, and from the file into another QEMU.
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { plainEnvironment } from '../support/environment.js'
import {
  checkStep,
  guestProgress,
  type MigrationInfo,
  memoryDifference,
  onProcessEnd,
  type Qemu,
  type QemuVersion,
  requireQemu,
  requireRunningSource,
  startQemu,
} from '../support/qemu/index.js'

export interface Scenario {
  from: QemuVersion
  to: QemuVersion
  machine: string
  guest: 'patterned' | 'running'
  /** Multifd channels of both migrations; undefined: no multifd. */
  channels: number | undefined
  transport: 'tcp' | 'unix'
  /** Who writes the snapshot: our `receive` (default), or QEMU itself (`file:` with mapped-ram). */
  save?: 'receive' | 'qemu'
  /** Who reads the snapshot: our `send` (default), or QEMU itself. */
  load?: 'send' | 'qemu'
  vga?: 'std'
  /** Whether sources ask for the destination's word; default true. */
  returnPath?: boolean
  /** The guest's uuid. */
  uuid?: string
  /** What the channels do with pages, on both ways; `auto` is of our `send` alone, and the QEMUs have none. */
  compression?: { method: 'zlib' | 'zstd' | 'auto'; level?: number; receive?: 'auto' | 'zlib' | 'zstd' }
  /** Where both sources look for zero pages; their default without it. */
  zeroPages?: 'none' | 'legacy' | 'multifd'
}

export interface CliExit {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

const cliTimeoutMs = 30_000
const endTimeoutMs = 10_000
/** Passes over memory that a running guest is made to take: pages are then sent several times. */
const passes = 4

const { MULTIFD_CLI } = process.env
const cliPath = MULTIFD_CLI ?? fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

/** Our command as a process of its own, as a user runs it. */
export class Cli {
  readonly exit: Promise<CliExit>
  readonly #arguments: readonly string[]
  readonly #child: ChildProcess
  #stdout = ''
  #stderr = ''

  constructor(...args: string[]) {
    this.#arguments = args
    this.#child = spawn(process.execPath, [cliPath, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: plainEnvironment(),
    })
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
    const untrack = onProcessEnd(() => this.kill())
    this.exit = new Promise((resolve) => {
      this.#child.on('close', (code, signal) => {
        untrack()
        resolve({ code, signal, stdout: this.#stdout, stderr: this.#stderr })
      })
    })
  }

  /** The URI after `listening on`, with the real port. */
  async listening(): Promise<string> {
    const deadline = Date.now() + cliTimeoutMs
    for (;;) {
      const uri = /listening on ((?:tcp|unix):[^\s"]+)[\s"]/.exec(this.#stderr)?.[1]
      if (uri) return uri
      if (this.#child.exitCode !== null) throw new Error(`${this} ended before it listened: ${this.#stderr}`)
      if (Date.now() > deadline) throw new Error(`${this} does not listen: ${this.#stderr}`)
      await sleep(10)
    }
  }

  /** Waits for exit status 0. */
  async succeed(timeoutMs = cliTimeoutMs): Promise<CliExit> {
    const exit = await Promise.race([this.exit, sleep(timeoutMs, undefined, { ref: false })])
    if (!exit) throw new Error(`${this} is still there after ${timeoutMs} ms: ${this.#stderr}`)
    if (exit.code !== 0) throw new Error(`${this} exited with ${exit.code ?? exit.signal}: ${exit.stderr}`)
    return exit
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  toString(): string {
    return `multifd ${this.#arguments.join(' ')}`
  }
}

export function title(scenario: Scenario): string {
  const { from, to, machine, guest, channels, transport, save, load, vga, returnPath, uuid } = scenario
  const { compression, zeroPages } = scenario
  const steps = [
    `QEMU ${from}`,
    save === 'qemu' ? 'its own file' : 'us',
    `QEMU ${to}${load === 'qemu' ? ' itself' : ''}`,
  ]
  const multifd = channels === undefined ? 'no multifd' : `${channels} ${channels === 1 ? 'channel' : 'channels'}`
  const how = [machine, guest, multifd, transport]
  const more = [
    vga && `vga ${vga}`,
    returnPath === false && 'no return path',
    uuid && 'a uuid',
    compression && `${compression.method} ${compression.level ?? 'by default'}`,
    zeroPages && `zero pages ${zeroPages}`,
  ].filter(Boolean)
  return `${steps.join(' → ')}: ${[...how, ...more].join(', ')}`
}

/** Runs the whole round trip, and checks that the same guest comes out and goes on. */
export async function roundTrip(t: Test, scenario: Scenario): Promise<void> {
  const { from, to, machine, guest, vga, uuid } = scenario
  if (!requireQemu(t, from, to) || (guest === 'running' && !requireRunningSource(t, from))) return
  const hardware = { machine, ...(vga && { vga }), ...(uuid && { extraArgs: ['-uuid', uuid] }) }

  const source = await startQemu({ version: from, guest, ...hardware })
  t.teardown(() => source.close())
  const snapshot = join(source.dir, 'guest.snapshot')
  await save(t, scenario, source, snapshot)
  // QEMU says that the migration is completed shortly before it says so of itself.
  for (let look = 0; look < 100 && (await source.status()) !== 'postmigrate'; look++) await sleep(20)
  t.equal(await source.status(), 'postmigrate', 'the source is stopped')
  const original = await source.memory()
  const step = checkStep(original, source.program)
  const untouched = step.value === 0 && step.step === source.program.pageCount
  t.equal(untouched, guest !== 'running', `the guest left at page ${step.step} of round ${step.value}`)

  const destination = await startQemu({ version: to, incoming: 'defer', ...hardware })
  t.teardown(() => destination.close())
  await load(t, scenario, destination, snapshot)
  t.not(await destination.status(), 'running', 'the guest waits')
  t.equal(memoryDifference(original, await destination.memory()), undefined, 'its memory is what it was')
  await destination.cont()
  t.equal(await destination.status(), 'running', 'it goes on')
  t.equal((await guestProgress(destination)).length, 3, 'its program goes on')
}

async function save(t: Test, scenario: Scenario, source: Qemu, snapshot: string): Promise<void> {
  if (scenario.save === 'qemu') {
    await leave(source, scenario, { uri: `file:${snapshot}`, capabilities: ['mapped-ram'] })
    await source.waitMigration()
    return
  }
  const uri = scenario.transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(source.dir, 'receive.sock')}`
  const method = scenario.compression?.receive
  const expected = method === undefined ? [] : ['--compression', method]
  const cli = new Cli('receive', uri, '--output', snapshot, ...channelArguments(scenario), ...expected)
  t.teardown(() => cli.kill())
  const leaving = async () => {
    await leave(source, scenario, {
      uri: await cli.listening(),
      multifdChannels: scenario.channels,
      returnPath: scenario.returnPath,
      parameters: { ...compressionParameters(scenario), ...zeroPageParameters(scenario) },
    })
    return await source.waitMigration()
  }
  await bothEnd(t, cli, leaving(), `${source.version} says that it is received`)
}

async function load(t: Test, scenario: Scenario, destination: Qemu, snapshot: string): Promise<void> {
  if (scenario.load === 'qemu') {
    await destination.listen(`file:${snapshot}`, { capabilities: ['mapped-ram'] })
    await destination.waitMigration()
    return
  }
  const address = scenario.transport === 'tcp' ? 'tcp:127.0.0.1:0' : `unix:${join(destination.dir, 'send.sock')}`
  const parameters = compressionParameters(scenario)
  const uri = await destination.listen(address, { multifdChannels: scenario.channels, parameters })
  const oneWay = scenario.returnPath === false ? ['--no-return-path'] : []
  const cli = new Cli('send', snapshot, uri, ...channelArguments(scenario), ...oneWay, ...sendArguments(scenario))
  t.teardown(() => cli.kill())
  await bothEnd(t, cli, destination.waitMigration(), `${destination.version} says that it is loaded`)
}

/** Starts the migration; a running guest is let go only after some passes. */
async function leave(source: Qemu, { guest }: Scenario, to: Parameters<Qemu['migrate']>[0]): Promise<void> {
  const parameters = { ...to.parameters, 'downtime-limit': guest === 'running' ? 0 : 300 }
  await source.migrate({ ...to, parameters })
  if (guest !== 'running') return
  await source.waitPasses(passes)
  await source.command('migrate-set-parameters', { 'downtime-limit': 10_000 })
}

/** Our process must exit with 0 and QEMU must complete; when they do not, the error has what each of them says. */
async function bothEnd(t: Test, cli: Cli, migration: Promise<MigrationInfo>, message: string): Promise<void> {
  const ours = cli.succeed()
  // An end that fails leaves the other one waiting: it gets a little longer to say why, not its whole time.
  await Promise.race([ours, migration]).catch(() => {})
  const [exit, info] = await Promise.allSettled([within(ours, cli), within(migration, message)])
  const failures = [exit, info].flatMap((end) => (end.status === 'rejected' ? [String(end.reason)] : []))
  if (failures.length > 0) throw new Error(failures.join('\n'))
  t.pass(`${cli} exits with 0`)
  t.pass(`QEMU ${message}`)
}

async function within<T>(promise: Promise<T>, what: unknown): Promise<T> {
  const late = sleep(endTimeoutMs, undefined, { ref: false }).then(() => {
    throw new Error(`${what}: not within ${endTimeoutMs} ms of the other end`)
  })
  return await Promise.race([promise, late])
}

function channelArguments({ channels }: Scenario): string[] {
  return channels === undefined ? ['--no-multifd'] : ['--channels', String(channels)]
}

function compressionParameters({ compression }: Scenario): Record<string, string | number> {
  if (!compression || compression.method === 'auto') return {}
  const { method, level } = compression
  return { 'multifd-compression': method, ...(level !== undefined && { [`multifd-${method}-level`]: level }) }
}

function zeroPageParameters({ from, zeroPages }: Scenario): Record<string, string> {
  // 7.2 has one way only, which later ones call legacy.
  return zeroPages === undefined || from === '7.2' ? {} : { 'zero-page-detection': zeroPages }
}

function sendArguments({ compression, zeroPages }: Scenario): string[] {
  const level = compression?.level
  return [
    ...(compression ? ['--compression', compression.method] : []),
    ...(level === undefined ? [] : ['--compression-level', String(level)]),
    ...(zeroPages === undefined ? [] : ['--zero-page-detection', zeroPages]),
  ]
}
