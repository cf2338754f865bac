// Starts a QEMU with a guest of ours, migrates it and reads its memory. Everything it makes is gone after close().
import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { onProcessEnd } from './cleanup.js'
import { findQemu, kvmWorks, type QemuVersion } from './find.js'
import { pattern, patternAddress } from './pattern.js'
import { checkStep, defaultProgram, guestBios, type ProgramOptions, programEnd, type Step } from './program.js'
import { type QmpArguments, QmpClient } from './qmp.js'

export interface QemuOptions {
  version: QemuVersion
  /** Default: `pc-i440fx-VERSION`. */
  machine?: string
  /** 32 or more; default 48. */
  memoryMiB?: number
  /**
   * `patterned` (default): stopped before its first instruction, its memory filled with a pattern. `running`: the
   * same, and the program runs. Of no meaning with `incoming`: a destination starts empty and stays stopped.
   */
  guest?: 'patterned' | 'running'
  /** `defer`, or the URI to listen on. */
  incoming?: string
  /** Default: KVM where it works, TCG elsewhere, and so the same at both ends. */
  accel?: 'kvm' | 'tcg'
  /** `std` brings a VGA card and its 16 MiB of memory. */
  vga?: 'none' | 'std'
  /** Must be equal at both ends for checkGuest and guestProgress to know what to read. */
  program?: Partial<ProgramOptions>
  extraArgs?: string[]
  /** Descriptors of ours that it inherits, as 3, 4 and so on. */
  descriptors?: readonly number[]
  /** Where the folder of temporary files is made; default: the system's place for them. */
  dir?: string
}

export interface MigrationOptions {
  /** Without it there is no multifd: one connection carries everything. */
  multifdChannels?: number | undefined
  /** On top of `events`. */
  capabilities?: readonly string[]
  /** On top of an unlimited bandwidth. */
  parameters?: QmpArguments
}

/** How a guest leaves. */
export interface LeaveOptions extends MigrationOptions {
  uri: string
  /** Default true. */
  returnPath?: boolean | undefined
}

export interface MigrationInfo {
  status?: string
  'error-desc'?: string
  'socket-address'?: { type: string; host?: string; port?: string; path?: string }[]
  ram?: Record<string, number>
  'total-time'?: number
  downtime?: number
  [member: string]: unknown
}

export interface QemuExit {
  code: number | null
  signal: NodeJS.Signals | null
  stderr: string
}

const pollMs = 10
const startTimeoutMs = 30_000
const migrationTimeoutMs = 30_000
/** No real limit, as a number: what 0 means has changed in QEMU's history. */
const bandwidth = 100e9

export async function startQemu(options: QemuOptions): Promise<Qemu> {
  const install = findQemu(options.version)
  if (!install) throw new Error(`QEMU ${options.version} is not installed`)
  const memoryMiB = options.memoryMiB ?? 48
  if (memoryMiB < 32) throw new Error(`the pattern needs 32 MiB, not ${memoryMiB}`)
  const parent = options.dir ?? tmpdir()
  await mkdir(parent, { recursive: true })
  const dir = await mkdtemp(join(parent, 'multifd-qemu-'))
  const program = { ...defaultProgram, ...options.program }
  const bios = join(dir, 'bios.bin')
  const contents = join(dir, 'pattern.bin')
  const socket = join(dir, 'qmp.sock')
  await writeFile(bios, guestBios(program))
  if (!options.incoming) await writeFile(contents, pattern())
  const stopped = options.incoming !== undefined || options.guest !== 'running'
  const machine = options.machine ?? `pc-i440fx-${options.version}`
  const kvm = options.accel ? options.accel === 'kvm' : kvmWorks()

  const server = createServer()
  await listen(server, socket)
  const child = spawn(
    install.binary,
    [
      ...install.args,
      ...['-machine', machine],
      ...(kvm ? ['-accel', 'kvm'] : []),
      ...(options.accel === 'kvm' ? [] : ['-accel', 'tcg']),
      ...['-m', String(memoryMiB), '-nodefaults', '-no-user-config', '-display', 'none', '-vga', options.vga ?? 'none'],
      ...['-bios', bios],
      ...['-chardev', `socket,id=qmp,path=${socket}`, '-mon', 'chardev=qmp,mode=control'],
      ...(stopped ? ['-S'] : []),
      ...(options.incoming
        ? ['-incoming', options.incoming]
        : ['-device', `loader,file=${contents},addr=0x${patternAddress.toString(16)},force-raw=on`]),
      ...(options.extraArgs ?? []),
    ],
    { cwd: dir, stdio: ['ignore', 'ignore', 'pipe', ...(options.descriptors ?? [])] },
  )
  const qemu = new Qemu({ version: options.version, machine, dir, program, memoryBytes: memoryMiB * 2 ** 20 }, child)
  try {
    await qemu.attach(await firstConnection(server, qemu))
  } catch (error) {
    await qemu.close()
    throw error
  } finally {
    server.close()
  }
  return qemu
}

