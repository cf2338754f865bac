// Targets: the destination's own loops over a descriptor, writing into memory by address between guards.

import { ok } from 'node:assert'
import { type ErrorCode, MultifdError } from '../../src/errors.js'
import { MULTIFD_FLAG } from '../../src/wire/multifd-packet.js'
import { Arena, type BlockShape, PAGE } from '../input/arena.js'
import { FileFeed } from '../input/feed.js'
import { ArenaTarget, type Ending, PEER_CODES, receiveChannel, receiveMain } from '../input/runs.js'
import { splitChannel } from '../input/streams.js'
import { listCaptures, loadCapture } from '../support/captures.js'
import {
  packet,
  pageOf,
  pageRecord,
  ramSection,
  ramStart,
  streamEnd,
  streamHead,
  syncPacket,
  zeroRecord,
} from '../support/peers/stream.js'
import type { Target } from './target.js'

const BLOCKS: readonly BlockShape[] = [
  { idstr: 'pc.ram', size: 256 * PAGE },
  { idstr: 'pc.bios', size: 4 * PAGE },
]
const CODES = [...PEER_CODES].filter((code) => code !== 'end') as ErrorCode[]

interface Ground {
  arena: Arena
  feed: FileFeed
}

let made: Ground | undefined
function ground(): Ground {
  made ??= { arena: new Arena(BLOCKS), feed: new FileFeed() }
  return made
}

/** Removes the file that inputs were read from. */
export function leaveGround(): void {
  made?.feed.close()
  made = undefined
}

/** Receives an input and looks at the guards; what it ended in is thrown. */
function received(input: Uint8Array, receive: (fd: number, arena: Arena) => Ending): void {
  const { arena, feed } = ground()
  feed.put(input)
  const { error, defect, code } = receive(feed.open(), arena)
  ok(arena.nearIntact, 'wrote outside of its blocks')
  if (defect !== undefined) throw defect
  // A damaged command may ask for an answer, and a file takes none.
  if (code === 'ERR_MULTIFD_IO' && error?.errnoName === 'EBADF') return
  if (error) throw MultifdError.fromPlain(error)
}

/** A channel's packets, from its initial one on. */
const channel: Target = {
  name: 'channel',
  maxSize: 32 * 1024,
  codes: CODES,
  seeds: () => [
    Buffer.concat([
      syncPacket(),
      packet({ idstr: 'pc.ram', pages: [[PAGE, pageOf(7)]], zeros: [0, 2 * PAGE] }),
      packet({ idstr: 'pc.bios', zeros: [3 * PAGE] }),
      syncPacket(1),
    ]),
    ...compressedSeeds(),
  ],
  run: (input) => received(input, (fd, arena) => receiveChannel(fd, arena.load())),
}

/** The first SYNC and a small compressed packet of the recorded channels. */
function compressedSeeds(): Uint8Array[] {
  return listCaptures()
    .filter((name) => /z(lib|std)/.test(name))
    .flatMap((name) => loadCapture(name).channels.map((bytes) => splitChannel(name, bytes)))
    .flatMap(({ bytes, packets }) => {
      const sync = packets.find((span) => span.sync)
      const data = packets.find((span) => span.method !== 0 && span.end - span.at < 16 * 1024)
      if (!sync || !data) return []
      return [Buffer.concat([bytes.subarray(sync.at, sync.end), bytes.subarray(data.at, data.end)])]
    })
}

/** A compressed packet's payload alone; the first byte says the method, the second how many pages it claims. */
const payload: Target = {
  name: 'payload',
  maxSize: 16 * 1024,
  codes: CODES,
  seeds: () =>
    compressedSeeds().map((bytes) => {
      const { packets } = splitChannel('', Buffer.concat([Buffer.alloc(64), bytes]))
      const { at, end, method, pages } = packets.at(-1)!
      return Uint8Array.from([
        method === MULTIFD_FLAG.zlib ? 0 : 1,
        pages - 1,
        ...bytes.subarray(end - at > 1344 ? at + 1344 : at, end),
      ])
    }),
  run(input) {
    const bytes = input.subarray(2)
    const pages = Array.from({ length: 1 + ((input[1] ?? 0) & 127) }, (_, i) => i * PAGE)
    const head = packet({
      idstr: 'pc.ram',
      flags: (input[0] ?? 0) & 1 ? MULTIFD_FLAG.zstd : MULTIFD_FLAG.zlib,
      spoil(view) {
        view.setUint32(16, pages.length)
        view.setUint32(20, bytes.length)
        for (const [i, offset] of pages.entries()) view.setBigUint64(320 + 8 * i, BigInt(offset))
      },
    })
    received(Buffer.concat([syncPacket(), head, bytes, syncPacket(1)]), (fd, arena) => receiveChannel(fd, arena.load()))
  },
}

/** The first byte says how many channels there are, and whether device state is kept or loaded. */
const main: Target = {
  name: 'main',
  maxSize: 32 * 1024,
  codes: [...CODES, 'ERR_MULTIFD_IO'],
  seeds() {
    const list = BLOCKS.map(({ idstr, size }) => ({ idstr, size }))
    const records = [pageRecord('pc.ram', 0, pageOf(1)), zeroRecord('pc.bios', PAGE)]
    return (['per-round', 'per-section'] as const).map((dialect, i) =>
      Buffer.concat([
        Buffer.of(1 + i),
        streamHead(MACHINE),
        ramStart(list, dialect),
        ramSection('part', records, dialect),
        ramSection('end', [], dialect),
        streamEnd(),
      ]),
    )
  },
  run(input) {
    const mode = input[0] ?? 0
    const target = (blocks: Arena['blocks']) => () => new ArenaTarget(blocks, MACHINE, (mode & 4) === 0)
    received(input.subarray(1), (fd, { blocks }) => receiveMain(fd, target(blocks), mode & 3))
  },
}

const MACHINE = 'pc-i440fx-10.0'

export const receiverTargets = [channel, payload, main]
