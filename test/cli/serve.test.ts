// multifd serve: snapshots and memory that QMP migrates, from process to process.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { inspectSnapshot } from '../../src/index.js'
import { QmpLine } from '../qmp/dialogue.js'
import { temporaryFolder } from '../qmp/program.js'
import { recordedSnapshot, run, start } from './cli.js'

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
  t.equal((await receiving.ended).code, 130)
  t.notOk(existsSync(one) || existsSync(two), 'no socket is left')
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
})
