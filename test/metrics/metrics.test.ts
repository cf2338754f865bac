// Metrics: what the endpoint serves is what the statistics say, what the page describes, and what the dashboard asks for.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Registry } from 'prom-client'
import t from 'tap'
import {
  MetricsServer,
  MigrationDestination,
  MigrationSource,
  type RamBlock,
  registerMetrics,
} from '../../src/index.js'
import { METRICS } from '../../src/metrics/metrics.js'
import { allocate, fillMixed } from '../support/peers/index.js'

const MIB = 2 ** 20

function file(path: string): string {
  return readFileSync(fileURLToPath(new URL(`../../../${path}`, import.meta.url)), 'utf8')
}

/** Values by name and labels, as they stand in the text. */
function valuesOf(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]))
}

const [block] = allocate([{ idstr: 'heap', size: 4 * MIB }]) as [RamBlock]
fillMixed(block)
const parameters = { multifd: false, xbzrle: true }
const source = new MigrationSource({ ram: [block], parameters })
const destination = new MigrationDestination({ ram: allocate([block]), parameters: { multifd: false } })
const server = await MetricsServer.listen({ host: '', port: 0 }, { source, destination })
t.teardown(() => Promise.all([server.close(), source.close(), destination.close()]))

async function scrape(): Promise<string> {
  const response = await fetch(server.url)
  t.match(response.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  return await response.text()
}

t.test('figures are those of the statistics', async (t) => {
  t.equal(valuesOf(await scrape()).size, 0, 'nothing before the first migration')
  await t.rejects(source.migrate('tcp:127.0.0.1:1'), { code: 'ERR_MULTIFD_CONNECT' })
  await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  const values = valuesOf(await scrape())
  const { ram, downtime, totalTime, setupTime } = source.statistics()!
  for (const [name, value] of [
    ['multifd_migrations_total{migration="source",outcome="completed"}', 1],
    ['multifd_migrations_total{migration="source",outcome="failed"}', 1],
    ['multifd_migrations_total{migration="destination",outcome="completed"}', 1],
    ['multifd_migration_status{migration="source",status="completed"}', 1],
    ['multifd_migration_status{migration="source",status="active"}', 0],
    ['multifd_downtime_seconds{migration="source"}', downtime! / 1000],
    ['multifd_downtime_seconds{migration="destination"}', undefined],
    ['multifd_total_time_seconds{migration="source"}', totalTime / 1000],
    ['multifd_setup_time_seconds{migration="source"}', setupTime! / 1000],
    ['multifd_pages_total{migration="source",kind="normal"}', ram.normal],
    ['multifd_pages_total{migration="destination",kind="zero"}', ram.duplicate],
    ['multifd_transferred_bytes_total{migration="source",phase="precopy"}', ram.precopyBytes],
    ['multifd_transferred_bytes_total{migration="source",phase="downtime"}', ram.downtimeBytes],
    ['multifd_ram_bytes{migration="source"}', 4 * MIB],
    ['multifd_ram_remaining_bytes{migration="source"}', 0],
    ['multifd_xbzrle_cache_bytes{migration="source"}', 64 * MIB],
    ['multifd_passes_total{migration="source"}', ram.dirtySyncCount],
  ] as const) {
    t.equal(values.get(name), value, name)
  }
  t.equal(valuesOf(await scrape()).size, values.size, 'a second look adds nothing')
})

t.test('the page describes each metric, and no other', (t) => {
  const rows = [...file('docs/metrics.md').matchAll(/^\| `(multifd_\w+)` \| (\w+) \| [^|]+ \| (.+) \|$/gm)]
  const described = rows.map(([, name, type, text]) => ({ name, type, text: text!.split('. `')[0] }))
  t.strictSame(
    described,
    Object.entries(METRICS).map(([name, { type, help }]) => ({ name, type, text: help })),
  )
  t.end()
})

t.test('the dashboard asks for nothing else, with labels that are there', async (t) => {
  const served = await scrape()
  const asked = file('examples/metrics/grafana-dashboard.json')
  const names = new Set(asked.match(/multifd_\w+/g))
  for (const name of names) t.ok(served.includes(`# TYPE ${name} `), name)
  const unseen = Object.keys(METRICS).filter((name) => !names.has(name))
  t.strictSame(unseen, [], 'and every metric is on it')
  const { panels } = JSON.parse(asked) as { panels: { targets: { expr: string; legendFormat: string }[] }[] }
  const own = new Set(['migration', ...Object.values(METRICS).flatMap(({ labels = [] }) => labels)])
  for (const { expr, legendFormat } of panels.flatMap(({ targets }) => targets)) {
    const labels = [...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list]) => list!.split(/, */))
    const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, name]) => name!)
    for (const label of [...labels, ...shown]) t.ok(own.has(label), `${label} in ${expr}`)
    for (const open of ['(', '{', '[']) {
      const close = { '(': ')', '{': '}', '[': ']' }[open]!
      t.equal(expr.split(open).length, expr.split(close).length, `'${open}' in ${expr}`)
    }
  }
})

t.test('on a registry of the program, over migrations that come and go', async (t) => {
  const registry = new Registry()
  const observed: Record<string, MigrationSource> = {}
  await registerMetrics(registry, () => observed)
  t.equal(valuesOf(await registry.metrics()).size, 0)
  observed['vm 1'] = source
  t.equal(valuesOf(await registry.metrics()).get('multifd_ram_bytes{migration="vm 1"}'), 4 * MIB)
  delete observed['vm 1']
  t.equal(valuesOf(await registry.metrics()).size, 0)
  await t.rejects(registerMetrics(registry, observed), /already been registered/)
})

t.test('what is no scrape, and where nothing can be served', async (t) => {
  t.equal((await fetch(new URL('/', server.url))).status, 404)
  t.equal((await fetch(server.url, { method: 'POST' })).status, 405)
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  for (const [at, message] of [
    [{ host: '127.0.0.1', port }, /127\.0\.0\.1:\d+: EADDRINUSE/],
    [{ host: 'no-such-host.invalid', port: 0 }, /no-such-host\.invalid:0: E/],
  ] as const) {
    await t.rejects(MetricsServer.listen(at, {}), { code: 'ERR_MULTIFD_LISTEN', message })
  }
  taken.close()
})
