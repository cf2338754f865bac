// The shared memory of one migration: which word is where, and which thread writes it.
//
// One shared WebAssembly.Memory, made by the embedding thread, seen by the coordinator (C) and the channel threads (H):
//
//   control   CONTROL_WORDS int32
//   channels  n × CHANNEL_WORDS int32
//   counters  (n + 1) × COUNTER_WORDS float64   the coordinator's are the last
//   limits    LIMIT_WORDS float64                what may be changed while it runs
//   descriptors  DESCRIPTORS_MAX int32           what C has open
//   jobs      n × RING_DEPTH int32            the slot or command at each place of a channel's ring
//   slots     (n × RING_DEPTH + 1) × slotWords uint32
//   packets   n × PACKET.size bytes              each its channel's own
//   dirty     dirtyWords uint32                  C's own: a bit for every page that is to be sent
//   batch     a list of runs                     C's own

import { packetHeaderSize } from '../wire/multifd-packet.js'
import { DESCRIPTORS_MAX } from './open-descriptors.js'
import { runWords } from './page-runs.js'

/** Bytes of a struct iovec. */
export const IOVEC_SIZE = 16

/** Words of the control area. */
export const CONTROL = {
  /** 1 once every thread is to stop. Anyone writes it, once. */
  stop: 0,
  /** Place of the thread whose error came first, plus 1; 0 while there is none; -1 once all is well for good. */
  failed: 1,
  /** Semaphore: something happened that the coordinator waits for. H and the embedding thread post. */
  coordinator: 2,
  /** Semaphore of the embedding thread's answers (the program is stopped). */
  answers: 3,
  /** Destination: number of barriers that the channels may pass. C writes. */
  released: 4,
  /** Destination: 1 once the main stream is at its end, and what channels still carry belongs to nothing. C writes. */
  ending: 5,
  /** Number of the next packet. H adds. */
  packetNum: 6,
  /** Threads that have not loaded their code yet. The embedding thread adds them; each takes itself off. */
  loading: 7,
  /** 1 once both sides know that each packet may have its own method. C writes, before the first pages. */
  adaptive: 8,
  /** Destination: 1 once its devices agree to the switchover. The embedding thread writes. */
  approved: 9,
  /** SYNC packets of all channels, sent or reached. H adds. */
  syncsReached: 10,
  /** How many of them C waits for: H need not wake it before. C writes. */
  syncsExpected: 11,
} as const
export const CONTROL_WORDS = 12

/** Words of one channel's area. */
export const CHANNEL = {
  /** Semaphore: jobs in the ring, or a hand-over. C posts. */
  wake: 0,
  /** Jobs ever put into the ring. C writes. */
  head: 1,
  /** Jobs ever finished. H writes. */
  tail: 2,
  /** SYNC packets sent, or on the destination reached. H writes. */
  syncs: 3,
  /** One of {@link CHANNEL_STATE}. The embedding thread writes that it starts, H the rest. */
  state: 4,
  /** OS thread id while the thread lives, 0 before and after. The thread itself writes. */
  tid: 5,
} as const
export const CHANNEL_WORDS = 6

export const CHANNEL_STATE = { absent: 0, starting: 1, running: 2, ended: 3 } as const

/** Counters of one thread, each written by that thread only. */
export const COUNTER = {
  /** Bytes sent or received on the thread's connection. */
  bytes: 0,
  packets: 1,
  normalPages: 2,
  zeroPages: 3,
  /** Coordinator only: its OS thread id. */
  tid: 4,
  /** Coordinator only: passes begun ("dirty-sync-count"). */
  passes: 5,
  /** Coordinator only: bytes left to send, as of the last look. */
  remaining: 6,
  /** Coordinator only: pages made dirty per second in the last pass. */
  dirtyPagesRate: 7,
  /** Coordinator only: XBZRLE records, and their bytes without word and block id. */
  xbzrlePages: 8,
  xbzrleBytes: 9,
  /** Source's coordinator only: pages that were not in the cache, and pages that were and whose change was too large. */
  xbzrleCacheMiss: 10,
  xbzrleOverflow: 11,
  /** Source's channels only: zero-copy sends that the kernel copied after all. */
  zeroCopyMissed: 12,
  /** Channels only: flags of the compression methods in use. */
  methods: 13,
  /** Channels only: packets by what the adaptive method picked. */
  picksNone: 14,
  picksLow: 15,
  picksHigh: 16,
  /** Coordinator only: pages that had gone when it looked what is left to send. */
  movedAtLook: 17,
} as const
export const COUNTER_WORDS = 18

