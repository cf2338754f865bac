// Descriptions of our own for devices of real QEMU: their sections are loaded, and written back byte for byte.

import t from 'tap'
import { DeviceSet, DeviceStateLoader } from '../../src/vmstate/index.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { toHex } from '../wire/helpers.js'
import type { newUart, VirtioMem } from './qemu-devices.js'
import { allSections } from './sections.js'
import { deviceFor, freshState, throughDevice } from './through-device.js'

const known = allSections().filter((section) => deviceFor(section, {}) !== undefined)

for (const idstr of ['timer', 'mc146818rtc', 'apic', 'serial', '0000:00:02.0/virtio-mem-device-early']) {
  t.test(`every recorded '${idstr}' is loaded and written back byte for byte`, (t) => {
    const sections = known.filter(({ header }) => header.idstr === idstr)
    for (const section of sections) {
      const { left, bytes, vmdesc } = throughDevice(section)
      t.equal(left, 0, section.from)
      t.equal(toHex(bytes), toHex(section.bytes), section.from)
      t.equal(vmdesc.devices.length, 1)
      t.equal(
        JSON.stringify(vmdesc.devices[0]),
        JSON.stringify(section.entry),
        'the same description, member by member',
      )
    }
    const from = new Set(sections.map(({ from }) => from.slice(0, 3)))
    t.ok(from.has('q10'), 'of QEMU 10.0')
    // Its virtio-mem has no early section.
    t.equal(from.has('q7.'), !idstr.endsWith('early'), 'of QEMU 7.2')
    t.end()
  })
}

t.test('what was loaded is what the guest had', (t) => {
  const uarts = known.filter(({ header }) => header.idstr === 'serial')
  for (const section of uarts) {
    const { state } = throughDevice(section).state as { state: ReturnType<typeof newUart> }
    if (section.header.instanceId === 1) {
      t.match(state, { divider: 12, iir: 1, mcr: 8, lsr: 0x60, msr: 0xb0, scr: 0, recvFifo: { num: 0 } }, section.from)
      t.equal(state.thrIpending, undefined)
      continue
    }
    // The guest's program: see test/fixtures/vmstate/README.md.
    t.match(state, { divider: 12, lcr: 3, mcr: 0x1b, ier: 0x0f, scr: 0x5a, fcr_vmstate: 1 })
    t.equal(String.fromCharCode(...state.recvFifo.data.subarray(0, state.recvFifo.num)), 'ABC', section.from)
    t.type(state.thrIpending, 'number')
    t.type(state.timeoutIpending, 'number')
  }
  t.equal(uarts.length, 4)
  const clocks = known.filter(({ header }) => header.idstr === 'mc146818rtc').map((section) => throughDevice(section))
  t.ok(clocks.every(({ state }) => (state as { periodic_timer: bigint }).periodic_timer === -1n))
  t.end()
})

t.test('a difference of configuration is refused by name', (t) => {
  const section = known.find(({ header }) => header.idstr.endsWith('early'))!
  const state = { ...(freshState(section.header.idstr) as VirtioMem), addr: 5n << 30n }
  const loader = new DeviceStateLoader(new DeviceSet([deviceFor(section, state)!]))
  t.throws(() => loader.loadSections(new MemoryReader(section.bytes), 'early'), {
    code: 'ERR_MULTIFD_DEVICE',
    message: /virtio-mem-device-early' 0, tmp: postLoad of .*'memaddr' changed from 5368709120 to 4294967296/,
  })
  t.end()
})
