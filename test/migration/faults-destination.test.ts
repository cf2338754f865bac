// A destination whose source goes wrong at every stage: it fails soon, by name, and leaves nothing behind.

import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { MigrationDestination, type MigrationParameters, MigrationSource } from '../../src/index.js'
import type { Receiver } from '../../src/migration/destination.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import { COMMAND } from '../../src/wire/command.js'
import { MULTIFD_FLAG } from '../../src/wire/multifd-packet.js'
import {
  allocate,
  command,
  type Expected,
  eosWord,
  fillMixed,
  flushWord,
  HandSource,
  type HandSourceOptions,
  HEADER_SIZE,
  initialPacket,
  leavesNothing,
  openDescriptors,
  PAGE,
  packet,
  pageOf,
  pageRecord,
  ramIntroduction,
  ramList,
  ramSection,
  ramSectionWithoutMark,
  ramStart,
  rejection,
  streamEnd,
  streamHead,
  syncPacket,
  tells,
  Wire,
  worksAgain,
  zeroRecord,
} from '../support/peers/index.js'

const shape = { idstr: 'heap', size: 256 * PAGE }
const uuid = '00112233-4455-6677-8899-aabbccddeeff'
const otherUuid = 'ffeeddcc-bbaa-9988-7766-554433221100'

interface Case extends Expected {
  title: string
  parameters?: Partial<MigrationParameters>
  /** Of the source made by hand. */
  source?: Partial<HandSourceOptions>
  /** The destination's own. */
  uuid?: string
  /** Both, unless only one kind of destination looks at it. */
  only?: 'program' | 'snapshot'
  /** What the source does. */
  play(source: HandSource): Promise<void> | void
}

const halfPacket = (): Buffer => {
  const pages = Array.from({ length: 64 }, (_, page) => [page * PAGE, pageOf(1)] as const)
  return packet({ idstr: 'heap', pages }).subarray(0, HEADER_SIZE + 10 * PAGE + 100)
}

const onePage = [[0, pageOf(1)]] as const

/** A packet with a header that is not right, after a good beginning. */
function badPacket(title: string, expected: Expected, make: () => Buffer): Case {
  return {
    title,
    channel: 1,
    parameters: { multifdCompression: 'none' },
    ...expected,
    async play(source) {
      await source.begin()
      source.channels[1]!.send(make())
    },
  }
}

