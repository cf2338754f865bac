// query-migrate's shape, of QEMU 10.0: which members are there in which state.

import type { MigrationStatistics, RamStatistics, XbzrleCacheStatistics } from '../migration/statistics.js'

const RUNNING = new Set(['active', 'pre-switchover', 'device', 'cancelling'])

/** What a source tells. */
export function sourceInfo(statistics: MigrationStatistics, status: string, downtimeLimit: number): object {
  const { errorDesc } = statistics
  if (status === 'failed') return { status, ...(errorDesc !== undefined && { 'error-desc': errorDesc }) }
  if (status !== 'completed' && !RUNNING.has(status)) return { status }
  const { totalTime, setupTime, downtime, expectedDowntime, cpuThrottlePercentage, xbzrleCache } = statistics
  return {
    status,
    'total-time': Math.round(totalTime),
    ...(setupTime !== undefined && { 'setup-time': Math.round(setupTime) }),
    ...(status === 'completed'
      ? { downtime: Math.round(downtime ?? 0) }
      : { 'expected-downtime': Math.round(expectedDowntime ?? downtimeLimit) }),
    ram: ramInfo(statistics.ram, status),
    ...(xbzrleCache && { 'xbzrle-cache': xbzrleInfo(xbzrleCache) }),
    ...(cpuThrottlePercentage !== undefined &&
      status !== 'completed' && { 'cpu-throttle-percentage': cpuThrottlePercentage }),
  }
}

function ramInfo(ram: RamStatistics, status: string): object {
  const completed = status === 'completed'
  return {
    transferred: ram.transferred,
    remaining: completed ? 0 : ram.remaining,
    total: ram.total,
    duplicate: ram.duplicate,
    normal: ram.normal,
    'normal-bytes': ram.normalBytes,
    'dirty-pages-rate': completed ? 0 : Math.round(ram.dirtyPagesRate),
    mbps: ram.mbps,
    'dirty-sync-count': ram.dirtySyncCount,
    'postcopy-requests': 0,
    'page-size': ram.pageSize,
    'multifd-bytes': ram.multifdBytes,
    'pages-per-second': ram.pagesPerSecond,
    'precopy-bytes': ram.precopyBytes,
    'downtime-bytes': ram.downtimeBytes,
    'postcopy-bytes': ram.postcopyBytes,
    'dirty-sync-missed-zero-copy': ram.dirtySyncMissedZeroCopy,
  }
}

function xbzrleInfo(cache: XbzrleCacheStatistics): object {
  return {
    'cache-size': cache.cacheSize,
    bytes: cache.bytes,
    pages: cache.pages,
    'cache-miss': cache.cacheMiss,
    'cache-miss-rate': cache.cacheMissRate,
    'encoding-rate': cache.encodingRate,
    overflow: cache.overflow,
  }
}

/** What a destination tells. */
export function destinationInfo(status: string, errorDesc: string | undefined, address: object[] | undefined): object {
  return {
    status,
    ...(address && { 'socket-address': address }),
    ...(status === 'failed' && errorDesc !== undefined && { 'error-desc': errorDesc }),
  }
}
