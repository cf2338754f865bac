// Compressed channels from and to real QEMUs: methods, ends of their levels, zero pages and guests, pair by pair.
import t from 'tap'
import { hasZstd } from '../../src/method/zstd.js'
import { roundTrip, type Scenario, title } from './scenario.js'

type Choice = Pick<Scenario, 'guest' | 'channels' | 'compression' | 'zeroPages'>

const old: Choice[] = [
  { guest: 'patterned', channels: 2, compression: { method: 'zlib' } },
  { guest: 'running', channels: 4, compression: { method: 'zlib', level: 9, receive: 'zlib' }, zeroPages: 'none' },
  { guest: 'running', channels: 1, compression: { method: 'zlib', level: 0 }, zeroPages: 'legacy' },
  { guest: 'running', channels: 2, compression: { method: 'zstd' }, zeroPages: 'legacy' },
  { guest: 'patterned', channels: 1, compression: { method: 'zstd', level: 20, receive: 'zstd' }, zeroPages: 'none' },
  { guest: 'patterned', channels: 4, compression: { method: 'zstd', level: 0 } },
]
const recent: Choice[] = [
  { guest: 'running', channels: 2, compression: { method: 'zlib' }, zeroPages: 'multifd' },
  { guest: 'patterned', channels: 4, compression: { method: 'zlib', level: 9, receive: 'zlib' }, zeroPages: 'legacy' },
  { guest: 'patterned', channels: 1, compression: { method: 'zlib', level: 0 }, zeroPages: 'none' },
  { guest: 'patterned', channels: 2, compression: { method: 'zstd' } },
  { guest: 'running', channels: 4, compression: { method: 'zstd', level: 20, receive: 'zstd' }, zeroPages: 'multifd' },
  { guest: 'running', channels: 1, compression: { method: 'zstd', level: 0 }, zeroPages: 'legacy' },
  { guest: 'running', channels: 2, compression: { method: 'zstd' }, zeroPages: 'none' },
]
/** The machine type that both QEMUs know. */
const common = 'pc-i440fx-7.2'

const scenarios: Scenario[] = [
  ...old.map((choice) => ({ from: '7.2', to: '7.2', machine: 'pc-i440fx-7.2', transport: 'tcp', ...choice }) as const),
  ...recent.map(
    (choice) => ({ from: '10.0', to: '10.0', machine: 'pc-q35-10.0', transport: 'unix', ...choice }) as const,
  ),
]
for (const method of ['zlib', 'zstd'] as const) {
  const how = { machine: common, guest: 'running', channels: 2, transport: 'tcp', compression: { method } } as const
  scenarios.push({ from: '7.2', to: '10.0', ...how }, { from: '10.0', to: '7.2', ...how })
}
// They see a PING more, and pages as they are.
for (const version of ['7.2', '10.0'] as const) {
  const how = { guest: 'running', channels: 2, transport: 'tcp', compression: { method: 'auto' } } as const
  scenarios.push({ from: version, to: version, machine: `pc-i440fx-${version}`, ...how })
}

t.jobs = 2
t.setTimeout(600_000)
for (const scenario of scenarios) {
  const skip = scenario.compression?.method === 'zstd' && !hasZstd() ? { skip: 'no zstd here' } : {}
  t.test(title(scenario), skip, (t) => roundTrip(t, scenario))
}