const establishment: Case[] = [
  {
    title: 'the main channel closes before it said anything',
    code: 'ERR_MULTIFD_CLOSED',
    says: /closed before it said what it is/,
    play: (source) => source.main.close(),
  },
  {
    title: 'a channel closes before its initial packet',
    code: 'ERR_MULTIFD_CLOSED',
    says: /closed before it said what it is/,
    async play(source) {
      await source.openChannels([0])
      ;(await source.openChannel()).close()
    },
  },
  {
    title: 'a channel closes inside its initial packet',
    code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_TIMEOUT'],
    says: /said nothing|closed|ends|whole/,
    parameters: { helloTimeoutMs: 500 },
    async play(source) {
      await source.openChannels([0])
      const channel = await source.openChannel()
      channel.send(initialPacket(1).subarray(0, 20))
      channel.close()
    },
  },
  {
    title: 'a connection never speaks',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /said nothing for 400 ms/,
    parameters: { helloTimeoutMs: 400 },
    play() {},
  },
  {
    title: 'a connection speaks three bytes and no more',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /said nothing for 400 ms/,
    parameters: { helloTimeoutMs: 400 },
    play: (source) => source.main.send(streamHead('multifd').subarray(0, 3)),
  },
  {
    title: 'one of three channels does not come',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 1,
    says: /^channel 1 did not come within 400 ms/,
    parameters: { multifdChannels: 3, helloTimeoutMs: 400 },
    async play(source) {
      source.head()
      await source.openChannels([0, 2])
    },
  },
  {
    title: 'the source has fewer channels than were agreed on',
    code: 'ERR_MULTIFD_CHANNEL',
    says: /^channels 2, 3 did not come within 400 ms: .* 4 channels/,
    parameters: { multifdChannels: 4, helloTimeoutMs: 400 },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'the source has multifd switched off',
    code: 'ERR_MULTIFD_CHANNEL',
    says: /channels 0, 1 did not come within 400 ms: .* multifd on/,
    parameters: { helloTimeoutMs: 400 },
    play: (source) => source.head(),
  },
  {
    title: 'the source has multifd switched on, and this side has not',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 0,
    says: /multifd channel 0, and multifd is off/,
    parameters: { multifd: false },
    async play(source) {
      await source.openChannels([0])
    },
  },
  {
    title: 'the main channel does not come',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /main channel did not come within 400 ms/,
    parameters: { helloTimeoutMs: 400 },
    play: (source) => source.main.send(initialPacket(0)),
  },
  {
    title: 'a second main channel comes',
    code: 'ERR_MULTIFD_CHANNEL',
    says: /second main channel/,
    async play(source) {
      source.head()
      ;(await source.openChannel()).send(streamHead('multifd'))
    },
  },
  {
    title: 'a channel id is used twice',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 0,
    says: /channel id 0 is used twice/,
    async play(source) {
      await source.openChannels([0, 0])
    },
  },
  {
    title: 'a channel id is as large as the number of channels',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 2,
    says: /channel id 2 is out of range: this side has 2 channels/,
    async play(source) {
      await source.openChannels([0, 2])
    },
  },
  {
    title: 'a channel id is 255',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 255,
    says: /channel id 255 is out of range/,
    async play(source) {
      await source.openChannels([255])
    },
  },
  {
    title: 'one channel too many comes early',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 2,
    says: /channel id 2 is out of range/,
    async play(source) {
      await source.openChannels([0, 1, 2])
      source.head()
    },
  },
  {
    title: 'one channel too many comes in mid-migration',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 2,
    says: /channel id 2 is out of range/,
    async play(source) {
      await source.begin()
      await source.openChannels([2])
    },
  },
  {
    title: 'one channel too many comes while the channels are awaited at a barrier',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 2,
    says: /channel id 2 is out of range/,
    parameters: { stallTimeoutMs: 3000 },
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.main.send(ramSection('part', [], 'per-round'))
      source.sync([0])
      await source.openChannels([2])
    },
  },
  {
    title: 'a channel comes in the middle of a migration without multifd',
    code: 'ERR_MULTIFD_CHANNEL',
    channel: 0,
    says: /multifd channel 0, and multifd is off/,
    parameters: { multifd: false },
    async play(source) {
      source.head()
      source.setUp()
      await source.openChannels([0])
    },
  },
  {
    title: 'the uuid of a channel is another one',
    code: 'ERR_MULTIFD_MACHINE',
    channel: 0,
    says: /channel 0: uuid ffeeddcc.* is not the expected 00112233/,
    uuid,
    source: { uuid: otherUuid },
    async play(source) {
      await source.openChannels([0])
    },
  },
  {
    title: 'the uuid of the configuration is another one',
    code: 'ERR_MULTIFD_MACHINE',
    says: /uuid ffeeddcc.* is not the expected 00112233/,
    uuid,
    source: { uuid, subsections: { uuid: otherUuid } },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'something else speaks on the port',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /starts with 47 45 54 20: neither a main channel nor a multifd channel/,
    play: (source) => source.main.send(Buffer.from('GET / HTTP/1.1\r\n\r\n')),
  },
  {
    title: 'an initial packet has another version',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /version is 9, expected 1/,
    async play(source) {
      const bytes = initialPacket(0)
      bytes.writeUInt32BE(9, 4)
      ;(await source.openChannel()).send(bytes)
    },
  },
]

