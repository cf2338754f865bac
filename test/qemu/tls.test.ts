// TLS against real QEMUs: who is let in and who is not, with us at either end, and the same guest that comes out.

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type Guest, GuestReceiver, type MultifdError } from '../../src/index.js'
import type { TlsOptions } from '../../src/tls/options.js'
import { memoryDifference, type Qemu, type QemuVersion, requireQemu, startQemu } from '../support/qemu/index.js'
import { CLIENT_NAME, requireOpenssl, SERVER_HOST } from '../support/tls/credentials.js'
import { addCredentials, makeCredentials, type QemuTls, tlsParameters } from './tls-ends.js'

const CHANNELS = 2
const MEMORY_MIB = 32
const MIB = 1024 ** 2

if (requireOpenssl(t)) {
  const { friendly, named, anonymous, hostile, outsider, psk, wrongPsk } = makeCredentials(t.testdir())

  interface Accepted {
    name: string
    version?: QemuVersion
    /** QEMU → us → QEMU: what each of the four ends has. */
    from: QemuTls
    receive: TlsOptions
    send: TlsOptions
    to: QemuTls
  }

  const x509 = (more: Partial<QemuTls> = {}): QemuTls => ({ type: 'x509', dir: friendly, ...more })
  const byKey = (more: Partial<QemuTls> = {}): QemuTls => ({ type: 'psk', dir: psk, ...more })
  const only12 = 'NORMAL:-VERS-TLS1.3'
  const only13 = 'NORMAL:-VERS-ALL:+VERS-TLS1.3'

  const ACCEPTED: Accepted[] = [
    {
      name: 'matching keys',
      ...{ from: byKey(), receive: { dir: psk, kind: 'psk' } },
      ...{ send: { dir: psk, kind: 'psk', username: 'other' }, to: byKey() },
    },
    {
      name: 'matching keys, TLS 1.2',
      ...{ from: byKey({ username: 'other' }), receive: { dir: psk, kind: 'psk', maxVersion: 'TLSv1.2' } },
      ...{ send: { dir: psk, kind: 'psk', maxVersion: 'TLSv1.2' }, to: byKey() },
    },
    {
      name: 'the default host, a friendly client that is on the list',
      ...{ from: x509(), receive: { dir: friendly, authz: ['CN=nobody', CLIENT_NAME] } },
      ...{ send: { dir: friendly }, to: x509({ authz: CLIENT_NAME }) },
    },
    {
      name: 'an overridden host, TLS 1.3 alone',
      ...{ from: x509({ hostname: SERVER_HOST }), receive: { dir: named, minVersion: 'TLSv1.3' } },
      ...{ send: { dir: friendly, hostname: SERVER_HOST }, to: x509({ dir: named, priority: only13 }) },
    },
    {
      name: 'anonymous clients allowed, TLS 1.2 alone',
      ...{ from: x509({ dir: anonymous, priority: only12 }), receive: { dir: friendly, verifyPeer: false } },
      ...{ send: { dir: anonymous, maxVersion: 'TLSv1.2' }, to: x509({ verifyPeer: false }) },
    },
    {
      name: 'matching keys',
      version: '7.2',
      ...{ from: byKey(), receive: { dir: psk, kind: 'psk' } },
      ...{ send: { dir: psk, kind: 'psk' }, to: byKey() },
    },
    {
      name: 'certificates',
      version: '7.2',
      ...{ from: x509(), receive: { dir: friendly, authz: [CLIENT_NAME] } },
      ...{ send: { dir: friendly }, to: x509({ authz: CLIENT_NAME }) },
    },
  ]

  for (const { name, version = '10.0', from, receive, send, to } of ACCEPTED) {
    t.test(`QEMU ${version} → us → QEMU ${version}: ${name}`, async (t) => {
      if (!requireQemu(t, version)) return
      const [original, heir] = await Promise.all([start(version, from, 'client'), start(version, to, 'server')])
      t.teardown(() => Promise.all([original.close(), heir.close()]))
      await using receiver = new GuestReceiver({ parameters: { multifdChannels: CHANNELS, tls: receive } })
      const uri = await receiver.listen('tcp:127.0.0.1:0')
      const multifd = { multifdChannels: CHANNELS }
      await original.migrate({ uri, ...multifd, parameters: tlsParameters(from) })
      await original.waitMigration()
      await receiver.completed
      const memory = await original.memory()
      const ram = receiver.guest.ram.find(({ idstr }) => idstr === 'pc.ram')!
      const [theirs, ours] = [memory.subarray(MIB), Buffer.from(ram.bytes(MIB, memory.length - MIB))]
      t.equal(memoryDifference(theirs, ours), undefined, 'what came is what the guest had')
      await using source = receiver.guest.source({ parameters: { multifdChannels: CHANNELS, tls: send } })
      const address = await heir.listen('tcp:127.0.0.1:0', { ...multifd, parameters: tlsParameters(to) })
      const ended = await source.migrate(address).catch((error: unknown) => `${error} ${heir.stderr}`)
      t.match(ended, { status: 'completed' })
      await heir.waitMigration()
      t.equal(memoryDifference(memory, await heir.memory()), undefined, 'and what the next one has')
    })
  }

  interface Refused {
    name: string
    qemu: QemuTls
    ours: TlsOptions
    /** Of our one line. */
    says: RegExp
  }

  const REFUSED_SOURCES: Refused[] = [
    {
      name: 'another key',
      ...{ qemu: byKey({ dir: wrongPsk }), ours: { dir: psk, kind: 'psk' } },
      says: /TLS handshake with the source failed: binder does not verify/,
    },
    {
      name: 'a host that the certificate does not have',
      ...{ qemu: x509({ hostname: 'elsewhere.example' }), ours: { dir: friendly } },
      says: /closed before it said what it is|ended the connection in the TLS handshake|does not take us/,
    },
    {
      name: 'a client of another CA',
      ...{ qemu: x509({ dir: hostile, sanityCheck: false }), ours: { dir: friendly } },
      says: /the source's certificate is refused: unable to get local issuer certificate/,
    },
    {
      name: 'a client that is not on the list',
      ...{ qemu: x509(), ours: { dir: friendly, authz: ['CN=nobody'] } },
      says: /certificate is of 'C=GB,O=Example Org,CN=source.example', which is not allowed/,
    },
    {
      name: 'an anonymous client',
      ...{ qemu: x509({ dir: anonymous }), ours: { dir: friendly } },
      says: /TLS handshake with the source failed: peer did not return a certificate/,
    },
    {
      name: 'an older version than wanted',
      ...{ qemu: x509({ priority: only12 }), ours: { dir: friendly, minVersion: 'TLSv1.3' } },
      says: /TLS handshake with the source failed: unsupported protocol/,
    },
  ]

  t.test('we refuse a source of QEMU 10.0, and wait on', async (t) => {
    if (!requireQemu(t, '10.0')) return
    for (const { name, qemu: theirs, ours, says } of REFUSED_SOURCES) {
      const qemu = await start('10.0', theirs, 'client')
      t.teardown(() => qemu.close())
      const warnings: string[] = []
      const logger = { debug() {}, info() {}, warn: (_: object, text: string) => warnings.push(text), error() {} }
      await using receiver = new GuestReceiver({ parameters: { multifdChannels: CHANNELS, tls: ours }, logger })
      const uri = await receiver.listen('tcp:127.0.0.1:0')
      await qemu.migrate({ uri, multifdChannels: CHANNELS, parameters: tlsParameters(theirs) })
      await qemu.waitMigration('failed')
      for (let look = 0; look < 100 && warnings.length === 0 && receiver.status === 'setup'; look++) await sleep(10)
      const told = warnings.length > 0 ? warnings.join('\n') : ((await receiver.completed.catch(String)) as string)
      t.match(told, says, name)
    }
  })

  const REFUSED_US: Refused[] = [
    {
      name: 'another key',
      ...{ qemu: byKey(), ours: { dir: wrongPsk, kind: 'psk' } },
      says: /the destination (does not take us|ended the connection)/,
    },
    {
      name: 'a host that the certificate does not have',
      ...{ qemu: x509({ dir: named }), ours: { dir: friendly } },
      says: /the destination's certificate is refused: IP address mismatch \(expected '127.0.0.1'\)/,
    },
    {
      name: 'an overridden host that it does not have',
      ...{ qemu: x509(), ours: { dir: friendly, hostname: 'elsewhere.example' } },
      says: /the destination's certificate is refused: Hostname mismatch \(expected 'elsewhere.example'\)/i,
    },
    {
      name: 'a client that is not on the list',
      ...{ qemu: x509({ authz: 'CN=nobody' }), ours: { dir: friendly } },
      says: /closed the main channel|gone|does not take us|refuses/,
    },
    {
      name: 'a client of another CA',
      ...{ qemu: x509(), ours: { dir: outsider } },
      says: /closed the main channel|gone|does not take us|refuses/,
    },
    {
      name: 'an anonymous client',
      ...{ qemu: x509(), ours: { dir: anonymous } },
      says: /closed the main channel|gone|does not take us|refuses/,
    },
  ]

  t.test('a destination of QEMU 10.0 and we refuse each other', async (t) => {
    if (!requireQemu(t, '10.0')) return
    const guest = await plainGuest(t)
    for (const { name, qemu: theirs, ours, says } of REFUSED_US) {
      const qemu = await start('10.0', theirs, 'server')
      t.teardown(() => qemu.close())
      await using source = guest.source({ parameters: { multifdChannels: CHANNELS, tls: ours } })
      const uri = await qemu.listen('tcp:127.0.0.1:0', { multifdChannels: CHANNELS, parameters: tlsParameters(theirs) })
      const failure = (await source.migrate(uri).catch((error: unknown) => error)) as MultifdError
      t.match(failure.message, says, name)
      t.match(failure.code, /^ERR_MULTIFD_(TLS|CLOSED)$/)
    }
  })
}

async function start(version: QemuVersion, tls: QemuTls, role: 'client' | 'server'): Promise<Qemu> {
  const qemu = await startQemu({ version, memoryMiB: MEMORY_MIB, ...(role === 'server' && { incoming: 'defer' }) })
  try {
    await addCredentials(qemu, tls, role)
  } catch (error) {
    await qemu.close()
    throw error
  }
  return qemu
}

/** A guest that came without TLS, to be sent on. */
async function plainGuest(t: Test): Promise<Guest> {
  const qemu = await startQemu({ version: '10.0', memoryMiB: MEMORY_MIB })
  const receiver = new GuestReceiver({ parameters: { multifdChannels: CHANNELS } })
  t.teardown(() => receiver.close())
  try {
    await qemu.migrate({ uri: await receiver.listen('tcp:127.0.0.1:0'), multifdChannels: CHANNELS })
    await receiver.completed
  } finally {
    await qemu.close()
  }
  return receiver.guest
}
