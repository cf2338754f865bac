// A migration's figures, as query-migrate has them, in camelCase.

import { type MethodName, methodName } from '../method/methods.js'
import { COUNTER } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import type { MigrationStatus } from './status.js'

/** RAM figures. Bytes, pages, and bytes or pages a second. */
export interface RamStatistics {
  /** Bytes on all connections. */
  transferred: number
  /** Bytes of dirty pages left, as of the last look. */
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
}

export interface MigrationStatistics {
  status: MigrationStatus
  /** ms, until now or until the end. */
  totalTime: number
  setupTime?: number
  downtime?: number
  expectedDowntime?: number
  /** What the channels do with pages, as far as they have come. */
  multifdCompression: MethodName | 'adaptive'
  /** Source, adaptive: packets by what they got. */
  multifdPicks?: { none: number; low: number; high: number }
  ram: RamStatistics
}

/** Times that a coordinator knows, ms. */
export interface Figures {
  downtime: number
  expectedDowntime: number
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
}

export interface StatisticsInput {
  shm: MigrationShm
  status: MigrationStatus
  totalTime: number
  setupTime: number | undefined
  totalBytes: number
  pageSize: number
  figures: Partial<Figures>
}

/** The figures at this instant, read from the shared counters. */
export function readStatistics(input: StatisticsInput): MigrationStatistics {
  const { shm, status, totalTime, setupTime, totalBytes, pageSize, figures } = input
  const own = (counter: number): number => shm.counter(shm.coordinatorPlace, counter)
  const transferred = shm.sum(COUNTER.bytes, true)
  const normal = shm.sum(COUNTER.normalPages, true)
  const duplicate = shm.sum(COUNTER.zeroPages, true)
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
    ...figures,
    multifdCompression: shm.adaptive ? 'adaptive' : methodName(shm.methods),
    ...(picks.none + picks.low + picks.high > 0 && { multifdPicks: picks }),
    ram: {
      transferred,
      remaining: own(COUNTER.remaining),
      total: totalBytes,
      duplicate,
      normal,
      normalBytes: normal * pageSize,
      dirtyPagesRate: own(COUNTER.dirtyPagesRate),
      mbps: (transferred * 8) / 1000 / activeMs,
      dirtySyncCount: own(COUNTER.passes),
      multifdBytes: shm.sum(COUNTER.bytes, false),
      pagesPerSecond: Math.round(((normal + duplicate) * 1000) / activeMs),
      pageSize,
    },
  }
}
