// Prometheus metrics of migrations: read from their statistics when they are scraped, and at no other time.

import type { Registry } from 'prom-client'
import type { Migration } from '../migration/migration.js'
import type { MigrationStatistics } from '../migration/statistics.js'
import { MIGRATION_STATUSES } from '../migration/status.js'

/** What there is to look at, by the value of the label `migration`. */
export type ObservedMigrations = Readonly<Record<string, Migration>>

interface Sample {
  value: number
  labels?: Record<string, string>
}

interface Metric {
  /** Counters are of the migration that runs or ran last, unless their help says otherwise: the next one begins at 0. */
  type: 'gauge' | 'counter'
  help: string
  /** Besides `migration`. */
  labels?: string[]
  /** Nothing where it is not known, or not there. */
  read(statistics: MigrationStatistics, migration: Migration): Sample[]
}

const one = (value: number | undefined): Sample[] => (value === undefined ? [] : [{ value }])
const seconds = (ms: number | undefined): Sample[] => one(ms === undefined ? undefined : ms / 1000)
const by = (label: string, values: Record<string, number>): Sample[] =>
  Object.entries(values).map(([name, value]) => ({ value, labels: { [label]: name } }))

/** By name. docs/metrics.md has them all, and a test compares. */
export const METRICS: Record<string, Metric> = {
  multifd_migrations_total: {
    type: 'counter',
    help: 'Migrations that have ended, since the program began',
    labels: ['outcome'],
    read: (_, { outcomes }) => by('outcome', { ...outcomes }),
  },
  multifd_migration_status: {
    type: 'gauge',
    help: '1 for the state of the migration, 0 for every other',
    labels: ['status'],
    read: (_, { status }) =>
      MIGRATION_STATUSES.map((name) => ({ value: Number(name === status), labels: { status: name } })),
  },
  multifd_threads: {
    type: 'gauge',
    help: 'Live threads of the migration',
    read: (_, migration) => one(migration.threads().length),
  },
  multifd_total_time_seconds: {
    type: 'gauge',
    help: 'From the beginning until now or the end',
    read: ({ totalTime }) => seconds(totalTime),
  },
  multifd_setup_time_seconds: {
    type: 'gauge',
    help: 'From the beginning until the first page',
    read: ({ setupTime }) => seconds(setupTime),
  },
  multifd_downtime_seconds: {
    type: 'gauge',
    help: 'How long the program stood still; source, once it is known',
    read: ({ downtime }) => seconds(downtime),
  },
  multifd_expected_downtime_seconds: {
    type: 'gauge',
    help: 'How long it would stand still now; source, once a pass was made',
    read: ({ expectedDowntime }) => seconds(expectedDowntime),
  },
  multifd_converging: {
    type: 'gauge',
    help: '0 while what is left does not become less; source, once a pass was made',
    read: ({ converging }) => one(converging === undefined ? undefined : Number(converging)),
  },
  multifd_cpu_throttle_ratio: {
    type: 'gauge',
    help: 'Share of its time that the program is asked to lose; source, once it was',
    read: ({ cpuThrottlePercentage: percent }) => one(percent === undefined ? undefined : percent / 100),
  },
  multifd_passes_total: {
    type: 'counter',
    help: 'Passes begun; source',
    read: ({ ram }) => one(ram.dirtySyncCount),
  },
  multifd_transferred_bytes_total: {
    type: 'counter',
    help: 'Bytes on all connections, until the program stood still, while it did, and after it went on elsewhere',
    labels: ['phase'],
    read: ({ ram }) =>
      by('phase', { precopy: ram.precopyBytes, downtime: ram.downtimeBytes, postcopy: ram.postcopyBytes }),
  },
  multifd_channel_bytes_total: {
    type: 'counter',
    help: 'Those of them that went over the multifd channels',
    read: ({ ram }) => one(ram.multifdBytes),
  },
  multifd_pages_total: {
    type: 'counter',
    help: 'Pages: with data, zero, and as changes (XBZRLE)',
    labels: ['kind'],
    read: ({ ram, xbzrleCache }) =>
      by('kind', { normal: ram.normal, zero: ram.duplicate, xbzrle: xbzrleCache?.pages ?? 0 }),
  },
  multifd_page_size_bytes: { type: 'gauge', help: 'Of one page', read: ({ ram }) => one(ram.pageSize) },
  multifd_ram_bytes: { type: 'gauge', help: 'Of all blocks', read: ({ ram }) => one(ram.total) },
  multifd_ram_remaining_bytes: {
    type: 'gauge',
    help: 'Left to send, as of the last look at the dirty logs; source',
    read: ({ ram }) => one(ram.remaining),
  },
  multifd_dirty_bytes_per_second: {
    type: 'gauge',
    help: 'How fast the program changed its memory in the last pass; source',
    read: ({ ram }) => one(ram.dirtyPagesRate * ram.pageSize),
  },
  multifd_zero_copy_missed_total: {
    type: 'counter',
    help: 'Sends without copying that the kernel copied after all; source',
    read: ({ ram }) => one(ram.dirtySyncMissedZeroCopy),
  },
  multifd_adaptive_packets_total: {
    type: 'counter',
    help: 'Packets by what the adaptive method picked; source',
    labels: ['level'],
    read: ({ multifdPicks }) => (multifdPicks ? by('level', { ...multifdPicks }) : []),
  },
  multifd_xbzrle_cache_bytes: {
    type: 'gauge',
    help: 'Bytes that the cache may take',
    read: ({ xbzrleCache }) => one(xbzrleCache?.cacheSize),
  },
  multifd_xbzrle_bytes_total: {
    type: 'counter',
    help: 'Bytes of the records that pages went as',
    read: ({ xbzrleCache }) => one(xbzrleCache?.bytes),
  },
  multifd_xbzrle_cache_misses_total: {
    type: 'counter',
    help: 'Pages that were sent again, and whole because the cache did not have them; source',
    read: ({ xbzrleCache }) => one(xbzrleCache?.cacheMiss),
  },
  multifd_xbzrle_overflows_total: {
    type: 'counter',
    help: 'Pages that went whole because their change was too large; source',
    read: ({ xbzrleCache }) => one(xbzrleCache?.overflow),
  },
}

