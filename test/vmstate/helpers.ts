// What the tests of device state share: one description through both walks, without a device around it.

import {
  type Description,
  type Device,
  type DeviceOptions,
  DeviceSet,
  DeviceStateLoader,
  DeviceStateSaver,
  device,
} from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { sectionHeaderSize } from '../../src/wire/stream.js'
import type { Vmdesc, VmdescDevice } from '../../src/wire/vmdesc.js'

export const SECTION_ID = 7
const FOOTER = 5

export interface Saved {
  early: Uint8Array
  full: Uint8Array
  vmdesc: Vmdesc
}

/** Everything that a set of devices writes. */
export function saveDevices(devices: Iterable<Device>): Saved {
  const saver = new DeviceStateSaver(new DeviceSet(devices), { firstSectionId: SECTION_ID, pageSize: 4096 })
  const early = saver.saveEarly()
  const full = saver.saveFull()
  return { early, full, vmdesc: JSON.parse(new TextDecoder().decode(saver.vmdesc())) }
}

/** Loads it all; throws when something is left or missing. */
export function loadDevices(
  devices: Iterable<Device>,
  { early, full }: { early?: Uint8Array; full: Uint8Array },
): void {
  const loader = new DeviceStateLoader(new DeviceSet(devices))
  for (const [phase, bytes] of [
    ['early', early ?? new Uint8Array()],
    ['full', full],
  ] as const) {
    const reader = new MemoryReader(bytes)
    loader.loadSections(reader, phase)
    loader.finish(phase)
    if (reader.remaining > 0) throw new Error(`${reader.remaining} bytes are left`)
  }
}

/** The section of one device. */
export function saveOne<S extends object>(description: Description<S>, state: S, options: DeviceOptions = {}) {
  const { full, vmdesc } = saveDevices([device(description, state as never, options)])
  const idstr = options.idstr ?? description.name
  const payload = full.subarray(sectionHeaderSize(idstr), full.length - FOOTER)
  return { section: full, payload, entry: vmdesc.devices[0] as VmdescDevice }
}

/** Loads one section into a state, and gives that. */
export function loadOne<S extends object>(description: Description<S>, state: S, section: Uint8Array): S {
  loadDevices([device(description, state as never)], { full: section })
  return state
}

/** A section with this payload, as another source might send it. */
export function sectionOf(idstr: string, version: number, payload: Uint8Array, footer = true): Uint8Array {
  const u32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
  return Uint8Array.from([
    ...[4, ...u32(SECTION_ID), idstr.length, ...Buffer.from(idstr, 'latin1'), ...u32(0), ...u32(version)],
    ...payload,
    ...(footer ? [0x7e, ...u32(SECTION_ID)] : []),
  ])
}
