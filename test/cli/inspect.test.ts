// multifd inspect, against the recorded mapped-ram file of a real QEMU.

import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { describe } from '../../src/cli/inspect.js'
import { inspectSnapshot } from '../../src/index.js'
import { recordedSnapshot, run } from './cli.js'

const ESCAPE = '\u001b'

t.test('--json tells what the recording says', async (t) => {
  const { path, meta } = recordedSnapshot(t.testdir())
  const { code, stdout, stderr } = await run('inspect', path, '--json')
  t.equal(code, 0)
  t.equal(stderr, '')
  const info = JSON.parse(stdout)
  t.match(info, {
    path,
    'file-size': statSync(path).size,
    'machine-type': meta.machine_type,
    'page-size': meta.target_page_size,
    capabilities: ['mapped-ram'],
    'run-state': 'prelaunch',
    running: false,
    'minimum-qemu': { file: '10.0', send: '10.0' },
  })
  t.equal(info.uuid, undefined, 'mapped-ram files do not tell it')
  const blocks = info.ram.blocks as { idstr: string; size: number; populated: number }[]
  t.strictSame(
    blocks.map(({ idstr, size }) => ({ idstr, size })),
    meta.ram_blocks.map((block) => ({ idstr: block.name, size: block.used_length })),
  )
  t.equal(info.ram.size, 17_113_088)
  t.equal(info.ram.populated, 102 * 4096, 'the pages that QEMU counted as normal')
  t.equal(
    info.ram.populated,
    blocks.reduce((sum, { populated }) => sum + populated, 0),
  )
  const devices = info.devices as { idstr: string; 'instance-id': number; 'version-id': number; size: number }[]
  t.equal(devices.length, 30)
  t.strictSame(devices[0], { idstr: 'timer', 'instance-id': 0, 'version-id': 2, size: 24, early: false })
  t.match(devices.at(-1), { idstr: 'globalstate', size: 104 })
})

t.test('the human form has the same, aligned', async (t) => {
  const { path } = recordedSnapshot(t.testdir())
  const { code, stdout, stderr } = await run('inspect', path)
  t.equal(code, 0)
  t.equal(stderr, '')
  for (const line of [
    /^machine type {2}pc-i440fx-10\.0$/m,
    /^run state {5}prelaunch$/m,
    /^uuid {10}not told$/m,
    /^loaded by {5}QEMU 10\.0 or later, from the file .*$/m,
    /^ {14}QEMU 10\.0 or later, over a socket \(multifd send\)$/m,
    /^RAM block +size +with data$/m,
    /^pc\.ram +16\.00 MiB +\d+\.\d\d KiB$/m,
    /^total +16\.32 MiB +408\.00 KiB$/m,
    /^device section +instance +version +size$/m,
    /^timer +0 +2 +24 B$/m,
    /^30 sections +\d+ B$/m,
  ]) {
    t.match(stdout, line)
  }
  t.notMatch(stdout, / \n/, 'no spaces at the ends of lines')
})

t.test('that it needs KVM is said where the guest had its clock', async (t) => {
  const info = inspectSnapshot(recordedSnapshot(t.testdir()).path)
  t.notMatch(describe(info), /-accel kvm/)
  const clock = { idstr: 'kvmclock', instanceId: 0, versionId: 1, size: 8, early: false }
  t.match(describe({ ...info, devices: [...info.devices!, clock] }), /^ {14}with -accel kvm only: .*kvmclock$/m)
})

t.test('names can not steer the terminal', async (t) => {
  const { path } = recordedSnapshot(t.testdir())
  const evil = `${path}${ESCAPE}[2J`
  const { code, stderr } = await run('inspect', evil)
  t.equal(code, 1)
  t.notOk(stderr.includes(ESCAPE))
})

t.test('what is no snapshot is said in one line', async (t) => {
  const dir = t.testdir({ text: 'no snapshot' })
  recordedSnapshot(dir)
  writeFileSync(join(dir, 'cut'), Buffer.alloc(0))
  for (const [file, code] of [
    ['missing', 'ERR_MULTIFD_FILE'],
    ['text', 'ERR_MULTIFD_SNAPSHOT'],
    ['cut', 'ERR_MULTIFD_SNAPSHOT'],
  ] as const) {
    const plain = await run('inspect', join(dir, file))
    t.equal(plain.code, 1)
    t.equal(plain.stdout, '')
    t.match(plain.stderr, new RegExp(`^multifd: [^\\n]+ \\(${code}\\)\\n$`))
    const json = await run('inspect', join(dir, file), '--json')
    t.equal(json.code, 1)
    t.match(JSON.parse(json.stdout), { error: { code } })
  }
})
