// A QEMU 10.0 whose migration partner is multifd serve, both driven over QMP: in, and out again into another QEMU.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { start } from '../cli/cli.js'
import { QmpLine } from '../qmp/dialogue.js'
import { temporaryFolder } from '../qmp/program.js'
import { guestProgress, requireQemu, startQemu } from '../support/qemu/index.js'

const version = '10.0'
const multifdChannels = 3

t.setTimeout(120_000)

interface Info {
  status: string
  ram?: Record<string, number>
}

async function completed(line: QmpLine): Promise<Info> {
  for (;;) {
    const info = await line.command<Info>('query-migrate')
    if (info.status === 'completed') return info
    if (info.status === 'failed') throw new Error(JSON.stringify(info))
    await sleep(10)
  }
}

t.test('over three channels each way', async (t) => {
  if (!requireQemu(t, version)) return
  const folder = temporaryFolder(t)
  const socket = join(folder, 'qmp')
  const serving = start('serve', '--qmp', `unix:${socket}`, '--snapshot', join(folder, 'guest'), '--incoming')
  await serving.says(/QMP on (\S+)/)
  const line = await QmpLine.connect(socket)
  await line.next()
  await line.command('qmp_capabilities')
  const capabilities = ['events', 'return-path', 'multifd']
  await line.command('migrate-set-capabilities', {
    capabilities: capabilities.map((capability) => ({ capability, state: true })),
  })
  await line.command('migrate-set-parameters', { 'max-bandwidth': 0, 'multifd-channels': multifdChannels })

  const first = await startQemu({ version, guest: 'running' })
  t.teardown(() => first.close())
  const uri = `unix:${folder}/in`
  await line.command('migrate-incoming', { uri })
  await first.migrate({ uri, multifdChannels })
  await first.waitMigration()
  const step = await first.step()
  await completed(line)

  const second = await startQemu({ version, incoming: 'defer' })
  t.teardown(() => second.close())
  const to = await second.listen(`unix:${folder}/out`, { multifdChannels })
  await line.command('migrate', { uri: to })
  await second.waitMigration()
  const left = await completed(line)
  t.ok(left.ram!['multifd-bytes']! > 2 ** 20)
  const steps = await guestProgress(second)
  t.ok(steps.length === 3, `went on from ${JSON.stringify(step)} to ${JSON.stringify(steps.at(-1))}`)
  const told = line.events.map(({ data }) => (data as { status?: string } | undefined)?.status).filter(Boolean)
  t.strictSame(told, ['setup', 'active', 'completed', 'setup', 'active', 'device', 'completed'])
  await line.command('quit')
  t.equal((await serving.ended).code, 0)
})