const beginning: Case[] = [
  {
    title: 'the stream has another version',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /version/,
    async play(source) {
      const head = streamHead('multifd')
      head.writeUInt32BE(4, 4)
      source.main.send(head)
      await source.openChannels()
    },
  },
  {
    title: 'the main channel closes inside the configuration',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 'main',
    says: /^main channel: the stream ends too early, at byte 15, /,
    async play(source) {
      source.main.send(streamHead('multifd').subarray(0, 15))
      await source.openChannels()
      source.main.close()
    },
  },
  {
    title: 'the main channel says no more after the configuration',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /nothing came on any channel for 300 ms/,
    parameters: { stallTimeoutMs: 300 },
    async play(source) {
      source.head()
      await source.openChannels()
    },
  },
  {
    title: 'the main channel is reset after the configuration',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 'main',
    says: /main channel: the peer is gone \(ECONNRESET\)|main channel: the peer closed it/,
    async play(source) {
      source.head()
      await source.openChannels()
      await delay(200)
      source.main.reset()
    },
  },
  {
    title: 'the main channel closes before the RAM',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 'main',
    says: /^main channel: the peer closed it before the end of RAM/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.close()
    },
  },
  {
    title: 'the machine type is another one',
    only: 'program',
    code: 'ERR_MULTIFD_MACHINE',
    says: /machine type 'pc-i440fx-7.2' is not the expected 'multifd'/,
    source: { machineType: 'pc-i440fx-7.2' },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'the page size is another one',
    only: 'program',
    code: 'ERR_MULTIFD_MACHINE',
    says: /page size 16384/,
    source: { subsections: { pageBits: 14 } },
    async play(source) {
      await source.openChannels()
      source.head()
      source.main.send(ramStart([shape], 'per-round'))
    },
  },
  {
    title: 'the source asks for a capability that this side has not',
    code: 'ERR_MULTIFD_UNSUPPORTED',
    says: /capability 'x-colo'/,
    source: { subsections: { capabilities: ['x-colo'] } },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'a PING comes without a return path',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /PING without a return path/,
    source: { returnPath: false },
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(command(COMMAND.ping, Buffer.of(0, 0, 0, 1)))
    },
  },
  {
    title: 'a command comes that this side does not know how to obey',
    code: 'ERR_MULTIFD_UNSUPPORTED',
    says: /command .* is not supported/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(command(COMMAND.enableColo))
    },
  },
  {
    title: 'a section of something else than RAM begins',
    code: 'ERR_MULTIFD_UNSUPPORTED',
    says: /section 'dirty-bitmap'/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(ramIntroduction('dirty-bitmap', 1))
    },
  },
  {
    title: 'the RAM section has another version',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /RAM section has instance 0, version 5/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(ramIntroduction('ram', 5))
    },
  },
  {
    title: 'the RAM set-up has no list',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /RAM set-up has no list/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(ramIntroduction(), eosWord())
    },
  },
  {
    title: 'the main channel closes inside the list of blocks',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 'main',
    says: /^main channel: the stream ends too early/,
    async play(source) {
      source.head()
      await source.openChannels()
      source.main.send(ramIntroduction(), ramList([shape]).subarray(0, 12))
      source.main.close()
    },
  },
  {
    title: 'a block is not known here',
    only: 'program',
    code: 'ERR_MULTIFD_BLOCK',
    says: /source has a block 'stack', this side has none/,
    source: { blocks: [shape, { idstr: 'stack', size: PAGE }] },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'a block is missing',
    only: 'program',
    code: 'ERR_MULTIFD_BLOCK',
    says: /block 'other'|no block 'heap'/,
    source: { blocks: [{ idstr: 'other', size: PAGE }] },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'a block has another size',
    only: 'program',
    code: 'ERR_MULTIFD_BLOCK',
    says: /block 'heap' has 4096 bytes at the source and 1048576 here/,
    source: { blocks: [{ idstr: 'heap', size: PAGE }] },
    async play(source) {
      await source.begin()
    },
  },
  {
    title: 'a block is listed with a length beyond the total',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /used length of RAM block 'heap' is/,
    async play(source) {
      source.head()
      await source.openChannels()
      const list = ramList([shape])
      list.writeUInt32BE(0xffff, list.length - 8)
      source.main.send(ramIntroduction(), list)
    },
  },
]

