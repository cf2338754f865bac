// The QEMU guests that the pairings with a QEMU share: paused, with RAM that holds the session's data set.

import { closeSync, openSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { onProcessEnd } from '../../test/support/qemu/cleanup.js'
import { findQemu, type QemuVersion } from '../../test/support/qemu/find.js'
import { type MigrationInfo, type Qemu, type QemuOptions, startQemu } from '../../test/support/qemu/guest.js'
import { Child } from '../child.js'
import { addCredentials } from '../credentials.js'
import { DATA_PART, eachPiece } from '../data.js'
import { type Method, qemuParametersOf } from '../method.js'
import { type Memory, type Session, STEP_MS } from '../pairing.js'
import type { DestinationCalls } from '../processes/calls.js'
import { removeNow } from '../temporary.js'

const RAM = 'pc.ram'
const SETUP_CHANNELS = 2
const LOOK_MS = 5
const LOCALHOST = 'tcp:127.0.0.1:0'

export class Guests implements AsyncDisposable {
  readonly version: QemuVersion
  readonly session: Session
  #made: Promise<{ source: Qemu; snapshot: string }> | undefined
  #dir: string | undefined
  #untrack = (): unknown => undefined

  constructor(session: Session, version: QemuVersion) {
    this.session = session
    this.version = version
  }

  available(): string | undefined {
    return findQemu(this.version) ? undefined : `QEMU ${this.version} is not installed`
  }

  /** A guest in ordinary memory, ready to be migrated (again). */
  async source(): Promise<Qemu> {
    const { source } = await this.#guests()
    await makeMigratable(source)
    return source
  }

  /** A snapshot of the same guest, in memory. */
  async snapshot(): Promise<string> {
    return (await this.#guests()).snapshot
  }

  /** A QEMU that waits for a migration. A file that its RAM is in has lost its name already. */
  async destination(memory: Memory): Promise<Qemu> {
    if (memory === 'untouched') return await this.#start({ incoming: 'defer' })
    const { bytes, tmpfs, disk } = this.session
    const of = `id=${RAM},size=${bytes}`
    if (memory === 'touched') return await this.#waiting(`memory-backend-ram,${of},prealloc=on`)
    const dir = await mkdtemp(join(memory === 'tmpfs' ? tmpfs : disk, 'multifd-bench-'))
    try {
      return await this.#waiting(`memory-backend-file,${of},mem-path=${join(dir, 'ram')},share=on`)
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  }

  #waiting(backend: string): Promise<Qemu> {
    return this.#start({ incoming: 'defer', ...this.#backed(['-object', backend]) })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const made = await this.#made?.catch(() => undefined)
    await made?.source.close()
    if (this.#dir !== undefined) await rm(this.#dir, { recursive: true, force: true })
    this.#untrack()
  }

  async #start(options: Omit<QemuOptions, 'version'>): Promise<Qemu> {
    const memoryMiB = this.session.bytes / 1024 ** 2
    const qemu = await startQemu({ version: this.version, memoryMiB, dir: this.session.disk, ...options })
    await addCredentials(qemu)
    return qemu
  }

  #backed(extraArgs: string[]): Pick<QemuOptions, 'machine' | 'extraArgs'> {
    return { machine: `pc-i440fx-${this.version},memory-backend=${RAM}`, extraArgs }
  }

  #guests(): Promise<{ source: Qemu; snapshot: string }> {
    this.#made ??= this.#make()
    return this.#made
  }

  // A guest whose RAM is a file gets its data behind its back. It is migrated into a QEMU with ordinary memory,
  // which is the source from then on, and into a snapshot.
  async #make(): Promise<{ source: Qemu; snapshot: string }> {
    const { bytes, tmpfs } = this.session
    const dir = await mkdtemp(join(tmpfs, 'multifd-bench-'))
    this.#dir = dir
    this.#untrack = onProcessEnd(() => removeNow(dir))
    const [file, snapshot] = [join(dir, 'ram'), join(dir, 'guest.snapshot')]
    const backend = ['-object', `memory-backend-file,id=${RAM},size=${bytes},mem-path=${file},share=on`]
    await using original = await this.#start(this.#backed(backend))
    writeData(file, this.session)
    const source = await this.#start({ incoming: 'defer' })
    try {
      await migrated(original, await listening(source, SETUP_CHANNELS), SETUP_CHANNELS)
      await source.waitMigration('completed', STEP_MS)
      await rm(file)
      await using receiver = new Child<DestinationCalls>('snapshot-destination')
      await receiver.call('prepare', { bytes, touched: false, path: snapshot })
      await migrated(
        source,
        await receiver.call('listen', { channels: SETUP_CHANNELS, method: 'none' }),
        SETUP_CHANNELS,
      )
      await receiver.call('completed', null)
    } catch (error) {
      await source.close()
      throw error
    }
    return { source, snapshot }
  }
}

// A QEMU does not migrate a guest twice: a reset makes it a guest that never ran, and leaves its RAM as it is.
async function makeMigratable(qemu: Qemu): Promise<void> {
  if ((await qemu.status()) !== 'postmigrate') return
  await qemu.command('system_reset')
  while ((await qemu.status()) !== 'prelaunch') await sleep(LOOK_MS)
}

/** Migrates a guest out of a QEMU; returns its figures. */
export async function migrated(
  qemu: Qemu,
  uri: string,
  channels: number,
  method: Method = 'none',
  returnPath = true,
): Promise<MigrationInfo> {
  await qemu.migrate({ uri, multifdChannels: channels, parameters: qemuParametersOf(method, 'source'), returnPath })
  return await qemu.waitMigration('completed', STEP_MS)
}

/** A QEMU's figures by the same definition as ours: its set-up begins and ends where ours does. */
export function timesOf(info: MigrationInfo, session: Session): { setupMs: number; transferMs: number } {
  const setupMs = Number(info['setup-time'])
  const dataBytes = Number(info.ram?.['normal-bytes'])
  checkData(dataBytes, session)
  return { setupMs, transferMs: Number(info['total-time']) - setupMs }
}

/** What is not zero goes as data. */
export function checkData(dataBytes: number, { bytes, data }: Session): void {
  if (!(dataBytes >= bytes * DATA_PART[data])) throw new Error(`${dataBytes} bytes went as data, of ${bytes}`)
}

export function listening(qemu: Qemu, channels: number, method: Method = 'none'): Promise<string> {
  return qemu.listen(LOCALHOST, { multifdChannels: channels, parameters: qemuParametersOf(method, 'destination') })
}

function writeData(path: string, { data, bytes }: Session): void {
  const fd = openSync(path, 'r+')
  try {
    eachPiece(data, bytes, (piece, at) => writeSync(fd, piece, 0, piece.length, at))
  } finally {
    closeSync(fd)
  }
}
