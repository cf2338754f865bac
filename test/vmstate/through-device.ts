// A section of a real QEMU through the device that our descriptions make of it.

import { type Device, DeviceSet, DeviceStateLoader, DeviceStateSaver, device } from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import type { Vmdesc } from '../../src/wire/vmdesc.js'
import { apic, newUart, rtc, serial, timers, type VirtioMem, virtioMemEarly } from './qemu-devices.js'
import type { Section } from './sections.js'

const MIB = 1n << 20n

/** What a destination has before it loads: nothing, save where both sides know something by configuration. */
export function freshState(idstr: string): object {
  if (idstr === 'serial') return { state: newUart() }
  if (!idstr.endsWith('virtio-mem-device-early')) return {}
  const mem: VirtioMem = {
    addr: 4n << 30n,
    regionSize: 16n * MIB,
    blockSize: 2n * MIB,
    node: 0,
    size: 0n,
    bitmap: new Uint8Array(1),
  }
  return mem
}

export function deviceFor({ header: { idstr, instanceId } }: Section, state: object): Device | undefined {
  const options = { idstr, instanceId }
  switch (idstr.split('/').at(-1)) {
    case 'timer':
      return device(timers, state as never, options)
    case 'mc146818rtc':
      return device(rtc, state as never, options)
    case 'apic':
      return device(apic, state as never, options)
    case 'serial':
      return device(serial, state as never, options)
    case 'virtio-mem-device-early':
      return device(virtioMemEarly, state as never, options)
    default:
      return undefined
  }
}

/** Loads a section into a fresh state; returns that, and what is written of it. */
export function throughDevice(section: Section) {
  const state = freshState(section.header.idstr)
  const set = new DeviceSet([deviceFor(section, state)!])
  const { early } = set.devices[0]!
  const loader = new DeviceStateLoader(set)
  const reader = new MemoryReader(section.bytes)
  loader.loadSections(reader, early ? 'early' : 'full')
  loader.finish('full')
  const saver = new DeviceStateSaver(set, { firstSectionId: section.header.sectionId, pageSize: 4096 })
  const bytes = early ? saver.saveEarly() : saver.saveFull()
  const vmdesc: Vmdesc = JSON.parse(new TextDecoder().decode(saver.vmdesc()))
  return { state, left: reader.remaining, bytes, vmdesc }
}