const packets: Case[] = [
  {
    title: 'a channel closes inside the first packet header',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 1,
    says: /^channel 1: the peer closed it inside a packet's header, 1244 bytes short/,
    async play(source) {
      await source.openChannels()
      source.head()
      source.channels[1]!.send(syncPacket().subarray(0, 100))
      source.channels[1]!.close()
    },
  },
  {
    title: 'a channel closes inside a later packet header',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 0,
    says: /^channel 0: the peer closed it inside a packet's header, 1343 bytes short/,
    async play(source) {
      await source.begin()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: onePage }), syncPacket().subarray(0, 1))
      source.channels[0]!.close()
    },
  },
  {
    title: 'a channel closes inside page data',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 1,
    says: /^channel 1: the peer closed it inside page data, \d+ bytes short/,
    async play(source) {
      await source.begin()
      source.channels[1]!.send(halfPacket())
      source.channels[1]!.close()
    },
  },
  {
    title: 'a channel is reset inside page data',
    code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED'],
    channel: 1,
    says: /^channel 1: the peer (is gone \(ECONNRESET\)|closed it inside page data)/,
    async play(source) {
      await source.begin()
      source.channels[1]!.send(halfPacket())
      await delay(200)
      source.channels[1]!.reset()
    },
  },
  {
    title: 'a channel stalls inside page data',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /(^channel 1: stalled, no byte moved|nothing came on any channel) for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    async play(source) {
      await source.begin()
      source.channels[1]!.send(halfPacket())
    },
  },
  {
    title: 'a channel stalls inside a packet header while another one goes on',
    code: 'ERR_MULTIFD_TIMEOUT',
    channel: 0,
    says: /^channel 0: stalled, no byte moved for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    async play(source) {
      await source.begin()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: onePage }), syncPacket().subarray(0, 7))
      const other = source.channels[1]!
      while (!other.over) {
        other.send(packet({ idstr: 'heap', pages: onePage }))
        await delay(50)
      }
    },
  },
  badPacket('a packet has another magic', { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: packet magic/ }, () =>
    packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(0, 0x55667788) }),
  ),
  badPacket('a packet has another version', { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: packet version/ }, () =>
    packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(4, 2) }),
  ),
  badPacket('a packet has unknown flags', { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: packet flags/ }, () =>
    packet({ idstr: 'heap', pages: onePage, flags: 0x8000 }),
  ),
  badPacket(
    'a packet has more pages than a packet can have',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: normal_pages is 4294967295/ },
    () => packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(16, 0xffffffff) }),
  ),
  badPacket(
    'a packet has more slots than a packet can have',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: pages_alloc is 129/ },
    () => packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(12, 129) }),
  ),
  badPacket(
    'a packet has a payload of another length than its pages',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: next_packet_size is 4095, expected 4096/ },
    () => packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(20, 4095) }),
  ),
  badPacket(
    'a packet is of another compression method',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: compression method zlib is not the agreed one, which is none/ },
    () => packet({ idstr: 'heap', pages: onePage, flags: MULTIFD_FLAG.zlib }),
  ),
  badPacket(
    'a packet is compressed by hardware that this side has not',
    { code: 'ERR_MULTIFD_UNSUPPORTED', says: /^channel 1: .* qatzip/ },
    () => packet({ idstr: 'heap', pages: onePage, flags: MULTIFD_FLAG.qatzip }),
  ),
  badPacket(
    'a packet carries device state',
    { code: 'ERR_MULTIFD_UNSUPPORTED', says: /^channel 1: .*device state/ },
    () => packet({ idstr: 'heap', flags: MULTIFD_FLAG.deviceState }),
  ),
  badPacket(
    'a packet is for an unknown block',
    { code: 'ERR_MULTIFD_BLOCK', says: /^channel 1: unknown RAM block 'heat'/ },
    () => packet({ idstr: 'heat', pages: onePage }),
  ),
  badPacket(
    'a page is beyond the end of its block',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: page offset 0x100000 is beyond block 'heap'/ },
    () => packet({ idstr: 'heap', pages: [[shape.size, pageOf(1)]] }),
  ),
  badPacket(
    'a zero page is far beyond the end of its block',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: page offset 0x10000000000000 is beyond block 'heap'/ },
    () => packet({ idstr: 'heap', zeros: [2 ** 52] }),
  ),
  badPacket('a page offset has more than 53 bits', { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: / }, () =>
    packet({ idstr: 'heap', pages: onePage, spoil: (header) => header.setUint32(320, 0xffffffff) }),
  ),
  badPacket(
    'a page offset is not a whole number of pages',
    { code: 'ERR_MULTIFD_PROTOCOL', says: /^channel 1: offset 0 .*, expected a multiple of 4096/ },
    () => packet({ idstr: 'heap', pages: [[1, pageOf(1)]] }),
  ),
]

