// Wrong usage: exit status 2, one clear line, and under --json one object.

import { join } from 'node:path'
import t from 'tap'
import { recordedSnapshot, result, run } from './cli.js'

const wrong: { name: string; args: string[]; says: RegExp }[] = [
  { name: 'an unknown command', args: ['recieve'], says: /unknown command 'recieve'.*/ },
  {
    name: 'an unknown option',
    args: ['receive', 'tcp::0', '-o', 'x', '--chanels', '4'],
    says: /unknown option '--chanels'/,
  },
  { name: 'no URI', args: ['receive', '-o', 'x'], says: /missing required argument 'uri'/ },
  { name: 'no output', args: ['receive', 'tcp::0'], says: /required option '-o, --output <file>' not specified/ },
  { name: 'no destination', args: ['send', 'x'], says: /missing required argument 'uri'/ },
  { name: 'too many arguments', args: ['inspect', 'x', 'y'], says: /too many arguments/ },
  { name: 'no channels', args: ['send', 'x', 'tcp::1', '-c', '0'], says: /whole number from 1 to 255/ },
  { name: 'too many channels', args: ['send', 'x', 'tcp::1', '-c', '256'], says: /whole number from 1 to 255/ },
  { name: 'half a channel', args: ['send', 'x', 'tcp::1', '-c', '1.5'], says: /whole number from 1 to 255/ },
  { name: 'a bandwidth without sense', args: ['send', 'x', 'tcp::1', '--max-bandwidth', 'fast'], says: /such as 500M/ },
  { name: 'a negative timeout', args: ['send', 'x', 'tcp::1', '--stall-timeout=-1'], says: /seconds from 0 to 86400/ },
  {
    name: 'no time to connect',
    args: ['send', 'x', 'tcp::1', '--connect-timeout', '0'],
    says: /seconds from 0.001 to/,
  },
  { name: 'an unknown choice', args: ['send', 'x', 'tcp::1', '--zero-page-detection', 'all'], says: /Allowed choices/ },
  {
    name: 'a URI of no scheme',
    args: ['receive', 'localhost:4444', '-o', 'x'],
    says: /'localhost:4444' is not a migration URI/,
  },
  { name: 'a URI without a port', args: ['receive', 'tcp:localhost', '-o', 'x'], says: /must be tcp:HOST:PORT/ },
  { name: 'a bad uuid', args: ['receive', 'tcp::0', '-o', 'x', '--uuid', '1234'], says: /1234/ },
  { name: 'fd: with multifd', args: ['receive', 'fd:0', '-o', 'x'], says: /fd: is one connection: switch multifd off/ },
  {
    name: 'file: with multifd',
    args: ['receive', 'file:x', '-o', 'x'],
    says: /file: is one connection: switch multifd off/,
  },
  {
    name: 'a bad offset in a file',
    args: ['receive', 'file:x,offset=0x20M', '-o', 'x', '--no-multifd'],
    says: /must be file:PATH\[,offset=N\], with N in bytes/,
  },
  {
    name: 'XBZRLE with multifd',
    args: ['send', 'x', 'tcp::1', '--xbzrle'],
    says: /multifd is not compatible with xbzrle/,
  },
  {
    name: 'a cache that is no power of two',
    args: ['send', 'x', 'tcp::1', '--no-multifd', '--xbzrle', '--xbzrle-cache-size', '5000'],
    says: /'xbzrleCacheSize' is 5000: it must be a power of two/,
  },
  ...['receive', 'send'].map((command) => ({
    name: `channels of one connection, ${command},`,
    args: [command, ...(command === 'send' ? ['x', 'tcp::1'] : ['tcp::0', '-o', 'x']), '--no-multifd', '-c', '2'],
    says: /--channels is of no use with --no-multifd/,
  })),
  {
    name: 'a cache for nothing',
    args: ['send', 'x', 'tcp::1', '--no-multifd', '--xbzrle-cache-size', '1M'],
    says: /--xbzrle-cache-size is of no use without --xbzrle/,
  },
  ...['none', 'auto'].map((method) => ({
    name: `a level for compression ${method}`,
    args: ['send', 'x', 'tcp::1', '--compression', method, '--compression-level', '3'],
    says: new RegExp(`compression ${method} has no level: it is zlib's and zstd's`),
  })),
  {
    name: 'a level that zlib has not got',
    args: ['send', 'x', 'tcp::1', '--compression', 'zlib', '--compression-level', '10'],
    says: /'multifdZlibLevel' is 10/,
  },
  {
    name: 'an output of no name',
    args: ['receive', 'tcp::0', '-o', ''],
    says: /option '-o, --output <file>' is empty/,
  },
  { name: 'a file of no name', args: ['send', '', 'tcp::1'], says: /argument 'file' is empty/ },
  { name: 'QMP nowhere', args: ['demo', '--qmp', ''], says: /option '--qmp <uri>' is empty/ },
  {
    name: 'no name in a list',
    args: ['receive', 'tcp::0', '-o', 'x', '--tls-authz', 'a', '--tls-authz', ''],
    says: /is empty/,
  },
  { name: 'too large a demo', args: ['demo', '--size', '5G'], says: /from 1M to 4G/ },
  { name: 'too small a demo', args: ['demo', '--size', '1000'], says: /from 1M to 4G/ },
]

