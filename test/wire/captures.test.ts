import { createHash } from 'node:crypto'
import t from 'tap'
import { viewOf } from '../../src/wire/bytes.js'
import {
  COMMAND,
  decodeCommand,
  decodePing,
  decodePostcopyAdvise,
  decodePostcopyRamDiscard,
} from '../../src/wire/command.js'
import { hasPage } from '../../src/wire/mapped-ram.js'
import { INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { decodeReturnMessage, RETURN_MESSAGE, type ReturnMessage } from '../../src/wire/return-path.js'
import { SECTION } from '../../src/wire/stream.js'
import { locateStreamEnd, StreamEndFinder } from '../../src/wire/stream-end.js'
import { type Vmdesc, walkDeviceSections } from '../../src/wire/vmdesc.js'
import { type CaptureBlock, listCaptures, loadCapture, type PacketCounts } from '../support/captures.js'
import { throwsCode } from './helpers.js'
import { Replay, replayChannel } from './replay.js'

const NAMES = listCaptures()
const POSTCOPY = NAMES.filter((name) => name.includes('postcopy'))
const PRECOPY = NAMES.filter((name) => !name.includes('postcopy') && !name.includes('mapped-ram'))

/**
 * Counts that capture.json has wrong: of this channel's five packets it misses the last, empty one, at 155894 of its
 * 157238 bytes.
 */
const CORRECTED: Record<string, Partial<PacketCounts>> = { 'q7.2.22-multifd-zstd 0': { pk: 5, 'empty flags=0': 1 } }

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** The recorded hashes of those blocks whose pages are in the stream. */
function truth(blocks: readonly CaptureBlock[]): Record<string, string | null> {
  const known = blocks.filter(({ sha256, truth }) => sha256 !== null && truth?.includes('ignored') !== true)
  return Object.fromEntries(known.map((block) => [block.name, block.sha256]))
}

function hashes(ram: Map<string, Uint8Array>, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, sha256(ram.get(name) ?? new Uint8Array(0))]))
}

t.test('all recordings are there', async (t) => t.equal(NAMES.length, 32))

for (const name of PRECOPY) {
  t.test(`${name}: parses from its header to its last byte`, async (t) => {
    const capture = loadCapture(name)
    const { meta } = capture
    const replay = new Replay(capture)
    const { result } = replay
    t.equal(result.configuration.machineType, meta.machine_type)
    t.same(
      result.blocks.map(({ idstr, usedLength }) => [idstr, usedLength]),
      meta.ram_blocks.map((block) => [block.name, block.used_length]),
    )
    const tail = result.tail ?? new Uint8Array(0)
    const end = locateStreamEnd(tail)
    t.equal(end.end, tail.length)
    if (end.vmdesc === undefined) {
      t.equal(name, 'q10.0.2-no-vmdesc')
    } else {
      const sections = walkDeviceSections(tail, end.vmdesc)
      const last = sections.at(-1)!
      t.equal(last.offset + last.size + 5, end.eofAt, 'the walk lands on EOF')
      t.equal(end.vmdesc.devices.length, sections.length + result.early.length)
      t.equal(last.idstr, 'globalstate')
      if (meta.stream) t.equal(sections.length, meta.stream.device_full_sections)
    }
    if (meta.stream) {
      // capture.json lists no more than 400 sections.
      t.same(result.sections.slice(0, 400), meta.stream.sections)
      t.same(result.records, meta.stream.ram_records)
      t.same([result.tailAt, result.tailAt + end.eofAt], meta.stream.device_state_range)
      t.equal(end.end - end.eofAt - 6, meta.stream.vmdesc_bytes)
      t.same(
        result.early.map(({ addr, regionSize, blockSize, node, size }) => [addr, regionSize, blockSize, node, size]),
        meta.stream.early_sections.map((e) => [e.addr, e.region_size, e.block_size, e.node, e.size]),
      )
    }
    t.ok(replay.drained, 'as many barriers on main as on each channel')
    for (const channel of replay.channels) {
      t.equal(channel.uuid, meta.uuid)
      const recorded = meta.stream?.multifd_packets[channel.id]
      t.same(channel.counts, { ...recorded, ...CORRECTED[`${name} ${channel.id}`] }, `packets of channel ${channel.id}`)
    }
    t.same(
      replay.channels.map(({ id }) => id),
      replay.channels.map((_, i) => i),
    )
    if (replay.complete) {
      const expected = truth(meta.ram_blocks)
      t.same(hashes(result.ram, Object.keys(expected)), expected, 'RAM is what the source had')
    } else {
      t.equal(meta.parameters['multifd-compression'], 'zstd')
    }
  })
}