interface QemuFacts {
  version: QemuVersion
  machine: string
  dir: string
  program: ProgramOptions
  memoryBytes: number
}

export class Qemu {
  readonly version: QemuVersion
  readonly machine: string
  /** A folder of its own for temporary files; close() removes it. */
  readonly dir: string
  readonly program: Readonly<ProgramOptions>
  readonly memoryBytes: number
  /** Resolves when the process has ended, for whatever reason. */
  readonly exited: Promise<QemuExit>
  /** Whether the guest runs under KVM or TCG. */
  accel: 'kvm' | 'tcg' = 'tcg'
  readonly #child: ChildProcess
  readonly #untrack: () => void
  #qmp: QmpClient | undefined
  #stderr = ''
  #files = 0

  constructor(facts: QemuFacts, child: ChildProcess) {
    this.version = facts.version
    this.machine = facts.machine
    this.dir = facts.dir
    this.program = facts.program
    this.memoryBytes = facts.memoryBytes
    this.#child = child
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
    this.exited = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#stderr += String(error)
        resolve({ code: null, signal: null, stderr: this.stderr })
      })
      child.on('close', (code, signal) => resolve({ code, signal, stderr: this.stderr }))
    })
    void this.exited.then((exit) => this.#qmp?.fail(new Error(describe(this, exit))))
    this.#untrack = onProcessEnd(() => this.#closeNow())
  }

  get qmp(): QmpClient {
    if (!this.#qmp) throw new Error('QMP is not connected yet')
    return this.#qmp
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** What QEMU wrote to standard error so far, without its remarks on processor features that the host lacks. */
  get stderr(): string {
    return this.#stderr.replaceAll(/^.*warning: host doesn't support requested feature.*\n/gm, '')
  }

  async attach(socket: Socket): Promise<void> {
    this.#qmp = new QmpClient(socket)
    await this.#qmp.start()
    const { enabled } = await this.command<{ enabled: boolean }>('query-kvm')
    this.accel = enabled ? 'kvm' : 'tcg'
  }

  /** Runs a QMP command; a lost connection is reported as the end of the process, with what it wrote. */
  async command<T = unknown>(name: string, args?: QmpArguments): Promise<T> {
    try {
      return await this.qmp.command<T>(name, args)
    } catch (error) {
      if (error instanceof Error && error.name === 'QmpError') throw error
      const exit = await Promise.race([this.exited, sleep(1000, undefined, { ref: false })])
      throw exit ? new Error(`${describe(this, exit)} (during ${name})`, { cause: error }) : error
    }
  }

  /** Sets capabilities and parameters without starting anything. */
  async setMigration({ multifdChannels, capabilities = [], parameters = {} }: MigrationOptions): Promise<void> {
    const names = new Set(['events', ...(multifdChannels === undefined ? [] : ['multifd']), ...capabilities])
    await this.command('migrate-set-capabilities', {
      capabilities: [...names].map((capability) => ({ capability, state: true })),
    })
    await this.command('migrate-set-parameters', {
      'max-bandwidth': bandwidth,
      ...(multifdChannels !== undefined && { 'multifd-channels': multifdChannels }),
      ...parameters,
    })
  }

  /** Starts an outgoing migration, with the return path on; waitMigration() tells how it ends. */
  async migrate({ uri, capabilities = [], returnPath = true, ...options }: LeaveOptions): Promise<void> {
    // A file has no way back: QEMU refuses the capability there.
    const oneWay = !returnPath || uri.startsWith('file:') || uri.startsWith('exec:')
    // Said either way: a capability outlives the migration that it was set for.
    const capability = { capability: 'return-path', state: !oneWay || capabilities.includes('return-path') }
    await this.command('migrate-set-capabilities', { capabilities: [capability] })
    await this.setMigration({ ...options, capabilities })
    await this.command('migrate', { uri })
  }

  /** Starts listening (after `incoming: 'defer'`), and returns the URI with the real port where 0 was asked for. */
  async listen(uri: string, options: MigrationOptions = {}): Promise<string> {
    await this.setMigration(options)
    await this.command('migrate-incoming', { uri })
    if (!/^tcp:.*:0$/.test(uri)) return uri
    const { 'socket-address': [address] = [] } = await this.queryMigrate()
    if (!address) throw new Error('QEMU does not say where it listens')
    return `tcp:${address.host}:${address.port}`
  }

  queryMigrate(): Promise<MigrationInfo> {
    return this.command<MigrationInfo>('query-migrate')
  }

  /** Waits for that status. Throws when the migration ends in another one, or the process ends. */
  async waitMigration(status = 'completed', timeoutMs = migrationTimeoutMs): Promise<MigrationInfo> {
    const final = ['completed', 'failed', 'cancelled']
    return await this.#poll(status, timeoutMs, (info) => {
      if (info.status === status) return true
      if (!final.includes(info.status ?? '')) return false
      throw new Error(`migration ${info.status}, not ${status}: ${info['error-desc'] ?? ''} ${this.stderr}`.trim())
    })
  }

  /** Waits until an outgoing migration has read the dirty log that often: `passes` rounds over memory have begun. */
  async waitPasses(passes: number, timeoutMs = migrationTimeoutMs): Promise<MigrationInfo> {
    return await this.#poll(`pass ${passes}`, timeoutMs, (info) => {
      if (info.status === 'failed') throw new Error(`migration failed: ${info['error-desc'] ?? ''}`)
      return (info.ram?.['dirty-sync-count'] ?? 0) >= passes || info.status === 'completed'
    })
  }

  /** The run state: `running`, `paused`, `prelaunch`, `inmigrate`, `postmigrate` … */
  async status(): Promise<string> {
    return (await this.command<{ status: string }>('query-status')).status
  }

  /** Waits for that run state: a source whose migration failed says so a moment before its guest goes on. */
  async waitStatus(status: string, timeoutMs = migrationTimeoutMs): Promise<void> {
    const deadline = performance.now() + timeoutMs
    for (let seen = await this.status(); seen !== status; seen = await this.status()) {
      if (performance.now() > deadline) throw new Error(`the guest is ${seen}, not ${status}`)
      await sleep(pollMs)
    }
  }

  async cont(): Promise<void> {
    await this.command('cont')
  }

  async stop(): Promise<void> {
    await this.command('stop')
  }

  /** Writes guest memory to a file (an absolute path). */
  async pmemsave(path: string, address = 0, size = this.memoryBytes): Promise<void> {
    await this.command('pmemsave', { val: address, size, filename: path })
  }

  /** All guest memory, from address 0. The window of a VGA card, which is none, reads as zeros. */
  async memory(size = this.memoryBytes): Promise<Buffer> {
    const path = join(this.dir, `memory-${++this.#files}`)
    await this.pmemsave(path, 0, size)
    const bytes = await readFile(path)
    await rm(path)
    return bytes.fill(0, 0xa0000, Math.min(0xc0000, bytes.length))
  }

  /** The stopped guest's place in its program. Throws when its memory is not one step. */
  async step(): Promise<Step> {
    return checkStep(await this.memory(programEnd(this.program)), this.program)
  }

  /** Kills the process and removes its files. May be called again. */
  async close(): Promise<void> {
    this.#child.kill('SIGKILL')
    if (this.#child.pid !== undefined) await this.exited
    this.#untrack()
    await rm(this.dir, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** close(), for a process that is about to end and can wait for nothing. */
  #closeNow(): void {
    this.#child.kill('SIGKILL')
    rmSync(this.dir, { recursive: true, force: true })
  }

  async #poll(what: string, timeoutMs: number, done: (info: MigrationInfo) => boolean): Promise<MigrationInfo> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const info = await this.queryMigrate()
      if (done(info)) return info
      if (Date.now() > deadline) throw new Error(`no ${what} within ${timeoutMs} ms: ${JSON.stringify(info)}`)
      await sleep(pollMs)
    }
  }
}