const barriers: Case[] = [
  {
    title: 'pages come before the first SYNC',
    code: 'ERR_MULTIFD_BARRIER',
    channel: 0,
    says: /^channel 0: pages came before the first SYNC/,
    async play(source) {
      await source.openChannels()
      source.head()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: onePage }))
    },
  },
  {
    title: 'a channel closes before the first barrier',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 1,
    says: /^channel 1: the peer closed it before barrier 1/,
    async play(source) {
      await source.openChannels()
      source.channels[1]!.close()
      source.head()
      source.setUp()
    },
  },
  {
    title: 'a channel closes between two barriers',
    code: 'ERR_MULTIFD_CLOSED',
    channel: 0,
    says: /^channel 0: the peer closed it before barrier 2|ended with pages after its last SYNC/,
    async play(source) {
      await source.begin()
      source.channels[0]!.close()
      source.main.send(ramSection('part', [], 'per-round'))
      source.sync([1])
    },
  },
  {
    title: 'a channel closes after pages that no SYNC follows',
    code: 'ERR_MULTIFD_BARRIER',
    channel: 0,
    says: /^channel 0: ended with pages after its last SYNC/,
    async play(source) {
      await source.begin()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: onePage }))
      source.channels[0]!.close()
    },
  },
  {
    title: 'the main channel closes at a barrier',
    code: ['ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_TRUNCATED'],
    channel: 'main',
    says: /^main channel: /,
    async play(source) {
      await source.begin()
      source.barrier()
      source.main.close()
    },
  },
  ...(['per-round', 'per-section'] as const).map((dialect) => ({
    title: `a channel lacks a SYNC (${dialect} marks)`,
    code: 'ERR_MULTIFD_TIMEOUT' as const,
    says: /^channel 1: no SYNC for barrier 2, and nothing else came for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    source: { dialect },
    async play(source: HandSource) {
      await source.begin()
      source.everyPage(1)
      source.main.send(ramSection('part', [], dialect))
      source.sync([0])
    },
  })),
  {
    title: 'every channel lacks its SYNC',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /^channels 0, 1: no SYNC for barrier 2, and nothing else came for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    async play(source) {
      await source.begin()
      source.main.send(ramSection('part', [], 'per-round'))
    },
  },
  {
    title: 'the main channel lacks a mark',
    code: 'ERR_MULTIFD_BARRIER',
    says: /pages after the last barrier/,
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.main.send(ramSectionWithoutMark('part'))
      source.sync()
      source.everyPage(2)
      source.main.send(ramSectionWithoutMark('end'), streamEnd())
      source.sync()
    },
  },
  {
    title: 'the source marks its sections, and speaks like one that marks its rounds',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /no SYNC for barrier 3/,
    parameters: { stallTimeoutMs: 500 },
    source: { dialect: 'per-section' },
    async play(source) {
      await source.begin()
      source.everyPage(1)
      // A flush word before the end of the section, where that end is a mark already: one SYNC for two marks.
      source.main.send(ramSection('part', [flushWord()], 'per-section'))
      source.sync()
    },
  },
  {
    title: 'pages come after the last SYNC',
    code: 'ERR_MULTIFD_BARRIER',
    channel: 0,
    says: /^channel 0: (ended with pages after its last SYNC|pages after the last barrier)/,
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.finish()
      source.channels[0]!.send(packet({ idstr: 'heap', pages: onePage }))
      source.close()
    },
    source: { returnPath: false },
  },
]

