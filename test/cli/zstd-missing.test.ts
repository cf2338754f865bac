// A system without libzstd: its file is hidden from the command, which says what to install before anything is sent.

import { spawnSync } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as zlib from 'node:zlib'
import t from 'tap'
import { recordedSnapshot } from './cli.js'

const cli = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const HIDE = 'mount --bind /dev/null "$0" && exec "$@"'

function libraryPath(): string | undefined {
  const { stdout = '' } = spawnSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' })
  const path = /libzstd\.so\.1 .*=> (\S+)/.exec(stdout)?.[1]
  return path && realpathSync(path)
}

function hidden(library: string, ...command: string[]): { status: number | null; stderr: string } {
  return spawnSync('unshare', ['-m', 'sh', '-c', HIDE, library, ...command], { encoding: 'utf8', timeout: 60_000 })
}

function missing(): string | undefined {
  if ('createZstdCompress' in zlib) return 'this Node has a zstd of its own'
  const library = libraryPath()
  if (!library) return 'there is no libzstd to hide'
  return hidden(library, 'true').status === 0 ? undefined : 'no library can be hidden here: that takes root'
}

t.test('send and receive say what zstd needs, by code', { skip: missing() ?? false }, async (t) => {
  const dir = t.testdir()
  const { path } = recordedSnapshot(dir)
  for (const args of [
    ['send', path, 'tcp:127.0.0.1:1', '--compression', 'zstd'],
    ['receive', 'tcp:127.0.0.1:0', '-o', join(dir, 'out'), '--compression', 'zstd'],
  ]) {
    const { status, stderr } = hidden(libraryPath()!, process.execPath, cli, ...args)
    t.equal(status, 1)
    const install = 'install libzstd \\(Debian and Ubuntu: libzstd1; Fedora: libzstd\\), or use Node 22.15 or later'
    t.match(
      stderr,
      new RegExp(`^multifd: compression zstd needs libzstd.so.1: ${install} \\(ERR_MULTIFD_UNSUPPORTED\\)\\n$`),
    )
  }
})
