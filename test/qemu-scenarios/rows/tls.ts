// TLS: who is let in, and who is not, by keys and by certificates, over one connection and over parallel channels.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GuestReceiver } from '../../../src/index.js'
import type { TlsOptions } from '../../../src/tls/options.js'
import { addCredentials, type Credentials, makeCredentials, type QemuTls, tlsParameters } from '../../qemu/tls-ends.js'
import { onProcessEnd, type Qemu } from '../../support/qemu/index.js'
import { CLIENT_NAME, SERVER_HOST } from '../../support/tls/credentials.js'
import type { Ground } from '../ground.js'
import { enterQemu, leaveQemu, someGuest, sourceFor, startGuest, startHeir, type Way } from '../passage.js'
import { type Result, type Row, type Run, rejection, works } from '../table.js'
import { SAME } from './precopy.js'

/** Both directions of one scenario: what the QEMU has, and what we have. */
interface Ends {
  /** A QEMU that migrates to us. */
  from: QemuTls
  receive: TlsOptions
  /** And we to a QEMU. */
  send: TlsOptions
  to: QemuTls
}

type Scenario = (credentials: Credentials) => Ends

let made: Credentials | undefined

export function credentials(): Credentials {
  if (made) return made
  const folder = mkdtempSync(join(tmpdir(), 'multifd-credentials-'))
  onProcessEnd(() => rmSync(folder, { recursive: true, force: true }))
  made = makeCredentials(folder)
  return made
}

/** How it is connected: channels or not, tcp or unix. */
interface Connecting {
  channels?: number
  unix?: true
}

function wayOf(ground: Ground, { channels, unix }: Connecting, ours: TlsOptions, theirs: QemuTls): Way {
  return {
    ...(channels && { channels }),
    ...(unix && { address: `unix:${ground.path('socket')}` }),
    ours: { tls: ours },
    qemu: { parameters: tlsParameters(theirs) },
  }
}

const give = (tls: QemuTls, role: 'client' | 'server') => (qemu: Qemu) => addCredentials(qemu, tls, role)

function accepted(scenario: Scenario, how: Connecting): Run {
  return {
    roles: ['S', 'D'],
    async run(ground) {
      const { from, receive, send, to } = scenario(credentials())
      const { guest } = await leaveQemu(ground, { ...wayOf(ground, how, receive, from), prepare: give(from, 'client') })
      await enterQemu(ground, guest, { ...wayOf(ground, how, send, to), prepare: give(to, 'server') })
      return works(`encrypted; ${SAME}`)
    },
  }
}

/** Both refuse: the QEMU's guest goes on, and our destination waits on; our source fails, and its guest is as it was. */
function refused(scenario: Scenario, how: Connecting): Run[] {
  return [
    { roles: ['D'], run: (ground) => refusedSource(ground, scenario(credentials()), how) },
    { roles: ['S'], run: (ground) => refusedByThem(ground, scenario(credentials()), how) },
  ]
}

async function refusedSource(ground: Ground, { from, receive }: Ends, how: Connecting): Promise<Result> {
  const way = wayOf(ground, how, receive, from)
  const warnings: string[] = []
  const logger = { debug() {}, info() {}, warn: (_: object, text: string) => warnings.push(text), error() {} }
  const parameters = { multifd: how.channels !== undefined, multifdChannels: how.channels ?? 1, tls: receive }
  const receiver = ground.own(new GuestReceiver({ parameters, logger }))
  const uri = await receiver.listen(way.address ?? 'tcp:127.0.0.1:0')
  const qemu = await startGuest(ground, { prepare: give(from, 'client') })
  const ended = qemu
    .migrate({ uri, multifdChannels: how.channels, parameters: tlsParameters(from) })
    .then(() => qemu.waitMigration('failed'))
  await ended
  await qemu.waitStatus('running')
  for (let look = 0; look < 200 && warnings.length === 0 && receiver.status === 'setup'; look++) await sleep(10)
  if (receiver.status !== 'setup') {
    const { code } = await rejection(receiver.completed)
    assert.match(code, /^ERR_MULTIFD_(CLOSED|TLS)$/)
  } else assert.match(warnings.join('\n'), /refused/)
  return works('no migration: QEMU says that it failed and its guest goes on, we say that nobody was let in')
}

async function refusedByThem(ground: Ground, { send, to }: Ends, how: Connecting): Promise<Result> {
  const guest = await someGuest(ground)
  const way = wayOf(ground, how, send, to)
  const { heir, uri } = await startHeir(ground, { ...way, prepare: give(to, 'server') })
  const { code } = await rejection(sourceFor(ground, guest, way).migrate(uri))
  // A name to expect is missing where a path has none.
  assert.match(code, how.unix ? /^ERR_MULTIFD_ARGUMENT$/ : /^ERR_MULTIFD_(TLS|CLOSED)$/)
  const theirs = await Promise.race([heir.exited, heir.queryMigrate().catch(() => heir.exited)])
  assert.ok(!('status' in theirs) || theirs.status !== 'completed')
  return works('no migration: our source says so, and QEMU has no guest')
}

