// multifd serve: snapshots and memory that QMP migrates, from process to process.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { inspectSnapshot, MigrationDestination, MigrationSource, RamBlock } from '../../src/index.js'
import { QmpLine } from '../qmp/dialogue.js'
import { temporaryFolder } from '../qmp/program.js'
import { checksums, fillMixed } from '../support/peers/index.js'
import { recordedSnapshot, run, start } from './cli.js'

const MIB = 2 ** 20

async function connect(path: string): Promise<QmpLine> {
  const line = await QmpLine.connect(path)
  await line.next()
  await line.command('qmp_capabilities')
  return line
}

async function completed(line: QmpLine): Promise<void> {
  for (;;) {
    const { status, ...rest } = await line.command<{ status: string }>('query-migrate')
    if (status === 'completed') return
    if (status === 'failed') throw new Error(JSON.stringify(rest))
    await sleep(5)
  }
}

t.test('a snapshot goes from one process to another, twice, and on from there', async (t) => {
  const folder = temporaryFolder(t)
  const { path: original } = recordedSnapshot(folder)
  const copy = join(folder, 'copy.snapshot')
  const [one, two] = ['one', 'two'].map((name) => join(folder, name)) as [string, string]
  const sending = start('serve', '--qmp', `unix:${one}`, '--snapshot', original)
  const receiving = start('serve', '--qmp', `unix:${two}`, '--snapshot', copy, '--incoming')
  await Promise.all([sending.says(/QMP on (\S+)/), receiving.says(/QMP on (\S+)/)])
  const [source, destination] = [await connect(one), await connect(two)]
  const multifd = { capabilities: [{ capability: 'multifd', state: true }] }
  for (const line of [source, destination]) await line.command('migrate-set-capabilities', multifd)
  t.match(await destination.command('query-status'), { status: 'inmigrate' })
  t.match(await destination.ask({ execute: 'migrate', arguments: { uri: 'tcp::1' } }), { error: {} })
  const uri = `unix:${join(folder, 'migrate')}`
  await destination.command('migrate-incoming', { uri })
  await source.command('migrate', { uri })
  await Promise.all([completed(source), completed(destination)])
  const { ram, devices } = inspectSnapshot(original)
  t.match(inspectSnapshot(copy), { ram: { size: ram.size, populated: ram.populated }, devices }, 'all of it is there')

  // What came can go on: back to a third, which is a plain command.
  const third = join(folder, 'third.snapshot')
  const receiver = start('receive', `unix:${join(folder, 'third')}`, '-o', third)
  await receiver.says(/listening on (\S+)/)
  await destination.command('migrate', { uri: `unix:${join(folder, 'third')}` })
  t.equal((await receiver.ended).code, 0)
  await completed(destination)
  t.ok(readFileSync(third).equals(readFileSync(copy)), 'and is the same')

  await source.command('quit')
  t.equal((await sending.ended).code, 0)
  receiving.kill('SIGINT')
  t.match(await receiving.ended, { code: 130, stderr: /\nmultifd: interrupted\n$/ })
  t.notOk(existsSync(one) || existsSync(two), 'no socket is left')
})

t.test('memory is received, and migrated on', async (t) => {
  const folder = temporaryFolder(t)
  const ram = [8 * MIB, MIB].map((size, at) => RamBlock.allocate({ idstr: `block ${at}`, size })) as [
    RamBlock,
    RamBlock,
  ]
  for (const block of ram) fillMixed(block)
  const path = join(folder, 'qmp')
  const serving = start('serve', '--qmp', `unix:${path}`, '--incoming', '--ram', 'block 0=8M', '--ram', 'block 1=1M')
  await serving.says(/QMP on (\S+)/)
  const line = await connect(path)
  const multifd = { capabilities: [{ capability: 'multifd', state: true }] }
  await line.command('migrate-set-capabilities', multifd)
  t.match(await line.command('query-status'), { status: 'inmigrate' })
  const uri = `unix:${folder}/migration`
  await line.command('migrate-incoming', { uri })
  await new MigrationSource({ ram }).migrate(uri)
  await completed(line)
  t.match(await line.command('query-status'), { status: 'paused' })
  const theirs = ram.map(({ idstr, size }) => RamBlock.allocate({ idstr, size }))
  const destination = new MigrationDestination({ ram: theirs })
  await line.command('migrate', { uri: await destination.listen('tcp:127.0.0.1:0') })
  await completed(line)
  await destination.completed
  t.strictSame(checksums(theirs), checksums(ram), 'it is the same memory')
  await line.command('calc-dirty-rate', { 'calc-time': 50, 'calc-time-unit': 'millisecond' })
  t.match(await line.command('query-dirty-rate'), { status: 'measuring' })
  await line.command('quit')
  t.equal((await serving.ended).code, 0)
})

t.test('memory that is served: zero, as often as wanted, and of one shape', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'qmp')
  const serving = start('serve', '--qmp', `unix:${path}`, '--ram', 'heap=4M')
  await serving.says(/QMP on (\S+)/)
  const line = await connect(path)
  for (const [size, status] of [
    [4 * MIB, 'completed'],
    [4 * MIB, 'completed'],
    [2 * MIB, 'failed'],
  ] as const) {
    const theirs = RamBlock.allocate({ idstr: 'heap', size })
    theirs.bytes().fill(7)
    const destination = new MigrationDestination({ ram: [theirs], parameters: { multifd: false } })
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const outcome = destination.completed.then(
      () => 'completed',
      () => 'failed',
    )
    await line.command('migrate', { uri })
    t.equal(await outcome, status)
    if (status === 'completed') {
      await completed(line)
      t.ok(theirs.bytes().every((byte) => byte === 0))
    }
    await destination.close()
  }
  serving.kill('SIGTERM')
  t.equal((await serving.ended).code, 130)
})

t.test('what is served has to be said once', async (t) => {
  const wrong = [
    [[], /either --snapshot or --ram/],
    [['--snapshot', 'x', '--ram', 'a=1M'], /either --snapshot or --ram/],
    [['--ram', 'a'], /such as heap=512M/],
  ] as const
  await Promise.all(
    wrong.map(async ([args, says]) => {
      const { code, stderr } = await run('serve', '--qmp', 'unix:/nowhere/qmp', ...args)
      t.equal(code, 2)
      t.match(stderr, says)
    }),
  )
  const homeless = await run('serve', '--qmp', 'unix:/nowhere/qmp', '--ram', 'heap=1M')
  const under = await run('serve', '--qmp', 'unix:/etc/passwd/qmp', '--ram', 'heap=1M')
  t.match(under, {
    code: 1,
    stderr: 'multifd: can not listen on /etc/passwd/qmp: ENOTDIR, not a directory (ERR_MULTIFD_LISTEN)\n',
  })
  const stderr = 'multifd: unix:/nowhere/qmp: ENOENT, no such file or directory (ERR_MULTIFD_LISTEN)\n'
  t.match(homeless, { code: 1, stderr })
})
