// How much memory can be had: the machine's, or what a control group of the process leaves of it.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { hugePageRoom, memoryRoom } from '../../src/os/memory-room.js'

const GIB = 2 ** 30
const meminfo = 'MemTotal:        8388608 kB\nMemFree:          100000 kB\nMemAvailable:    4194304 kB\n'

/** Figures in files of their own. */
function sources(t: Test, files: Record<string, string>) {
  const root = mkdtempSync(join(tmpdir(), 'multifd-room-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return { proc: join(root, 'proc'), cgroups: join(root, 'cgroup'), hugePages: join(root, 'huge') }
}

const cases: [string, Record<string, string>, number, RegExp][] = [
  ['a machine without limits', { 'proc/meminfo': meminfo }, 4 * GIB, /MemAvailable/],
  ['nothing that says anything', {}, Number.POSITIVE_INFINITY, /MemAvailable/],
  [
    'a group that is not limited',
    {
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/app\n',
      'cgroup/app/memory.max': 'max\n',
      'cgroup/app/memory.current': '5\n',
    },
    4 * GIB,
    /MemAvailable/,
  ],
  [
    'a group that is, whose old page cache counts as free',
    {
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/app/worker\n',
      'cgroup/app/worker/memory.max': `${2 * GIB}\n`,
      'cgroup/app/worker/memory.current': `${GIB}\n`,
      'cgroup/app/worker/memory.stat': `anon 17\ninactive_file ${GIB / 4}\n`,
    },
    1.25 * GIB,
    /memory\.max of control group \/app\/worker/,
  ],
  [
    'a group above it that leaves less',
    {
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/app/worker\n',
      'cgroup/app/worker/memory.max': `${2 * GIB}\n`,
      'cgroup/app/worker/memory.current': '0\n',
      'cgroup/app/memory.max': `${GIB}\n`,
      'cgroup/app/memory.current': `${GIB + 5}\n`,
    },
    0,
    /control group \/app$/,
  ],
  [
    'a container that sees its own group as the root',
    {
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '0::/hidden/from/here\n',
      'cgroup/memory.max': `${GIB}\n`,
      'cgroup/memory.current': '0\n',
    },
    GIB,
    /control group \/$/,
  ],
  [
    'the first version of control groups',
    {
      'proc/meminfo': meminfo,
      'proc/self/cgroup': '5:cpu,cpuacct:/x\n4:memory:/app\n0::/\n',
      'cgroup/memory/app/memory.limit_in_bytes': `${3 * GIB}\n`,
      'cgroup/memory/app/memory.usage_in_bytes': `${GIB}\n`,
      'cgroup/memory/app/memory.stat': 'inactive_file 9\ntotal_inactive_file 4096\n',
    },
    2 * GIB + 4096,
    /memory\.limit_in_bytes of control group \/app/,
  ],
]
for (const [name, files, available, limit] of cases) {
  t.test(name, (t) => {
    const room = memoryRoom(sources(t, files))
    t.equal(room.available, available)
    t.match(room.limit, limit)
    t.end()
  })
}

t.test('this machine says something', (t) => {
  const { available } = memoryRoom()
  t.ok(available > 2 ** 20 && available < 2 ** 50, `${available} bytes`)
  t.end()
})

t.test('huge pages: what is free, less what is promised', (t) => {
  const figures = { 'huge/hugepages-2048kB/free_hugepages': '10\n', 'huge/hugepages-2048kB/resv_hugepages': '3\n' }
  const from = sources(t, figures)
  t.match(hugePageRoom(2 ** 21, from), { available: 7 * 2 ** 21, limit: 'free huge pages of 2048 KiB' })
  t.equal(hugePageRoom(2 ** 30, from).available, 0, 'none of a size that there is none of')
  t.end()
})