const PSK: Scenario = ({ psk }) => ({
  ...{ from: { type: 'psk', dir: psk }, receive: { dir: psk, kind: 'psk' } },
  ...{ send: { dir: psk, kind: 'psk' }, to: { type: 'psk', dir: psk } },
})
const PSK_MISMATCH: Scenario = ({ psk, wrongPsk }) => ({
  ...{ from: { type: 'psk', dir: wrongPsk }, receive: { dir: psk, kind: 'psk' } },
  ...{ send: { dir: wrongPsk, kind: 'psk' }, to: { type: 'psk', dir: psk } },
})
const DEFAULT_HOST: Scenario = ({ friendly }) => ({
  ...{ from: { type: 'x509', dir: friendly }, receive: { dir: friendly } },
  ...{ send: { dir: friendly }, to: { type: 'x509', dir: friendly } },
})
const OVERRIDE_HOST: Scenario = ({ friendly, named }) => ({
  ...{ from: { type: 'x509', dir: friendly, hostname: SERVER_HOST }, receive: { dir: named } },
  ...{ send: { dir: friendly, hostname: SERVER_HOST }, to: { type: 'x509', dir: named } },
})
const MISMATCH_HOST: Scenario = ({ friendly, named }) => ({
  ...{ from: { type: 'x509', dir: friendly }, receive: { dir: named } },
  ...{ send: { dir: friendly }, to: { type: 'x509', dir: named } },
})
const FRIENDLY_CLIENT: Scenario = ({ friendly }) => ({
  ...{ from: { type: 'x509', dir: friendly }, receive: { dir: friendly, authz: [CLIENT_NAME] } },
  ...{ send: { dir: friendly }, to: { type: 'x509', dir: friendly, authz: CLIENT_NAME } },
})
const HOSTILE_CLIENT: Scenario = ({ friendly }) => ({
  ...{ from: { type: 'x509', dir: friendly }, receive: { dir: friendly, authz: ['CN=nobody'] } },
  ...{ send: { dir: friendly }, to: { type: 'x509', dir: friendly, authz: 'CN=nobody' } },
})
const ALLOW_ANONYMOUS: Scenario = ({ friendly, anonymous }) => ({
  ...{ from: { type: 'x509', dir: anonymous }, receive: { dir: friendly, verifyPeer: false } },
  ...{ send: { dir: anonymous }, to: { type: 'x509', dir: friendly, verifyPeer: false } },
})
const REJECT_ANONYMOUS: Scenario = ({ friendly, anonymous }) => ({
  ...{ from: { type: 'x509', dir: anonymous }, receive: { dir: friendly } },
  ...{ send: { dir: anonymous }, to: { type: 'x509', dir: friendly } },
})

const KEYS: [string, Scenario, boolean][] = [
  ['psk/match', PSK, true],
  ['psk/mismatch', PSK_MISMATCH, false],
]
const HOSTS: [string, Scenario, boolean][] = [
  ['x509/default-host', DEFAULT_HOST, true],
  ['x509/override-host', OVERRIDE_HOST, true],
  ['x509/mismatch-host', MISMATCH_HOST, false],
]
const CLIENTS: [string, Scenario, boolean][] = [
  ['x509/friendly-client', FRIENDLY_CLIENT, true],
  ['x509/hostile-client', HOSTILE_CLIENT, false],
]
const ANONYMOUS: [string, Scenario, boolean][] = [
  ['x509/allow-anon-client', ALLOW_ANONYMOUS, true],
  ['x509/reject-anon-client', REJECT_ANONYMOUS, false],
]

function rows(prefix: string, how: Connecting, list: [string, Scenario, boolean][], covered?: string): Row[] {
  return list.map(([name, scenario, goesWell]) => {
    const runs = goesWell ? [accepted(scenario, how)] : refused(scenario, how)
    return { name: `${prefix}/${name}`, runs: runs.map((run) => (covered === undefined ? run : { ...run, covered })) }
  })
}

export const TLS: readonly Row[] = [
  ...rows('multifd/tcp/tls', { channels: 2 }, [...KEYS, ...HOSTS, ...ANONYMOUS], 'test/qemu/tls.test.ts'),
  ...rows('precopy/tcp/tls', {}, [...KEYS, ...HOSTS, ...CLIENTS, ...ANONYMOUS]),
  { name: 'precopy/unix/tls/psk', runs: [accepted(PSK, { unix: true })] },
  // A path is no host: without a name to expect nobody can be sure.
  ...rows('precopy/unix/tls', { unix: true }, [
    ['x509/default-host', DEFAULT_HOST, false],
    ['x509/override-host', OVERRIDE_HOST, true],
  ]),
]
