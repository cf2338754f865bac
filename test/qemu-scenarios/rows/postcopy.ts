// Postcopy: not built. What a QEMU that wants it gets to hear, and whoever asks a source of ours for it.

import assert from 'node:assert/strict'
import { MigrationSource, QmpServer, RamBlock } from '../../../src/index.js'
import type { MigrationParameters } from '../../../src/migration/parameters.js'
import { addCredentials, tlsParameters } from '../../qemu/tls-ends.js'
import { QmpLine } from '../../qmp/dialogue.js'
import type { Qemu } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import { atRest, bothEnd, letGo, receiverFor, sameMemory, startGuest, type Way } from '../passage.js'
import { notYet, type Result, type Row, type Run, rejection } from '../table.js'
import { credentials } from './tls.js'

interface Wanted {
  preempt?: true
  tls?: true
}

const capabilitiesOf = ({ preempt }: Wanted): string[] => [...(preempt ? ['postcopy-preempt'] : []), 'postcopy-ram']

/** A QEMU that has postcopy on is refused before anything of its guest is lost; without, it is taken. */
async function theyWant(ground: Ground, wanted: Wanted): Promise<Result> {
  const tls = wanted.tls && ({ type: 'psk', dir: credentials().psk } as const)
  const way: Way = tls ? { ours: { tls: { dir: tls.dir, kind: 'psk' } }, qemu: { parameters: tlsParameters(tls) } } : {}
  const first = receiverFor(ground, way)
  const original = await startGuest(ground, tls ? { prepare: (qemu: Qemu) => addCredentials(qemu, tls, 'client') } : {})
  const capabilities = capabilitiesOf(wanted)
  await original.migrate({ uri: await first.listen('tcp:127.0.0.1:0'), capabilities, ...way.qemu })
  const { code } = await rejection(first.completed)
  await original.waitMigration('failed')
  await original.waitStatus('running')

  await original.command('migrate-set-capabilities', {
    capabilities: capabilities.map((capability) => ({ capability, state: false })),
  })
  const second = receiverFor(ground, way)
  await letGo(original, await second.listen('tcp:127.0.0.1:0'), way)
  await bothEnd(second.completed, original.waitMigration())
  await atRest(original)
  await sameMemory(second.guest, original)
  return {
    result: 'refused by name',
    seen: `\`${code}\` before any page; QEMU's guest goes on, and is taken once the capability is off`,
  }
}

/** What our QMP says to whoever wants the capabilities, and the library to whoever wants parameters. */
async function weAreAsked(ground: Ground, wanted: Wanted, command?: string): Promise<Result> {
  const source = ground.own(new MigrationSource({ ram: [RamBlock.allocate({ idstr: 'block', size: 2 ** 20 })] }))
  const server = ground.own(new QmpServer({ source }))
  const path = ground.path('qmp')
  await server.listen(`unix:${path}`)
  const line = ground.own(await QmpLine.connect(path))
  await line.next()
  await line.command('qmp_capabilities')
  for (const capability of capabilitiesOf(wanted)) {
    const capabilities = [{ capability, state: true }]
    await assert.rejects(line.command('migrate-set-capabilities', { capabilities }), /is not supported/)
  }
  if (command !== undefined) await assert.rejects(line.command(command, { uri: 'tcp:127.0.0.1:1' }))
  const parameters = { postcopyRam: true } as unknown as Partial<MigrationParameters>
  const { code } = await rejection(() => new MigrationSource({ ram: source.memory as RamBlock[], parameters }))
  const words = capabilitiesOf(wanted)
    .map((name) => `\`${name}\``)
    .join(' and ')
  const more = command === undefined ? '' : `, and there is no \`${command}\``
  return notYet(`our QMP refuses ${words}${more}; no parameter asks for it (\`${code}\`)`)
}

function row(name: string, wanted: Wanted = {}): Row {
  const theirs: Run = { roles: ['D'], run: (ground) => theyWant(ground, wanted) }
  return {
    name: `postcopy/${name}`,
    runs: [theirs, { roles: ['S'], alone: true, run: (ground) => weAreAsked(ground, wanted) }],
  }
}

// What can not be begun can not be taken up again.
function recovery(name: string, wanted: Wanted = {}): Row {
  return {
    name: `postcopy/${name}`,
    runs: [{ roles: ['S', 'D'], alone: true, run: (ground) => weAreAsked(ground, wanted, 'migrate-recover') }],
  }
}

export const POSTCOPY: readonly Row[] = [
  row('plain'),
  row('suspend'),
  row('tls/psk', { tls: true }),
  row('preempt/plain', { preempt: true }),
  row('preempt/tls/psk', { preempt: true, tls: true }),
  recovery('recovery/plain'),
  recovery('recovery/tls/psk'),
  recovery('preempt/recovery/plain', { preempt: true }),
  recovery('preempt/recovery/tls/psk', { preempt: true }),
  recovery('recovery/double-failures/handshake'),
  recovery('recovery/double-failures/reconnect'),
]
