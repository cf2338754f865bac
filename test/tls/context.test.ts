// Credentials: what is taken, and what is refused before anything is connected.

import { execFileSync } from 'node:child_process'
import { copyFileSync, cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { completeParameters } from '../../src/migration/parameters.js'
import { checkZeroCopy } from '../../src/migration/zero-copy.js'
import { TlsContext } from '../../src/tls/context.js'
import { Authority, pskDirectory, requireOpenssl, trusting } from '../support/tls/credentials.js'

const dir = '/etc/pki/qemu'

t.test('options that are none, or do not go together', (t) => {
  const bad: [tls: unknown, message: RegExp][] = [
    [true, /parameter 'tls' is true/],
    [{}, /parameter 'tls.dir'/],
    [{ dir: 'a\0b' }, /parameter 'tls.dir'/],
    [{ dir, kind: 'anon' }, /parameter 'tls.kind' is "anon": it must be one of x509, psk/],
    [{ dir, endpoint: 'client' }, /there is no parameter 'tls.endpoint'/],
    [{ dir, verifyPeer: 1 }, /parameter 'tls.verifyPeer'/],
    [{ dir, authz: 'CN=a' }, /parameter 'tls.authz'/],
    [{ dir, minVersion: 'TLSv1.1' }, /parameter 'tls.minVersion'/],
    [{ dir, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.2' }, /minVersion is above/],
    [{ dir, kind: 'psk', authz: ['CN=a'] }, /psk has none/],
    [{ dir, verifyPeer: false, authz: ['CN=a'] }, /leave tls.verifyPeer on/],
  ]
  for (const [tls, message] of bad) {
    t.throws(() => completeParameters({ tls: tls as never }), { code: 'ERR_MULTIFD_ARGUMENT', message })
  }
  t.equal(completeParameters({ tls: undefined }).tls, undefined)
  const tls = { dir, authz: [] }
  t.strictSame(completeParameters({ tls }).tls, tls)
  t.throws(() => checkZeroCopy(completeParameters({ tls, zeroCopySend: true })), {
    code: 'ERR_MULTIFD_ARGUMENT',
    message: /TLS is on/,
  })
  t.end()
})

t.test('keys', (t) => {
  const folder = pskDirectory(t.testdir(), 'qemu', 'other:one')
  const open = (username?: string): void => {
    new TlsContext({ dir: folder, kind: 'psk', ...(username && { username }) }, 'client').close()
  }
  open()
  open('other:one')
  t.throws(() => open('nobody'), { code: 'ERR_MULTIFD_TLS', message: /has no key of 'nobody'/ })
  for (const [text, message] of [
    ['qemu:00112', /line 1: it must be username:hexkey/],
    ['qemu:00\nsecret', /line 2: it must be username:hexkey/],
    ['\n', /has no key$/],
  ] as const) {
    writeFileSync(join(folder, 'keys.psk'), text)
    t.throws(open, { code: 'ERR_MULTIFD_TLS', message })
  }
  rmSync(join(folder, 'keys.psk'))
  t.throws(open, { code: 'ERR_MULTIFD_FILE', message: /keys.psk: ENOENT/ })
  t.end()
})

t.test('certificates', async (t) => {
  if (!requireOpenssl(t)) return
  const folder = t.testdir()
  const authority = new Authority(join(folder, 'ca'))
  const good = trusting(join(folder, 'good'), authority)
  authority.sign(good, 'server')
  authority.sign(good, 'client')
  const open = (dir: string, role: 'client' | 'server' = 'server'): void =>
    new TlsContext({ dir }, role, 'host').close()
  open(good)
  open(good, 'client')
  open(trusting(join(folder, 'anonymous'), authority), 'client')
  t.throws(() => new TlsContext({ dir: good }, 'client'), { code: 'ERR_MULTIFD_ARGUMENT', message: /names no host/ })
  const variant = (change: (dir: string) => void): string => {
    const dir = join(folder, 'variant')
    rmSync(dir, { recursive: true, force: true })
    cpSync(good, dir, { recursive: true })
    change(dir)
    return dir
  }
  const bad: [string, (dir: string) => void, { code: string; message: RegExp }][] = [
    ['no CA', (dir) => rmSync(join(dir, 'ca-cert.pem')), { code: 'ERR_MULTIFD_FILE', message: /ca-cert.pem: ENOENT/ }],
    ['no key', (dir) => rmSync(join(dir, 'server-key.pem')), { code: 'ERR_MULTIFD_FILE', message: /server-key.pem/ }],
    [
      'a file that is no certificate',
      (dir) => writeFileSync(join(dir, 'server-cert.pem'), 'none'),
      { code: 'ERR_MULTIFD_TLS', message: /server-cert.pem can not be used/ },
    ],
    [
      "another's key",
      (dir) => copyFileSync(join(dir, 'client-key.pem'), join(dir, 'server-key.pem')),
      { code: 'ERR_MULTIFD_TLS', message: /server-key.pem (is not the key of|can not be used)/ },
    ],
    [
      "another CA's certificate",
      (dir) => new Authority(join(folder, 'stranger'), 'Stranger').sign(dir, 'server'),
      { code: 'ERR_MULTIFD_TLS', message: /server-cert.pem is not valid by .*ca-cert.pem/ },
    ],
    [
      'one that is over',
      (dir) => authority.sign(dir, 'server', { days: -1 }),
      { code: 'ERR_MULTIFD_TLS', message: /server-cert.pem is not valid by .*ca-cert.pem/ },
    ],
    [
      'a key with a password: the terminal is not asked',
      (dir) => {
        const key = join(dir, 'server-key.pem')
        execFileSync('openssl', [
          'pkcs8',
          '-topk8',
          '-in',
          join(good, 'server-key.pem'),
          '-passout',
          'pass:x',
          '-out',
          key,
        ])
      },
      { code: 'ERR_MULTIFD_TLS', message: /server-key.pem can not be used/ },
    ],
    [
      'a list of the revoked that is none',
      (dir) => writeFileSync(join(dir, 'ca-crl.pem'), 'none'),
      { code: 'ERR_MULTIFD_TLS', message: /ca-crl.pem can not be used/ },
    ],
    [
      'parameters that are none',
      (dir) => writeFileSync(join(dir, 'dh-params.pem'), 'none'),
      { code: 'ERR_MULTIFD_TLS', message: /dh-params.pem can not be used/ },
    ],
  ]
  for (const [name, change, error] of bad) {
    const dir = variant(change)
    t.throws(() => open(dir), error, name)
  }
})
