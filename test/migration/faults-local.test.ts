// What goes wrong on this side: addresses that can not be listened on, files that can not be written, a disk that is full.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { MigrationDestination, MigrationSource } from '../../src/index.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import {
  allocate,
  checksums,
  type Expected,
  fillMixed,
  fillNoise,
  HandSource,
  leavesNothing,
  openDescriptors,
  PAGE,
  rejection,
  tells,
  worksAgain,
} from '../support/peers/index.js'

const MiB = 1024 * 1024
const folder = mkdtempSync(join(tmpdir(), 'multifd-local-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const ram = allocate([{ idstr: 'heap', size: MiB }])
fillMixed(ram[0]!)
const source = new MigrationSource({ ram })
const again = (t: Test): Promise<void> => worksAgain(t, source, ram)

t.before(() => again(t))

t.test('the port is in use', async (t) => {
  const before = openDescriptors()
  const first = new MigrationDestination({ ram: allocate(ram) })
  const uri = await first.listen('tcp:127.0.0.1:0')
  const second = new MigrationDestination({ ram: allocate(ram) })
  tells(t, await rejection(second.listen(uri)), {
    code: 'ERR_MULTIFD_LISTEN',
    says: /can not listen on 127.0.0.1 port \d+: EADDRINUSE/,
  })
  t.equal(second.status, 'none')
  await first.close()
  t.equal(await second.listen(uri), uri, 'and once it is free, it can')
  await source.migrate(uri)
  t.equal((await second.completed).status, 'completed')
  await leavesNothing(t, before)
})

t.test('the path of a socket is in use, is no socket, or was left behind', async (t) => {
  const path = join(folder, 'socket')
  const first = new MigrationDestination({ ram: allocate(ram) })
  await first.listen(`unix:${path}`)
  const second = new MigrationDestination({ ram: allocate(ram) })
  const inUse: Expected = { code: 'ERR_MULTIFD_LISTEN', says: /can not listen on .*socket: EADDRINUSE/ }
  tells(t, await rejection(second.listen(`unix:${path}`)), inUse)
  await first.close()
  t.notOk(existsSync(path), 'the path is removed')
  writeFileSync(path, 'a file')
  tells(t, await rejection(second.listen(`unix:${path}`)), inUse)
  rmSync(path)
  const script = `require('net').createServer().listen('${path}', () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.ok(existsSync(path), 'a socket that nobody listens on')
  await second.listen(`unix:${path}`)
  await second.close()
})

t.test("the address is not this machine's, or nobody's", async (t) => {
  const destination = new MigrationDestination({ ram: allocate(ram) })
  const expected: Expected = { code: 'ERR_MULTIFD_LISTEN', says: /192.0.2.1|no-such-host/ }
  tells(t, await rejection(destination.listen('tcp:192.0.2.1:4444')), expected)
  tells(t, await rejection(destination.listen('tcp:no-such-host.invalid:4444')), expected)
  tells(t, await rejection(destination.listen(`unix:${join(folder, 'no', 'folder')}`)), {
    code: 'ERR_MULTIFD_LISTEN',
    says: /can not listen on .*folder: ENOENT/,
  })
})

t.test('a snapshot can not be written where it should be', async (t) => {
  const before = openDescriptors()
  writeFileSync(join(folder, 'file'), 'a file')
  mkdirSync(join(folder, 'directory'))
  for (const path of ['missing/snapshot', 'file/snapshot', 'directory']) {
    const receiver = new SnapshotReceiver(join(folder, path))
    const refused = await rejection(receiver.listen('tcp:127.0.0.1:0'))
    tells(t, refused, { code: 'ERR_MULTIFD_FILE', says: new RegExp(`${folder}/${path}`) })
    t.equal(receiver.status, 'none')
  }
  t.strictSame(readdirSync(folder).sort(), ['directory', 'file'], 'nothing is left')
  t.strictSame(readdirSync(join(folder, 'directory')), [])
  await leavesNothing(t, before)
  await again(t)
})

t.test('the folder of a snapshot goes away meanwhile', async (t) => {
  const place = join(folder, 'place')
  mkdirSync(place)
  const receiver = new SnapshotReceiver(join(place, 'snapshot'))
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  const lost = rejection(receiver.completed)
  const shape = { idstr: 'heap', size: 8 * PAGE }
  const hand = await HandSource.connect(uri, { blocks: [shape] })
  await hand.begin()
  hand.everyPage(1)
  while (receiver.status !== 'active') await delay(5)
  rmSync(place, { recursive: true })
  hand.finish()
  t.not(await hand.word(), 0, 'the source is told')
  hand.destroy()
  tells(t, await lost, { code: 'ERR_MULTIFD_FILE', says: /ENOENT/ })
  await again(t)
})

t.test(
  'the disk is full',
  { skip: process.getuid?.() !== 0 && 'only root can mount a small file system' },
  async (t) => {
    const before = openDescriptors()
    const disk = join(folder, 'disk')
    mkdirSync(disk)
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'pipe' })
    } catch (error) {
      t.comment(`skipped, no file system can be mounted: ${(error as Error).message}`)
      return
    }
    t.teardown(() => execFileSync('umount', [disk]))
    const large = allocate([{ idstr: 'heap', size: 24 * MiB }])
    fillNoise(large[0]!)
    const content = checksums(large)
    for (const multifd of [true, false]) {
      const parameters = { multifd }
      const receiver = new SnapshotReceiver(join(disk, 'snapshot'), { parameters })
      const sender = new MigrationSource({ ram: large, parameters })
      let stopped = 0
      const hooks = { stop: () => void stopped++, resume: () => void stopped-- }
      const sent = rejection(sender.migrate(await receiver.listen('tcp:127.0.0.1:0'), hooks))
      tells(t, await rejection(receiver.completed), {
        code: 'ERR_MULTIFD_FILE',
        says: /\/snapshot\.partial: the disk is full \(ENOSPC\)$/,
      })
      tells(t, await sent, { code: ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED'], says: /failed|gone|closed/ })
      t.equal(stopped, 0, 'the program runs')
      t.strictSame(checksums(large), content, 'its memory is as it was')
      t.strictSame(readdirSync(disk), [], 'nothing is left on the disk')
      t.equal(sender.status, 'failed')
    }
    await leavesNothing(t, before)
    await again(t)
  },
)