t.jobs = 4
t.setTimeout(300_000)

for (const { name, args, says } of wrong) {
  t.test(`${name} is wrong usage`, async (t) => {
    const dir = t.testdir()
    const inDir = args.map((arg) => (arg === 'x' ? join(dir, 'x') : arg))
    const plain = await run(...inDir)
    t.equal(plain.code, 2)
    t.equal(plain.stdout, '')
    t.match(plain.stderr, says)
    t.match(plain.stderr, /^multifd: [^\n]+\n$/, 'one line')
    const json = await run(...inDir, '--json')
    t.equal(json.code, 2, 'the same with --json')
    const { status, error } = result(json)
    t.equal(status, 'failed')
    t.equal(error?.code, 'ERR_MULTIFD_ARGUMENT')
    t.match(error?.message, says)
    t.match(json.stderr, /^multifd: [^\n]+\n$/)
  })
}

for (const scheme of ['exec', 'vsock', 'rdma']) {
  t.test(`${scheme}: URIs are refused by name`, async (t) => {
    const dir = t.testdir()
    const { path } = recordedSnapshot(dir)
    for (const args of [
      ['receive', `${scheme}:something`, '-o', join(dir, 'x')],
      ['send', path, `${scheme}:something`],
    ]) {
      const { code, stderr } = await run(...args)
      t.equal(code, 1)
      t.equal(
        stderr,
        `multifd: '${scheme}:' URIs are not supported yet; use tcp:, unix:, fd: or file: (ERR_MULTIFD_UNSUPPORTED)\n`,
      )
    }
  })
}

t.test('help is help, and no failure', async (t) => {
  const commands = ['receive', 'send', 'serve', 'inspect', 'top', 'dirty-rate', 'demo']
  const all = [['--help'], ['send', '-h'], ['help', 'inspect'], ...commands.map((command) => [command, '--help'])]
  const ends = await Promise.all(all.map((args) => run(...args)))
  for (const [at, { code, stdout, stderr }] of ends.entries()) {
    const [command] = all[at]!
    if (command === '--help') for (const name of commands) t.match(stdout, new RegExp(`^ {2}${name} `, 'm'))
    else t.match(stdout, /^Examples:\n {2}multifd /m, `${command}: there are examples`)
    t.equal(code, 0)
    t.match(stdout, /^Usage: multifd/)
    t.notMatch(stdout, /default: (false|\d{4,})/, 'defaults are readable')
    t.equal(stderr, '')
  }
  const { code, stdout } = await run('--version')
  t.equal(code, 0)
  t.match(stdout, /^\d+\.\d+\.\d+\n$/)
})

t.test('help of an unknown command is wrong usage', async (t) => {
  t.match(await run('help', 'send2'), { code: 2, stdout: '', stderr: "multifd: unknown command 'send2'\n" })
})

t.test('without a command the help goes to standard error', async (t) => {
  const { code, stdout, stderr } = await run()
  t.equal(code, 2)
  t.equal(stdout, '')
  t.match(stderr, /Commands:/)
})