/**
 * Lets a guest run on for a moment, twice, and stops it each time: its memory must be one step at every stop, and
 * another one each time. Leaves it running, and returns the steps.
 */
export async function guestProgress(qemu: Qemu): Promise<Step[]> {
  const steps: Step[] = []
  await qemu.stop()
  steps.push(await qemu.step())
  for (let round = 0; round < 2; round++) {
    await qemu.cont()
    await sleep(30)
    await qemu.stop()
    steps.push(await qemu.step())
  }
  await qemu.cont()
  const different = new Set(steps.map(({ step, value }) => `${step} ${value}`))
  if (different.size !== steps.length) throw new Error(`the guest stands still: ${JSON.stringify(steps)}`)
  return steps
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
}

function firstConnection(server: Server, qemu: Qemu): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`QEMU did not start: ${qemu.stderr}`)), startTimeoutMs)
    server.once('connection', (socket) => {
      clearTimeout(timer)
      resolve(socket)
    })
    void qemu.exited.then((exit) => {
      clearTimeout(timer)
      reject(new Error(describe(qemu, exit)))
    })
  })
}

function describe(qemu: Qemu, { code, signal, stderr }: QemuExit): string {
  const end = signal ? `was ended by ${signal}` : `exited with ${code}`
  return `QEMU ${qemu.version} (${qemu.machine}) ${end}: ${stderr.trim() || 'it wrote nothing'}`
}
