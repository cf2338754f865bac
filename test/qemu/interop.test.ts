// Real guests through our peer: QEMU migrates to `multifd receive`, and `multifd send` migrates to QEMU.
import t from 'tap'
import { threadsFromStart } from '../../src/migration/recv-channels.js'
import { qemuVersions } from '../support/qemu/index.js'
import { roundTrip, type Scenario, title } from './scenario.js'

const channelCounts = [undefined, 1, 2, 4, 8] as const
const guests = ['patterned', 'running'] as const
/** The machine type that both QEMUs know. */
const common = 'pc-i440fx-7.2'

const scenarios: Scenario[] = []

// Both roles against each version: every channel count over tcp with both guests, over unix with one or the other.
for (const version of qemuVersions) {
  const ends = { from: version, to: version }
  for (const channels of channelCounts) {
    for (const guest of guests) {
      scenarios.push({ ...ends, machine: `pc-i440fx-${version}`, guest, channels, transport: 'tcp' })
    }
  }
  for (const [at, channels] of channelCounts.entries()) {
    const guest = guests[(at + 1) % guests.length]!
    scenarios.push({ ...ends, machine: `pc-q35-${version}`, guest, channels, transport: 'unix', vga: 'std' })
  }
}

// More channels than a destination of ours has threads at first.
for (const version of qemuVersions) {
  const how = { from: version, to: version, machine: `pc-i440fx-${version}`, transport: 'tcp' } as const
  scenarios.push({ ...how, guest: 'running', channels: threadsFromStart() + 12 })
}

// Without a word back, and with a uuid that every channel names and the other QEMU checks.
for (const [at, version] of qemuVersions.entries()) {
  const how = { from: version, to: version, machine: `pc-i440fx-${version}`, transport: 'tcp' } as const
  const [one, other] = at % 2 === 0 ? [2, undefined] : [undefined, 2]
  scenarios.push({ ...how, guest: 'running', channels: one, returnPath: false })
  scenarios.push({ ...how, guest: 'patterned', channels: other, uuid: '12345678-9abc-def0-1122-334455667788' })
}

// From one version to the other, on the machine type that both know.
for (const channels of [undefined, 2, 4]) {
  scenarios.push({ from: '7.2', to: '10.0', machine: common, guest: 'running', channels, transport: 'tcp' })
  scenarios.push({ from: '10.0', to: '7.2', machine: common, guest: 'running', channels, transport: 'tcp' })
}

// A snapshot of ours that QEMU loads itself, and one of QEMU's own that we send.
for (const [guest, one, other] of [
  ['patterned', undefined, 4],
  ['running', 4, undefined],
] as const) {
  const how = { guest, transport: 'tcp' } as const
  scenarios.push({ from: '7.2', to: '10.0', machine: common, load: 'qemu', channels: one, ...how })
  scenarios.push({ from: '10.0', to: '10.0', machine: 'pc-i440fx-10.0', load: 'qemu', channels: other, ...how })
  scenarios.push({ from: '10.0', to: '7.2', machine: common, save: 'qemu', channels: one, ...how })
  scenarios.push({ from: '10.0', to: '10.0', machine: 'pc-i440fx-10.0', save: 'qemu', channels: other, ...how })
}

t.jobs = 2
t.setTimeout(600_000)
for (const scenario of scenarios) t.test(title(scenario), (t) => roundTrip(t, scenario))
