// A guest on its way: out of a QEMU to us, and from us into a QEMU. Each way checks everything that can be checked at its end.

import assert from 'node:assert/strict'
import {
  type Guest,
  GuestReceiver,
  type MigrationParameters,
  type MigrationSource,
  type MigrationStatistics,
} from '../../src/index.js'
import {
  changePattern,
  guestProgress,
  type MigrationOptions,
  memoryDifference,
  type Qemu,
  type QemuOptions,
  type QemuVersion,
} from '../support/qemu/index.js'
import type { Ground } from './ground.js'

const MIB = 1024 ** 2
/** Passes in which memory changes. */
const PASSES = 3
const CHANGE_MS = 20
// Little enough for memory to change in mid-pass.
const BANDWIDTH = 150e6

export interface Way {
  /** Multifd channels; without it everything goes on one connection. */
  channels?: number
  /** Where it is listened; default: a free port of tcp. */
  address?: string
  /** What the QEMU is started with. */
  hardware?: Partial<QemuOptions>
  /** On top of what the other members say. */
  qemu?: MigrationOptions
  ours?: Partial<MigrationParameters>
  uuid?: string
  /** Done to the QEMU once it runs. */
  prepare?(qemu: Qemu): Promise<unknown>
}

export interface Arrival {
  original: Qemu
  guest: Guest
  statistics: MigrationStatistics
}

/** Where both sides say what is wrong, the error has both. */
export async function bothEnd<Ours, Theirs>(ours: Promise<Ours>, theirs: Promise<Theirs>): Promise<[Ours, Theirs]> {
  const [us, them] = await Promise.allSettled([ours, theirs])
  if (us.status === 'fulfilled' && them.status === 'fulfilled') return [us.value, them.value]
  const reasons = [us, them].flatMap((end) => (end.status === 'rejected' ? [String(end.reason)] : []))
  throw new Error(reasons.join('; '))
}

export function receiverFor(ground: Ground, { channels, ours, uuid }: Way): GuestReceiver {
  const parameters = { multifd: channels !== undefined, multifdChannels: channels ?? 1, ...ours }
  return ground.own(new GuestReceiver({ parameters, ...(uuid === undefined ? {} : { uuid }) }))
}

/** A guest whose program runs, and which has run for a moment. */
export async function startGuest(ground: Ground, { hardware, prepare }: Way = {}): Promise<Qemu> {
  const qemu = await ground.start({ guest: 'running', ...hardware })
  await prepare?.(qemu)
  return qemu
}

/** Tells a QEMU to migrate, and lets it go after some passes. */
export async function letGo(qemu: Qemu, uri: string, { channels, qemu: options = {} }: Way): Promise<void> {
  const { parameters, capabilities } = options
  await qemu.migrate({
    uri,
    multifdChannels: channels,
    ...(capabilities && { capabilities }),
    parameters: { 'max-bandwidth': BANDWIDTH, 'downtime-limit': 1, ...parameters },
  })
  await qemu.waitPasses(PASSES)
  await qemu.command('migrate-set-parameters', { 'downtime-limit': 10_000, 'max-bandwidth': 100 * BANDWIDTH })
}

/** QEMU says that it is over shortly before it says so of itself. */
export async function atRest(qemu: Qemu): Promise<void> {
  for (let look = 0; look < 200; look++) {
    if ((await qemu.status()) === 'postmigrate') return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.equal(await qemu.status(), 'postmigrate')
}

/** Out of a QEMU, with its program running: what came must be what the QEMU has in the end. */
export async function leaveQemu(ground: Ground, way: Way = {}): Promise<Arrival> {
  const receiver = receiverFor(ground, way)
  const uri = await receiver.listen(way.address ?? 'tcp:127.0.0.1:0')
  const original = await startGuest(ground, way)
  await letGo(original, uri, way)
  const [statistics] = await bothEnd(receiver.completed, original.waitMigration())
  await atRest(original)
  await sameMemory(receiver.guest, original)
  return { original, guest: receiver.guest, statistics }
}

/** What a guest of ours and a QEMU have must be the same; below 1 MiB other things than RAM are seen. */
export async function sameMemory(guest: Guest, qemu: Qemu): Promise<void> {
  const ram = mainRam(guest)
  const memory = await qemu.memory()
  assert.equal(memoryDifference(Buffer.from(ram.bytes().slice(MIB)), memory.subarray(MIB)), undefined)
}

export function mainRam(guest: Guest): Guest['ram'][number] {
  const ram = guest.ram.find(({ idstr }) => idstr === 'pc.ram')
  assert.ok(ram, 'the guest has a block pc.ram')
  return ram
}

export function sourceFor(ground: Ground, guest: Guest, { channels, ours, uuid }: Way): MigrationSource {
  const parameters = { multifd: channels !== undefined, multifdChannels: channels ?? 1, ...ours }
  return ground.own(guest.source({ parameters, ...(uuid === undefined ? {} : { uuid }) }))
}

/** A QEMU that waits for a guest, and where. */
export async function startHeir(ground: Ground, way: Way = {}): Promise<{ heir: Qemu; uri: string }> {
  const heir = await ground.start({ incoming: 'defer', ...way.hardware })
  await way.prepare?.(heir)
  const { channels: multifdChannels, address = 'tcp:127.0.0.1:0', qemu } = way
  return { heir, uri: await heir.listen(address, { multifdChannels, ...qemu }) }
}

/** From us into a QEMU, with memory that changes meanwhile; there it must be the same, and go on. */
export async function enterQemu(ground: Ground, guest: Guest, way: Way = {}): Promise<MigrationStatistics> {
  const { heir, uri } = await startHeir(ground, way)
  const source = sourceFor(ground, guest, { ...way, ours: { maxBandwidth: BANDWIDTH, downtimeLimit: 0, ...way.ours } })
  const [statistics] = await bothEnd(migrateChanging(source, guest, uri), heir.waitMigration())
  assert.equal(statistics.status, 'completed')
  await sameMemory(guest, heir)
  await goesOn(heir)
  return statistics
}

/** Migrates a guest of ours whose memory changes for some passes, and once more as it is stopped. */
async function migrateChanging(source: MigrationSource, guest: Guest, uri: string): Promise<MigrationStatistics> {
  const ram = mainRam(guest)
  let round = 0
  const change = (): void => changePattern(ram, ++round)
  const timer = setInterval(change, CHANGE_MS)
  const rest = (): void => clearInterval(timer)
  let passes = 0
  source.on('pass', () => {
    if (++passes >= PASSES) rest()
  })
  const stop = (): void => {
    rest()
    change()
  }
  try {
    return await source.migrate(uri, { stop })
  } finally {
    rest()
  }
}

const idle = new Map<QemuVersion, Guest[]>()

/** A guest that came out of a QEMU some time ago: for runs that begin with us, one at a time. */
export async function someGuest(ground: Ground): Promise<Guest> {
  const guests = idle.get(ground.version) ?? []
  idle.set(ground.version, guests)
  const guest = guests.pop() ?? (await leaveQemu(ground)).guest
  ground.own({ close: () => guests.push(guest) })
  return guest
}

/** The guest's program goes on where it was. */
export async function goesOn(heir: Qemu): Promise<void> {
  await heir.cont()
  assert.equal(await heir.status(), 'running')
  assert.equal((await guestProgress(heir)).length, 3)
}
