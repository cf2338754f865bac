// Options of TLS on the command line, and credentials that QMP's parameters name.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { collectObject, tlsParameter } from '../../src/cli/tls.js'
import { readSnapshot } from '../../src/snapshot/file.js'
import { QmpLine } from '../qmp/dialogue.js'
import { temporaryFolder } from '../qmp/program.js'
import { blockHashes } from '../snapshot/content.js'
import { pskDirectory } from '../support/tls/credentials.js'
import { recordedSnapshot, run, start } from './cli.js'

const LISTENING = /^listening on (\S+)$/m
const folder = temporaryFolder(t)
const keys = pskDirectory(join(folder, 'keys'), 'qemu', 'me')
const others = pskDirectory(join(folder, 'others'), 'qemu')
const { path: original } = recordedSnapshot(folder)
const byKeys = (dir: string): string[] => ['--tls-creds', dir, '--tls-psk']

t.test('a snapshot is sent and received over TLS; one with another key is refused in one line', async (t) => {
  const output = join(folder, 'received.snapshot')
  const receive = start('receive', 'tcp:127.0.0.1:0', '-o', output, ...byKeys(keys), '--tls-min-version', '1.3')
  const uri = await receive.says(LISTENING)
  const refused = await run('send', original, uri, ...byKeys(others))
  t.equal(refused.code, 1)
  t.match(
    refused.stderr,
    /(^|\n)multifd: main channel: the destination does not take us: [^\n]* \(ERR_MULTIFD_TLS\)\n$/,
  )
  const send = await run('send', original, uri, ...byKeys(keys), '--tls-username', 'me')
  t.equal(send.code, 0, send.stderr)
  const { code, stderr } = await receive.ended
  t.equal(code, 0, stderr)
  t.match(stderr, /a connection was refused: /)
  t.strictSame(
    blockHashes(readSnapshot(output)),
    blockHashes(readSnapshot(original)),
    'the file is read by its mapping',
  )
})

t.test('wrong usage', async (t) => {
  const send = ['send', original, 'tcp:127.0.0.1:1']
  const serve = ['serve', '--qmp', `unix:${join(folder, 'qmp')}`, '--ram', 'heap=1M', '--object']
  const wrong: [string[], number, RegExp][] = [
    [[...send, ...byKeys(keys), '--zero-copy'], 2, /TLS is on/],
    [[...send, ...byKeys(keys), '--tls-username', 'nobody'], 1, /has no key of 'nobody' \(ERR_MULTIFD_TLS\)/],
    [
      ['receive', 'tcp:127.0.0.1:0', '-o', 'x', '--tls-creds', folder],
      1,
      /ca-cert.pem: ENOENT, no such file or directory \(ERR_MULTIFD_FILE\)/,
    ],
    [[...serve, `tls-creds-x509,id=t,dir=${folder}`], 1, /ca-cert.pem: ENOENT, .* \(ERR_MULTIFD_FILE\)/],
  ]
  await Promise.all(
    wrong.map(async ([args, status, says]) => {
      const { code, stderr } = await run(...args)
      t.equal(code, status, args.join(' '))
      t.match(stderr, says)
    }),
  )
})

t.test('options make the parameter', (t) => {
  t.strictSame(tlsParameter({}), {})
  const source = { tlsCreds: 'x', tlsHostname: 'host', tlsMinVersion: '1.3' } as const
  t.strictSame(tlsParameter(source), { tls: { dir: 'x', hostname: 'host', minVersion: 'TLSv1.3' } })
  const destination = { tlsCreds: 'x', tlsAuthz: ['CN=a', 'CN=b'] }
  t.strictSame(tlsParameter(destination), { tls: { dir: 'x', authz: ['CN=a', 'CN=b'] } })
  t.strictSame(tlsParameter({ tlsCreds: 'x', tlsAnonymous: true }), { tls: { dir: 'x', verifyPeer: false } })
  t.throws(() => tlsParameter({ tlsHostname: 'x' }), { code: 'ERR_MULTIFD_ARGUMENT', message: /without --tls-creds/ })
  t.end()
})

t.test('objects, as QEMU has them on its command line', (t) => {
  let objects = collectObject('tls-creds-x509,id=tls0,dir=/etc/pki/qemu,endpoint=server,verify-peer=off')
  objects = collectObject('tls-creds-psk,id=tls1,dir=keys,username=me', objects)
  objects = collectObject('authz-simple,id=auth0,identity=C=GB,,O=Example Org,,CN=host', objects)
  t.strictSame(objects, {
    credentials: {
      tls0: { dir: '/etc/pki/qemu', kind: 'x509', verifyPeer: false },
      tls1: { dir: 'keys', kind: 'psk', username: 'me' },
    },
    authz: { auth0: ['C=GB,O=Example Org,CN=host'] },
  })
  for (const [text, message] of [
    ['tls-creds-anon,id=a,dir=x', /one of tls-creds-x509, tls-creds-psk, authz-simple/],
    ['tls-creds-psk,dir=x', /an object needs an id/],
    ['tls-creds-x509,id=a', /parameter 'tls.dir'/],
    ['tls-creds-x509,id=a,dir=x,priority=NORMAL', /no property 'priority'/],
    ['tls-creds-x509,id=a,dir=x,verify-peer=maybe', /on or off/],
    ['authz-simple,id=a', /needs an identity/],
  ] as const) {
    t.throws(() => collectObject(text), { message })
  }
  t.end()
})

t.test('QMP names credentials that serve was given', async (t) => {
  const serve = async (name: string, ...args: string[]) => {
    const path = join(folder, name)
    const process = start('serve', '--qmp', `unix:${path}`, ...args, '--object', `tls-creds-psk,id=tls0,dir=${keys}`)
    await process.says(/QMP on (\S+)/)
    const line = await QmpLine.connect(path)
    await line.next()
    await line.command('qmp_capabilities')
    return { process, line }
  }
  const copy = join(folder, 'copy.snapshot')
  const sending = await serve('one', '--snapshot', original)
  const receiving = await serve('two', '--snapshot', copy, '--incoming')
  const uri = `unix:${join(folder, 'migrate')}`
  for (const { line } of [receiving, sending]) {
    await line.command('migrate-set-parameters', { 'tls-creds': 'tls0' })
    t.match(await line.command('query-migrate-parameters'), { 'tls-creds': 'tls0', 'tls-authz': '' })
  }
  await receiving.line.command('migrate-incoming', { uri })
  const { line } = sending
  await line.command('migrate-set-parameters', { 'tls-creds': 'nobody' })
  t.match(await line.ask({ execute: 'migrate', arguments: { uri } }), {
    error: { class: 'GenericError', desc: "No TLS credentials with id 'nobody'" },
  })
  await line.command('migrate-set-parameters', { 'tls-creds': 'tls0' })
  await line.command('migrate', { uri })
  for (const { line } of [sending, receiving]) {
    for (;;) {
      const { status } = await line.command<{ status: string }>('query-migrate')
      if (status === 'completed') break
      if (status === 'failed') throw new Error('it failed')
      await sleep(5)
    }
  }
  t.strictSame(blockHashes(readSnapshot(copy)), blockHashes(readSnapshot(original)))
  for (const { line, process } of [sending, receiving]) {
    await line.command('quit')
    t.equal((await process.ended).code, 0)
  }
})
