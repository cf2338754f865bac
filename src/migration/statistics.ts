// A migration's figures, as query-migrate has them, in camelCase.

import { type MethodName, methodName } from '../method/methods.js'
import { COUNTER } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import type { MigrationStatus } from './status.js'

/** RAM figures. Bytes, pages, and bytes or pages a second. */
export interface RamStatistics {
  /** Bytes on all connections. */
  transferred: number
  /** Bytes of the pages left that were dirty at the last look. */
  remaining: number
  /** Bytes of all blocks. */
  total: number
  /** Zero pages. */
  duplicate: number
  /** Pages sent with data. */
  normal: number
  normalBytes: number
  dirtyPagesRate: number
  /** Megabits a second since the set-up. */
  mbps: number
  /** Passes begun. */
  dirtySyncCount: number
  /** Bytes on the multifd channels. */
  multifdBytes: number
  pagesPerSecond: number
  pageSize: number
  /** Bytes until the program stood still, and since then. */
  precopyBytes: number
  downtimeBytes: number
  /** Bytes since the destination has the program: none, where it gets it last. */
  postcopyBytes: number
  /** With `zeroCopySend`: sends without copying that the kernel copied after all. */
  dirtySyncMissedZeroCopy: number
}

/** Figures of XBZRLE. On a destination `pages` and `bytes` are those that came, and the others are 0. */
export interface XbzrleCacheStatistics extends XbzrleRates {
  /** Bytes that the cache may take. */
  cacheSize: number
  /** Bytes of the records, without word and block id. */
  bytes: number
  /** Records: pages of which only the change was sent. */
  pages: number
  /** Pages that were sent again, and whole because the cache did not have them. */
  cacheMiss: number
  /** Pages that went whole because their change was too large. */
  overflow: number
}

/** Of the last pass. */
export interface XbzrleRates {
  /** Pages that the cache did not have, of all that were not zero: 0 to 1. */
  cacheMissRate: number
  /** Bytes of the pages that the cache had, to the bytes that they took; 0 when they took none. */
  encodingRate: number
}

export interface MigrationStatistics {
  status: MigrationStatus
  /** ms, until now or until the end. */
  totalTime: number
  setupTime?: number
  downtime?: number
  expectedDowntime?: number
  /** Source, once a pass was made: false while what is left grows, or stays what it was, and does not fit the downtime. */
  converging?: boolean
  /** Source: percent of its time that the program was asked to lose, once it was. */
  cpuThrottlePercentage?: number
  /** What the channels do with pages, as far as they have come. */
  multifdCompression: MethodName | 'adaptive'
  /** Source, adaptive: packets by what they got. */
  multifdPicks?: { none: number; low: number; high: number }
  ram: RamStatistics
  /** Where XBZRLE is on, and on a destination where it came. */
  xbzrleCache?: XbzrleCacheStatistics
  /** Why it failed. */
  errorDesc?: string
}

/** What only a coordinator knows; times in ms. */
export interface Figures {
  downtime: number
  expectedDowntime: number
  converging: boolean
  cpuThrottlePercentage: number
  xbzrleRates: XbzrleRates
  /** Source: on all connections, until the program stood still. */
  precopyBytes: number
}

/** What is known when a pass ends. */
export interface PassInfo {
  /** From 1. */
  pass: number
  /** Pages sent in it, zero pages included. */
  pages: number
  /** Bytes put on all connections in it. */
  bytes: number
  durationMs: number
  /** Bytes a second, on the wire. */
  bandwidth: number
  /** Pages that became dirty meanwhile and are still to be sent. */
  remainingPages: number
  /** Pages made dirty per second. */
  dirtyPagesRate: number
  /** What is left to send, in ms at the measured bandwidth. */
  expectedDowntime: number
  /** Whether less is left than the pass had to send, or what is left fits the downtime. */
  converging: boolean
}

export interface StatisticsInput {
  shm: MigrationShm
  status: MigrationStatus
  totalTime: number
  setupTime: number | undefined
  totalBytes: number
  pageSize: number
  figures: Partial<Figures>
  /** Undefined without XBZRLE. */
  xbzrleCacheSize: number | undefined
  errorDesc: string | undefined
}

/** Pages that have gone, whichever way. */
export function movedPages(shm: MigrationShm): number {
  const xbzrlePages = shm.counter(shm.coordinatorPlace, COUNTER.xbzrlePages)
  return shm.sum(COUNTER.normalPages, true) + shm.sum(COUNTER.zeroPages, true) + xbzrlePages
}

/** The figures at this instant, read from the shared counters. */
export function readStatistics(input: StatisticsInput): MigrationStatistics {
  const { shm, status, totalTime, setupTime, totalBytes, pageSize, figures, xbzrleCacheSize, errorDesc } = input
  const { xbzrleRates = { cacheMissRate: 0, encodingRate: 0 }, precopyBytes, ...times } = figures
  const own = (counter: number): number => shm.counter(shm.coordinatorPlace, counter)
  const transferred = shm.sum(COUNTER.bytes, true)
  const normal = shm.sum(COUNTER.normalPages, true)
  const duplicate = shm.sum(COUNTER.zeroPages, true)
  const xbzrlePages = own(COUNTER.xbzrlePages)
  // Of the same instant as the others: they go on meanwhile.
  const movedSinceLook = normal + duplicate + xbzrlePages - own(COUNTER.movedAtLook)
  const picks = {
    none: shm.sum(COUNTER.picksNone, false),
    low: shm.sum(COUNTER.picksLow, false),
    high: shm.sum(COUNTER.picksHigh, false),
  }
  const activeMs = Math.max(1, totalTime - (setupTime ?? 0))
  return {
    status,
    totalTime,
    ...(setupTime === undefined ? {} : { setupTime }),
    ...times,
    multifdCompression: shm.adaptive ? 'adaptive' : methodName(shm.methods),
    ...(picks.none + picks.low + picks.high > 0 && { multifdPicks: picks }),
    ram: {
      transferred,
      remaining: Math.max(0, own(COUNTER.remaining) - movedSinceLook * pageSize),
      total: totalBytes,
      duplicate,
      normal,
      normalBytes: normal * pageSize,
      dirtyPagesRate: own(COUNTER.dirtyPagesRate),
      mbps: (transferred * 8) / 1000 / activeMs,
      dirtySyncCount: own(COUNTER.passes),
      multifdBytes: shm.sum(COUNTER.bytes, false),
      pagesPerSecond: Math.round(((normal + duplicate + xbzrlePages) * 1000) / activeMs),
      pageSize,
      precopyBytes: precopyBytes ?? transferred,
      downtimeBytes: transferred - (precopyBytes ?? transferred),
      postcopyBytes: 0,
      dirtySyncMissedZeroCopy: shm.sum(COUNTER.zeroCopyMissed, false),
    },
    ...((xbzrleCacheSize !== undefined || xbzrlePages > 0) && {
      xbzrleCache: {
        cacheSize: xbzrleCacheSize ?? 0,
        bytes: own(COUNTER.xbzrleBytes),
        pages: xbzrlePages,
        cacheMiss: own(COUNTER.xbzrleCacheMiss),
        overflow: own(COUNTER.xbzrleOverflow),
        ...xbzrleRates,
      },
    }),
    ...(errorDesc !== undefined && { errorDesc }),
  }
}