t.test('configuration subsections', async (t) => {
  for (const name of ['q7.2.22-config-subsections', 'q10.0.2-config-subsections']) {
    const { result } = new Replay(loadCapture(name))
    t.match(result.configuration, {
      capabilities: ['x-ignore-shared'],
      uuid: '12345678-9abc-def0-1122-334455667788',
    })
    t.ok(result.blocks.every(({ guestAddress }) => guestAddress !== undefined))
  }
})

t.test('a mapped-ram file: layout and pages', async (t) => {
  const capture = loadCapture('q10.0.2-mapped-ram')
  const file = capture.mappedRam!
  const { result } = new Replay(capture)
  t.same(result.configuration.capabilities, ['mapped-ram'])
  for (const { idstr, usedLength, mappedRam } of result.blocks) {
    const { bitmapOffset, bitmapSize, pagesOffset, pageSize } = mappedRam!
    t.equal(pagesOffset % 0x100000, 0)
    const bitmap = file.subarray(bitmapOffset, bitmapOffset + bitmapSize)
    for (let page = 0; page < usedLength / pageSize; page++) {
      if (!hasPage(bitmap, page)) continue
      const at = pagesOffset + page * pageSize
      result.ram.get(idstr)?.set(file.subarray(at, at + pageSize), page * pageSize)
    }
  }
  const expected = truth(capture.meta.ram_blocks)
  t.same(hashes(result.ram, Object.keys(expected)), expected)
  const sections = walkDeviceSections(result.tail!, result.end!.vmdesc!)
  t.equal(sections.length, 30)
})

/** The description of a guest of the same QEMU, for those streams that have none. */
function borrowedVmdesc(name: string, guest: 'precopy' | 'running-multifd-none'): Vmdesc {
  const version = name.slice(0, name.indexOf('-'))
  return new Replay(loadCapture(`${version}-${guest}`)).result.end!.vmdesc!
}

t.test('a stream without a description ends in EOF, and has the sections that another guest describes', async (t) => {
  const { result } = new Replay(loadCapture('q10.0.2-no-vmdesc'))
  const tail = result.tail!
  t.same(result.end, { eofAt: tail.length - 1, vmdescAt: undefined, end: tail.length, vmdesc: undefined })
  const sections = walkDeviceSections(tail, borrowedVmdesc('q10.0.2-no-vmdesc', 'precopy'))
  t.equal(sections.length, 30)
})

for (const name of POSTCOPY) {
  t.test(`${name}: parses, package and preempt channel included`, async (t) => {
    const capture = loadCapture(name)
    const replay = new Replay(capture)
    const { result } = replay
    const names = result.commands.map(({ command }) => command.name)
    t.same(names.slice(0, 3), ['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE'])
    t.same(names.slice(-3), ['PING', 'PACKAGED', 'PING'])
    const advise = result.commands.find(({ command }) => command.command === COMMAND.postcopyAdvise)!
    t.same(decodePostcopyAdvise(advise.command.payload), { pageSizes: 4096, targetPageSize: 4096 })
    const pings = result.commands.filter(({ command }) => command.command === COMMAND.ping)
    t.same(
      pings.map(({ command }) => decodePing(command.payload)),
      [1, 2, 4],
    )
    const discards = result.commands.filter(({ command }) => command.command === COMMAND.postcopyRamDiscard)
    t.ok(discards.length > 0)
    for (const { command } of discards) {
      const { idstr, ranges } = decodePostcopyRamDiscard(command.payload)
      const size = result.ram.get(idstr)?.length ?? 0
      t.ok(ranges.every(({ start, length }) => start % 4096 === 0 && start + length <= size))
    }
    checkPackage(t, name, result.packaged!)

    if (capture.preempt !== undefined) {
      const source = { reader: new MemoryReader(capture.preempt), block: undefined }
      replay.records(source)
      t.equal(source.reader.remaining, 0, 'the preempt channel is nothing but records')
    }
    const expected = truth(capture.meta.ram_blocks)
    t.same(hashes(result.ram, Object.keys(expected)), expected, 'RAM is what the source had')
  })
}