const records: Case[] = [
  {
    title: 'a record is for an unknown block',
    code: 'ERR_MULTIFD_BLOCK',
    says: /unknown RAM block 'heat'/,
    async play(source) {
      await source.begin()
      source.main.send(ramSection('part', [zeroRecord('heat', 0)], 'per-round'))
    },
  },
  {
    title: 'a record is beyond the end of its block',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /page offset 0x100000 is beyond block 'heap'/,
    async play(source) {
      await source.begin()
      source.main.send(ramSection('part', [pageRecord('heap', shape.size, pageOf(1))], 'per-round'))
    },
  },
  {
    title: 'a zero record has another fill byte',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /fill byte is 7, expected 0/,
    async play(source) {
      await source.begin()
      source.main.send(ramSection('part', [zeroRecord('heap', 0, 7)], 'per-round'))
    },
  },
  {
    title: 'the main channel closes inside a page record',
    code: 'ERR_MULTIFD_TRUNCATED',
    channel: 'main',
    says: /^main channel: the stream ends too early/,
    parameters: { multifd: false },
    source: { channels: 0 },
    async play(source) {
      await source.begin()
      const section = ramSection('part', [pageRecord('heap', 0, pageOf(1))], 'per-round')
      source.main.send(section.subarray(0, 1000))
      source.main.close()
    },
  },
  {
    title: 'the main channel stalls inside a page record',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /nothing came on any channel for 300 ms/,
    parameters: { multifd: false, stallTimeoutMs: 300 },
    source: { channels: 0 },
    async play(source) {
      await source.begin()
      const section = ramSection('part', [pageRecord('heap', 0, pageOf(1))], 'per-round')
      source.main.send(section.subarray(0, 1000))
    },
  },
  {
    title: 'a record makes no sense',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /RAM record flags are 0x804/,
    parameters: { multifd: false },
    source: { channels: 0 },
    async play(source) {
      await source.begin()
      source.main.send(ramSection('part', [Buffer.of(0, 0, 0, 0, 0, 0, 8, 4)], 'per-round').subarray(0, 13))
    },
  },
  {
    title: 'a section goes on that never began',
    code: 'ERR_MULTIFD_PROTOCOL',
    says: /section 9 goes on without having begun/,
    async play(source) {
      await source.begin()
      source.main.send(Buffer.of(2, 0, 0, 0, 9))
    },
  },
]