/** What the embedding thread may change while the migration runs, and C reads. */
export const LIMIT = {
  /** Bytes a second, 0 for no limit. */
  maxBandwidth: 0,
  /** ms. */
  downtimeLimit: 1,
} as const
export const LIMIT_WORDS = 2

/** Jobs that a channel's ring holds. Enough that a busy channel seldom sleeps, few enough that a pass ends soon. */
export const RING_DEPTH = 8
/** Jobs left in a ring at which its channel tells the coordinator, which then refills it at once: a wake-up costs. */
export const RING_LOW = 4

/** Packets that a sending channel hands to the kernel in one call, and that a batch has pages for at most. */
export const PACKETS_AT_ONCE = 4

/** Words of a slot: RAM block's index, and its pages as page-runs.ts has them. */
export const SLOT = { block: 0, runs: 2 } as const

/** Most pages of a packet: with the smallest target pages, of 1 KiB. */
export const PACKET_PAGES_MAX = 512

const packetHeader = packetHeaderSize(PACKET_PAGES_MAX)
const packetRuns = Math.ceil((4 * runWords(PACKET_PAGES_MAX)) / 16) * 16
const packetLists = PACKETS_AT_ONCE * packetHeader
const packetStaged = packetLists + 3 * packetRuns
const packetName = packetStaged + 16
/** A channel's packets, bytes: headers, lists of runs, what is expected, and a scatter-gather list. */
export const PACKET = {
  header: 0,
  headerSize: packetHeader,
  normal: packetLists,
  zero: packetLists + packetRuns,
  part: packetLists + 2 * packetRuns,
  staged: packetStaged,
  name: packetName,
  expected: packetName + 256,
  vector: packetName + 320,
  size: packetName + 320 + IOVEC_SIZE * (PACKET_PAGES_MAX + 2 * PACKETS_AT_ONCE),
} as const

/** What a place of a ring holds besides slot numbers, which are 0 and up. */
export const JOB = { sync: -1, quit: -2 } as const

export interface ShmShape {
  /** Multifd channels, 0 for the single-channel stream. */
  channels: number
  pagesPerPacket: number
  /** Source: words of the bitmaps of pages to be sent. */
  dirtyWords: number
}

/** Byte offsets of the areas, and the total. */
export function shmOffsets({ channels, pagesPerPacket, dirtyWords }: ShmShape) {
  const slotWords = SLOT.runs + runWords(PACKETS_AT_ONCE * pagesPerPacket)
  const slotCount = channels * RING_DEPTH + 1
  const control = 0
  const channelAreas = control + 4 * CONTROL_WORDS
  const counters = Math.ceil((channelAreas + 4 * channels * CHANNEL_WORDS) / 64) * 64
  const limits = counters + 8 * (channels + 1) * COUNTER_WORDS
  const descriptors = limits + 8 * LIMIT_WORDS
  const jobs = descriptors + 4 * DESCRIPTORS_MAX
  const slots = jobs + 4 * channels * RING_DEPTH
  const packets = Math.ceil((slots + 4 * slotCount * slotWords) / 64) * 64
  const dirty = packets + channels * PACKET.size
  const batch = dirty + 4 * dirtyWords
  return {
    control,
    channelAreas,
    counters,
    limits,
    descriptors,
    jobs,
    slots,
    packets,
    slotWords,
    slotCount,
    dirty,
    batch,
    total: batch + 4 * runWords(pagesPerPacket),
  }
}