function checkPackage(t: import('tap').Test, name: string, packaged: Uint8Array): void {
  const reader = new MemoryReader(packaged)
  t.equal(decodeCommand(reader).command, COMMAND.postcopyListen)
  // PING 3 takes 9 bytes, RUN 5: what lies between is device state, which a description would have to tell apart.
  const state = reader.bytes(reader.remaining - 14)
  t.equal(state[0], SECTION.full)
  t.equal(decodePing(decodeCommand(reader).payload), 3)
  t.equal(decodeCommand(reader).command, COMMAND.postcopyRun)
  t.equal(reader.remaining, 0)
  const tail = new Uint8Array(state.length + 1)
  tail.set(state)
  const vmdesc = borrowedVmdesc(name, 'running-multifd-none')
  t.equal(walkDeviceSections(tail, vmdesc).length, vmdesc.devices.length)
}

t.test('return paths parse to their last byte', async (t) => {
  for (const name of NAMES) {
    const { returnPath, meta } = loadCapture(name)
    if (returnPath === undefined) continue
    const view = viewOf(returnPath)
    const messages: ReturnMessage[] = []
    for (let at = 0; at < returnPath.length; ) {
      const message = decodeReturnMessage(view, at, returnPath.length - at)
      if (message === undefined) {
        t.fail(`${name}: ends inside a message`)
        break
      }
      messages.push(message)
      at += 4 + message.length
    }
    const pongs = messages.flatMap((message) => (message.type === RETURN_MESSAGE.pong ? [message.value] : []))
    const postcopy = meta.capabilities.includes('postcopy-ram')
    t.same(pongs, postcopy ? [1, 2, 4, 3] : [1], name)
    t.match(messages.at(-1), { type: RETURN_MESSAGE.shut, error: 0 })
    const requests = messages.filter(
      ({ type }) => type === RETURN_MESSAGE.reqPages || type === RETURN_MESSAGE.reqPagesId,
    )
    t.equal(requests.length > 0, postcopy)
    if (postcopy) t.match(requests[0], { type: RETURN_MESSAGE.reqPagesId, idstr: 'pc.bios', lengthBytes: 4096 })
  }
})

t.test('the end of every stream is found while it comes, at its last byte and not before', async (t) => {
  for (const name of PRECOPY) {
    const { result } = new Replay(loadCapture(name))
    const tail = result.tail!
    if (result.end?.vmdesc === undefined) continue
    for (const chunk of [1, 13, 1448, 65536, tail.length]) {
      if (chunk === 1 && name !== 'q7.2.22-precopy') continue
      const finder = new StreamEndFinder()
      let found = -1
      for (let at = 0; at < tail.length; at += chunk) {
        const end = finder.push(tail.subarray(at, at + chunk))
        if (end === undefined) continue
        if (found !== -1 || end.end !== tail.length) t.fail(`${name}: false end at ${end.end}`)
        found = end.eofAt
      }
      t.equal(found, result.end.eofAt, `${name} in pieces of ${chunk}`)
    }
  }
})

t.test(
  'a channel that is cut off at any byte of its first packets is truncated, or ends between packets',
  async (t) => {
    const bytes = loadCapture('q7.2.22-multifd-none').channels[1]!
    const whole: number[] = []
    for (let length = 0; length < 3000; length++) {
      try {
        replayChannel(bytes.slice(0, length))
        whole.push(length)
      } catch (error) {
        const { code } = error as { code?: string }
        if (code !== 'ERR_MULTIFD_TRUNCATED') t.fail(`${length}: ${code}`)
      }
    }
    t.same(whole, [INITIAL_PACKET_SIZE, INITIAL_PACKET_SIZE + 1344], 'the second packet has a page')
  },
)

t.test('a closed stream that is cut off has no end, save after the EOF byte', async (t) => {
  const { result } = new Replay(loadCapture('q10.0.2-precopy'))
  const tail = result.tail!
  const { eofAt } = result.end!
  t.match(locateStreamEnd(tail.subarray(0, eofAt + 1)), { eofAt, vmdescAt: undefined })
  for (const length of [0, 1, 100, eofAt, eofAt + 2, eofAt + 6, tail.length - 1]) {
    throwsCode(t, () => locateStreamEnd(tail.subarray(0, length)), 'ERR_MULTIFD_TRUNCATED', 'inside device state')
  }
})