const endings: Case[] = [
  {
    title: 'a page never comes',
    code: 'ERR_MULTIFD_BLOCK',
    says: /1 of 256 pages of block 'heap' never came, the first at 0x0: .* same number of channels/,
    async play(source) {
      await source.begin()
      const others = Array.from({ length: 255 }, (_, at) => (at + 1) * PAGE)
      source.channels[0]!.send(packet({ idstr: 'heap', zeros: others.slice(0, 128) }))
      source.channels[1]!.send(packet({ idstr: 'heap', zeros: others.slice(128) }))
      source.finish()
    },
  },
  {
    title: 'no page comes at all',
    code: 'ERR_MULTIFD_BLOCK',
    says: /256 of 256 pages of block 'heap' never came/,
    async play(source) {
      await source.begin()
      source.finish()
    },
  },
  {
    title: 'the main channel closes where device state should be',
    code: ['ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_CLOSED'],
    says: /main channel|ends|truncated|stream/,
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.barrier('end')
      source.main.close()
    },
  },
  {
    title: 'the main channel closes inside the description',
    code: ['ERR_MULTIFD_TRUNCATED', 'ERR_MULTIFD_PROTOCOL'],
    says: /ends|short|truncated|description/,
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.barrier('end')
      source.main.send(streamEnd().subarray(0, 20))
      source.main.close()
    },
  },
  {
    title: 'the main channel stalls inside the description',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /nothing came on any channel for 300 ms/,
    parameters: { stallTimeoutMs: 300 },
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.barrier('end')
      source.main.send(streamEnd().subarray(0, 20))
    },
  },
  {
    title: 'a device comes that this side has not',
    only: 'program',
    code: 'ERR_MULTIFD_DEVICE',
    says: /section 'timer' 0: this side has no such device/,
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.barrier('end')
      const section = ramIntroduction('timer', 1)
      section[0] = 4
      // Nor is it in the description.
      source.main.send(Buffer.concat([section, streamEnd()]))
    },
  },
  {
    title: 'a channel is not closed at the end, without a return path',
    code: 'ERR_MULTIFD_TIMEOUT',
    says: /main channel is at its end, and a multifd channel was not closed for 500 ms/,
    parameters: { stallTimeoutMs: 500 },
    source: { returnPath: false },
    async play(source) {
      await source.begin()
      source.everyPage(1)
      source.finish()
      source.channels[0]!.close()
      source.main.close()
    },
  },
]

const folder = mkdtempSync(join(tmpdir(), 'multifd-faults-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const [memory] = allocate([shape])
fillMixed(memory!)

// What the runtime opens once and keeps must be open before anything is counted.
t.before(() => worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!]))

// Both kinds of destination in turn: what differs between them is what they undo.
for (const [group, cases] of [establishment, beginning, packets, barriers, records, endings].entries()) {
  for (const [at, one] of cases.entries()) {
    const kind = one.only ?? ((group + at) % 2 === 0 ? 'program' : 'snapshot')
    t.test(`${kind}: ${one.title}`, (t) => run(t, one, kind))
    if (at % 8 === 7 || at === cases.length - 1) {
      t.test('after all these, a migration works', (t) => {
        return worksAgain(t, new MigrationSource({ ram: [memory!] }), [memory!])
      })
    }
  }
}

function makeReceiver(
  kind: 'program' | 'snapshot',
  options: { parameters: Partial<MigrationParameters>; uuid?: string },
) {
  const receiver: Receiver =
    kind === 'program'
      ? new MigrationDestination({ ram: allocate([shape]), ...options })
      : new SnapshotReceiver(join(folder, 'snapshot'), options)
  return receiver
}

async function run(t: import('tap').Test, one: Case, kind: 'program' | 'snapshot'): Promise<void> {
  const before = openDescriptors()
  const parameters = { stallTimeoutMs: 4000, ...one.parameters }
  const receiver = makeReceiver(kind, { parameters, ...(one.uuid === undefined ? {} : { uuid: one.uuid }) })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  const failed = rejection(receiver.completed)
  const source = await HandSource.connect(uri, { blocks: [shape], ...one.source })
  const played = Promise.resolve(one.play(source)).catch(() => {})
  const error = await failed
  tells(t, error, one)
  t.equal(receiver.status, 'failed')
  t.strictSame(receiver.threads(), [], 'it lists no thread')
  await Promise.all([source.main, ...source.channels].map((wire) => wire.ended()))
  await played
  source.destroy()
  t.strictSame(readdirSync(folder), [], 'no file is left')
  await t.rejects(Wire.to(uri), { code: 'ECONNREFUSED' }, 'it listens no more')
  await leavesNothing(t, before)
}