/**
 * Registers the metrics of docs/metrics.md on a registry of the caller's, over one or several migrations: sources,
 * destinations, receivers. They are read when the registry is scraped. prom-client is loaded by this function, and not before.
 *
 * @param migrations by the value of the label `migration`; a function, asked each time, where they come and go
 * @throws Error of prom-client's when the registry has metrics of these names
 */
export async function registerMetrics(
  registry: Registry,
  migrations: ObservedMigrations | (() => ObservedMigrations),
): Promise<void> {
  const { Counter, Gauge } = await import('prom-client')
  const observed = (): [string, Migration][] =>
    Object.entries(typeof migrations === 'function' ? migrations() : migrations)
  const eachSample = (metric: Metric, take: (labels: Record<string, string>, value: number) => void): void => {
    for (const [name, migration] of observed()) {
      const statistics = migration.statistics()
      if (!statistics) continue
      for (const { value, labels } of metric.read(statistics, migration)) take({ migration: name, ...labels }, value)
    }
  }
  for (const [name, metric] of Object.entries(METRICS)) {
    const options = {
      name,
      help: metric.help,
      labelNames: ['migration', ...(metric.labels ?? [])],
      registers: [registry],
    }
    if (metric.type === 'gauge') {
      const gauge = new Gauge({
        ...options,
        collect() {
          gauge.reset()
          eachSample(metric, (labels, value) => gauge.set(labels, value))
        },
      })
    } else {
      const counter = new Counter({
        ...options,
        collect() {
          counter.reset()
          eachSample(metric, (labels, value) => counter.inc(labels, value))
        },
      })
    }
  }
}
