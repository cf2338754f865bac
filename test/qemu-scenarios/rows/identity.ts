// Whose guest it is, and where it is to go: the check of the uuid, and addresses that are none.

import assert from 'node:assert/strict'
import { MigrationSource, QmpServer, RamBlock } from '../../../src/index.js'
import { QmpLine } from '../../qmp/dialogue.js'
import { QmpError } from '../../support/qemu/index.js'
import type { Ground } from '../ground.js'
import { enterQemu, leaveQemu, receiverFor, sourceFor, startGuest, startHeir } from '../passage.js'
import { type Result, type Row, type Run, rejection, works } from '../table.js'

const ONE = '11111111-1111-1111-1111-111111111111'
const OTHER = '22222222-2222-2222-2222-222222222222'
const CAPABILITY = { capabilities: ['validate-uuid'] }

const hardware = (uuid: string | undefined) => (uuid === undefined ? {} : { hardware: { extraArgs: ['-uuid', uuid] } })
const ours = (uuid: string | undefined) => (uuid === undefined ? {} : { uuid })

/** QEMU → us: the uuid that it has, and the one that we ask for. */
async function taken(ground: Ground, source: string | undefined, destination: string | undefined): Promise<Result> {
  await leaveQemu(ground, { ...hardware(source), ...ours(destination), qemu: CAPABILITY })
  return works('taken; the memory is the same')
}

async function notTaken(ground: Ground): Promise<Result> {
  const receiver = receiverFor(ground, { uuid: OTHER })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  const original = await startGuest(ground, hardware(ONE))
  await original.migrate({ uri, ...CAPABILITY })
  const { code } = await rejection(receiver.completed)
  await original.waitMigration('failed')
  await original.waitStatus('running')
  return works(`\`${code}\`; QEMU says that it failed, and its guest goes on`)
}

/** us → QEMU: the uuid that the guest came with, and the QEMU's. */
async function given(ground: Ground, source: string | undefined, destination: string | undefined): Promise<Result> {
  const { guest } = await leaveQemu(ground, { ...hardware(source), qemu: CAPABILITY })
  assert.equal(guest.uuid, source)
  await enterQemu(ground, guest, { ...hardware(destination), qemu: CAPABILITY })
  return works('QEMU takes it; the memory is the same, and the guest goes on')
}

async function notGiven(ground: Ground): Promise<Result> {
  const { guest } = await leaveQemu(ground, { ...hardware(ONE), qemu: CAPABILITY })
  const { heir, uri } = await startHeir(ground, { ...hardware(OTHER), qemu: CAPABILITY })
  const { code } = await rejection(sourceFor(ground, guest, {}).migrate(uri))
  assert.match(code, /^ERR_MULTIFD_(REMOTE|CLOSED)$/)
  assert.match((await heir.exited).stderr, /UUID/i)
  return works('QEMU refuses it by the uuid, and our source says so')
}

function uuid(suffix: string, source: string | undefined, destination: string | undefined): Row {
  const runs: Run[] = [
    { roles: ['D'], old: true, run: (ground) => taken(ground, source, destination) },
    { roles: ['S'], old: true, run: (ground) => given(ground, source, destination) },
  ]
  return { name: `validate_uuid${suffix}`, runs }
}

/** The same request to a QEMU and to a server of ours: it must be refused in the same words. */
async function sameRefusal(ground: Ground, request: Record<string, unknown>): Promise<Result> {
  const qemu = await startGuest(ground)
  const theirs = await qemu.command('migrate', request).then(
    () => assert.fail('QEMU takes it'),
    (error: unknown) => error,
  )
  assert.ok(theirs instanceof QmpError)
  const source = ground.own(new MigrationSource({ ram: [RamBlock.allocate({ idstr: 'block', size: 2 ** 20 })] }))
  const server = ground.own(new QmpServer({ source }))
  await server.listen(`unix:${ground.path('qmp')}`)
  const line = ground.own(await QmpLine.connect(ground.path('qmp')))
  await line.next()
  await line.command('qmp_capabilities')
  const { error } = (await line.ask({ execute: 'migrate', arguments: request })) as { error?: object }
  assert.deepEqual(error, { class: theirs.errorClass, desc: theirs.message })
  return works(`refused as by QEMU: ${theirs.errorClass}, "${theirs.message}"`)
}

const ADDRESS = { transport: 'socket', type: 'inet', host: '127.0.0.1', port: '1' }
const BOTH = { uri: 'tcp:127.0.0.1:1', channels: [{ 'channel-type': 'main', addr: ADDRESS }] }

export const IDENTITY: readonly Row[] = [
  uuid('', ONE, ONE),
  {
    name: 'validate_uuid_error',
    runs: [
      { roles: ['D'], old: true, run: notTaken },
      { roles: ['S'], old: true, run: notGiven },
    ],
  },
  uuid('_src_not_set', undefined, ONE),
  uuid('_dst_not_set', ONE, undefined),
  { name: 'validate_uri/channels/both_set', runs: [{ roles: ['Q'], run: (ground) => sameRefusal(ground, BOTH) }] },
  { name: 'validate_uri/channels/none_set', runs: [{ roles: ['Q'], run: (ground) => sameRefusal(ground, {}) }] },
]
