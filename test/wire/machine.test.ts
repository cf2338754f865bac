import t from 'tap'
import { dialectOf, parseMachineType } from '../../src/wire/machine.js'

t.test('versioned names come apart', async (t) => {
  const cases: [string, string, number, number][] = [
    ['pc-i440fx-7.2', 'pc-i440fx', 7, 2],
    ['pc-q35-10.0', 'pc-q35', 10, 0],
    ['pc-q35-2.10.1', 'pc-q35', 2, 10],
    ['virt-9.1', 'virt', 9, 1],
    ['pseries-8.0', 'pseries', 8, 0],
    ['s390-ccw-virtio-9.0', 's390-ccw-virtio', 9, 0],
  ]
  for (const [name, family, major, minor] of cases) t.same(parseMachineType(name), { family, major, minor })
})

t.test('names without a version of QEMU', async (t) => {
  for (const name of [
    '',
    'none',
    'microvm',
    'multifd',
    'pc-q35-rhel9.4.0',
    'pc-i440fx-noble',
    '-7.2',
    'pc-7',
    'virt-9.',
  ]) {
    t.equal(parseMachineType(name), undefined, name)
  }
})

t.test('the dialect changes at 8.1, 9.0, 10.0 and 11.1', async (t) => {
  const cases: [string, string, string, boolean, boolean][] = [
    ['pc-q35-2.10.1', 'per-section', 'legacy', false, false],
    ['pc-i440fx-7.2', 'per-section', 'legacy', false, false],
    ['pseries-8.0', 'per-section', 'legacy', false, false],
    ['pc-q35-8.1', 'per-round', 'legacy', false, false],
    ['pc-q35-8.2', 'per-round', 'legacy', false, false],
    ['virt-9.0', 'per-round', 'multifd', false, false],
    ['virt-9.2', 'per-round', 'multifd', false, false],
    ['pc-q35-10.0', 'per-round', 'multifd', true, true],
    ['pc-i440fx-11.0', 'per-round', 'multifd', true, true],
    ['pc-i440fx-11.1', 'per-round', 'multifd', true, true],
  ]
  for (const [name, flush, zeroPages, switchoverStart, tlsCleanTermination] of cases) {
    const { major, minor } = parseMachineType(name) ?? {}
    const minimumQemu = `${major}.${minor}`
    const switchoverAck = name === 'pc-i440fx-11.1' ? 'where wanted' : 'always'
    t.same(
      dialectOf(name),
      { flush, zeroPages, switchoverStart, tlsCleanTermination, switchoverAck, minimumQemu },
      name,
    )
  }
})

t.test('without a version it is the newest, without SWITCHOVER_START', async (t) => {
  for (const name of ['none', 'microvm', 'multifd']) {
    t.same(dialectOf(name), {
      flush: 'per-round',
      zeroPages: 'multifd',
      switchoverStart: false,
      tlsCleanTermination: true,
      switchoverAck: 'where wanted',
    })
  }
})
