// A snapshot that is sent and received again is the same snapshot.

import { closeSync, existsSync, linkSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { inspectSnapshot, readSnapshot, SnapshotReceiver, SnapshotSender } from '../../src/index.js'
import { loadCapture } from '../support/captures.js'
import { blockHashes } from './content.js'

t.setTimeout(300_000)

const { mappedRam, meta } = loadCapture('q10.0.2-mapped-ram')

for (const parameters of [{ multifdChannels: 4 }, { multifdChannels: 1 }, { multifd: false }]) {
  for (const zeroPageDetection of ['multifd', 'legacy', 'none'] as const) {
    t.test(`${JSON.stringify(parameters)}, zero pages ${zeroPageDetection}`, async (t) => {
      const dir = t.testdir()
      const recorded = join(dir, 'recorded')
      writeFileSync(recorded, mappedRam!)
      // The second is ours, sent from QEMU's own file; the third is sent from ours.
      const second = join(dir, 'second')
      const third = join(dir, 'third')
      await resend(recorded, second)
      await resend(second, third)
      const expected = readSnapshot(recorded)
      for (const path of [second, third]) {
        const snapshot = readSnapshot(path)
        t.strictSame(snapshot.configuration, expected.configuration)
        t.equal(snapshot.ramSectionId, expected.ramSectionId)
        t.equal(snapshot.switchoverStart, expected.switchoverStart)
        t.equal(snapshot.pageSize, expected.pageSize)
        for (const part of ['beforeRam', 'afterRam', 'deviceState'] as const) {
          t.equal(Buffer.compare(snapshot[part], expected[part]), 0, part)
        }
        t.strictSame(blockHashes(snapshot), blockHashes(expected))
        for (const [at, block] of snapshot.blocks.entries()) {
          const bits = Buffer.compare(block.populated.toBytes(), expected.blocks[at]!.populated.toBytes())
          t.equal(bits, 0, `the bitmap of ${block.idstr}`)
        }
        t.strictSame(
          snapshot.blocks.map(({ populated: _, ...place }) => place),
          expected.blocks.map(({ populated: _, ...place }) => place),
          'every block has the place that QEMU gives it',
        )
        const { path: _, allocated, fileSize: __, ...info } = inspectSnapshot(path)
        t.match(inspectSnapshot(recorded), info)
        t.ok(allocated < 2 * 1024 * 1024, 'and no more room than its data')
      }
      const truth = Object.fromEntries(meta.ram_blocks.map(({ name, sha256 }) => [name, sha256]))
      t.strictSame(blockHashes(readSnapshot(third)), truth)

      async function resend(from: string, to: string): Promise<void> {
        const receiver = new SnapshotReceiver(to, { parameters })
        await using sender = new SnapshotSender(from, { parameters: { ...parameters, zeroPageDetection } })
        await sender.send(await receiver.listen('tcp:127.0.0.1:0'))
        await receiver.completed
      }
    })
  }
}

t.test('one snapshot is served to several receivers at once', async (t) => {
  const dir = t.testdir()
  const recorded = join(dir, 'recorded')
  writeFileSync(recorded, mappedRam!)
  const expected = blockHashes(readSnapshot(recorded))
  await Promise.all(
    ['a', 'b', 'c'].map(async (name) => {
      const receiver = new SnapshotReceiver(join(dir, name))
      await using sender = new SnapshotSender(recorded)
      await sender.send(await receiver.listen('tcp:127.0.0.1:0'))
      await receiver.completed
    }),
  )
  for (const name of ['a', 'b', 'c']) t.strictSame(blockHashes(readSnapshot(join(dir, name))), expected)
})

t.test('a sender can be asked again after a failure, and not after its end', async (t) => {
  const dir = t.testdir()
  const recorded = join(dir, 'recorded')
  writeFileSync(recorded, mappedRam!)
  const sender = new SnapshotSender(recorded, { parameters: { multifdChannels: 2 } })
  const receiver = new SnapshotReceiver(join(dir, 'x'), { machineType: 'another' })
  await t.rejects(sender.send(await receiver.listen('tcp:127.0.0.1:0')))
  await t.rejects(receiver.completed, { code: 'ERR_MULTIFD_MACHINE' })
  const second = new SnapshotReceiver(join(dir, 'x'))
  await sender.send(await second.listen('tcp:127.0.0.1:0'))
  await second.completed
  await sender.close()
  await sender.close()
  await t.rejects(sender.send('tcp:127.0.0.1:1'), { code: 'ERR_MULTIFD_STATE' })
})

t.test('a snapshot is never the file that its own stream goes into', async (t) => {
  const dir = t.testdir()
  const snapshot = join(dir, 'snapshot')
  writeFileSync(snapshot, mappedRam!)
  symlinkSync(snapshot, join(dir, 'symbolic'))
  linkSync(snapshot, join(dir, 'hard'))
  const fd = openSync(snapshot, 'a')
  t.teardown(() => closeSync(fd))
  await using sender = new SnapshotSender(snapshot, { parameters: { multifd: false, returnPath: false } })
  const names = ['snapshot', 'symbolic', 'hard', 'snapshot,offset=512M', 'symbolic,offset=4096']
  const refused = { code: 'ERR_MULTIFD_ARGUMENT', message: /is the file that block '.+' is read from/ }
  for (const uri of [...names.map((name) => `file:${join(dir, name)}`), `fd:${fd}`]) {
    await t.rejects(sender.send(uri), refused, uri)
    await t.rejects(sender.source.migrate(uri), refused, `${uri}, by the source itself`)
    t.equal(Buffer.compare(readFileSync(snapshot), mappedRam!), 0, 'nothing of it has changed')
  }
  const other = join(dir, 'other')
  t.match(await sender.send(`file:${other}`), { status: 'completed' })
  t.ok(existsSync(other), 'another file will do')
})

t.test('a stream is never the file that its snapshot is written to', async (t) => {
  const dir = t.testdir()
  const snapshot = join(dir, 'snapshot')
  writeFileSync(snapshot, mappedRam!)
  const stream = join(dir, 'new.partial')
  await using sender = new SnapshotSender(snapshot, { parameters: { multifd: false, returnPath: false } })
  await sender.send(`file:${stream}`)
  const bytes = readFileSync(stream)
  await using receiver = new SnapshotReceiver(join(dir, 'new'), { parameters: { multifd: false } })
  await t.rejects(receiver.listen(`file:${stream}`), { code: 'ERR_MULTIFD_ARGUMENT', message: /another name/ })
  t.equal(Buffer.compare(readFileSync(stream), bytes), 0)
})
