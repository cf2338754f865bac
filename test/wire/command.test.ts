import fc from 'fast-check'
import t from 'tap'
import {
  type ByteRange,
  COMMAND,
  COMMANDS,
  type CommandNumber,
  decodeCommand,
  decodePackaged,
  decodePing,
  decodePostcopyAdvise,
  decodePostcopyRamDiscard,
  decodeRecvBitmap,
  encodeCommand,
  encodePackaged,
  encodePing,
  encodePostcopyAdvise,
  encodePostcopyRamDiscard,
  encodeRecvBitmap,
} from '../../src/wire/command.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { badFields, encoded, everyTruncation, fromHex, NaiveWriter, patched, throwsCode } from './helpers.js'

const decode = (bytes: Uint8Array) => decodeCommand(new MemoryReader(bytes))
const DISCARD = fromHex('08 00 06 00 19 00 06 70 63 2e 72 61 6d 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00')

t.test('commands of QEMU streams', async (t) => {
  const switchover = fromHex('08 00 0b 00 00')
  t.same(decode(switchover), { command: 11, name: 'SWITCHOVER_START', payload: new Uint8Array(0) })
  t.same(
    encoded(5, (view, at) => encodeCommand(view, at, COMMAND.switchoverStart)),
    switchover,
  )
  const discard = decode(DISCARD)
  t.equal(discard.name, 'POSTCOPY_RAM_DISCARD')
  const all = { idstr: 'pc.ram', ranges: [{ start: 0, length: 0x1000000 }] }
  t.same(decodePostcopyRamDiscard(discard.payload), all)
  t.same(
    encoded(DISCARD.length, (view, at) => encodePostcopyRamDiscard(view, at, all.idstr, all.ranges)),
    DISCARD,
  )
})

t.test('each command with each payload length: its own pass, others are refused', async (t) => {
  const lengths: Record<string, number[]> = {
    OPEN_RETURN_PATH: [0],
    PING: [4],
    POSTCOPY_ADVISE: [0, 16],
    POSTCOPY_LISTEN: [0],
    POSTCOPY_RUN: [0],
    PACKAGED: [4],
    ENABLE_COLO: [0],
    POSTCOPY_RESUME: [0],
    SWITCHOVER_START: [0],
  }
  for (const [number, { name }] of Object.entries(COMMANDS)) {
    const expected = lengths[name] ?? [0, 1, 2, 3, 4, 15, 16, 17]
    const passed = [0, 1, 2, 3, 4, 15, 16, 17].filter((length) => {
      const bytes = new NaiveWriter().be(1, 8).be(2, Number(number)).be(2, length).zeros(length).bytes()
      try {
        return decode(bytes).payload.length === length
      } catch {
        return false
      }
    })
    t.same(passed, expected, name)
  }
})

t.test('commands are what a slow codec writes', async () => {
  const pair = fc.record({ start: fc.nat(2 ** 40), length: fc.integer({ min: 1, max: 2 ** 40 }) })
  const name = fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' })
  fc.assert(
    fc.property(fc.array(pair, { maxLength: 12 }), name, (ranges: ByteRange[], idstr) => {
      const length = 3 + idstr.length + 16 * ranges.length
      const slow = new NaiveWriter().be(1, 8).be(2, 6).be(2, length).be(1, 0).cstr8(idstr).be(1, 0)
      for (const range of ranges) slow.be(8, range.start).be(8, range.length)
      const bytes = slow.bytes()
      const fast = encoded(bytes.length, (view, at) => encodePostcopyRamDiscard(view, at, idstr, ranges))
      const read = decodePostcopyRamDiscard(decode(bytes).payload)
      return Buffer.compare(fast, bytes) === 0 && JSON.stringify(read) === JSON.stringify({ idstr, ranges })
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 4, maxLength: 4 }), (payload) => {
      const fast = encoded(9, (view, at) => encodeCommand(view, at, COMMAND.ping, payload))
      return Buffer.compare(decode(fast).payload, payload) === 0
    }),
  )
})

t.test('payloads go there and back', async (t) => {
  const payloadOf = (size: number, encode: (view: DataView, at: number) => number) => {
    const bytes = encoded(size, (view, at) => t.equal(encode(view, at), size))
    return decode(bytes).payload
  }
  for (const n of [0, 0x42, 0xffffffff]) {
    t.equal(decodePing(payloadOf(9, (view, at) => encodePing(view, at, n))), n)
    t.equal(decodePackaged(payloadOf(9, (view, at) => encodePackaged(view, at, n))), n)
  }
  const advise = payloadOf(21, (view, at) => encodePostcopyAdvise(view, at, 0x201000, 4096))
  t.same(decodePostcopyAdvise(advise), { pageSizes: 0x201000, targetPageSize: 4096 })
  t.equal(decodePostcopyAdvise(new Uint8Array(0)), undefined, 'for dirty bitmaps only')
  t.equal(decodeRecvBitmap(payloadOf(12, (view, at) => encodeRecvBitmap(view, at, 'pc.ram'))), 'pc.ram')
})

t.test('every truncation', async (t) => {
  everyTruncation(t, DISCARD, decode)
  const ping = fromHex('08 0002 0004 00000001')
  everyTruncation(t, ping, decode)
  everyTruncation(t, ping.slice(5), decodePing)
  everyTruncation(t, ping.slice(5), decodePackaged)
  everyTruncation(t, fromHex('0000000000001000 0000000000001000'), decodePostcopyAdvise, [0])
  everyTruncation(t, fromHex('06 70632e72616d'), decodeRecvBitmap)
  everyTruncation(t, DISCARD.slice(5), decodePostcopyRamDiscard, [9])
})

t.test('each bad field', async (t) => {
  badFields(t, decode, [
    ['type', patched(DISCARD, 0, '07'), 'ERR_MULTIFD_PROTOCOL', 'starts with byte 0x7'],
    ['command 0', fromHex('08 0000 0000'), 'ERR_MULTIFD_PROTOCOL', 'command is 0'],
    ['command 12', fromHex('08 000c 0000'), 'ERR_MULTIFD_PROTOCOL', 'command is 12, expected 1..11'],
    ['length', fromHex('08 0002 0003 000001'), 'ERR_MULTIFD_PROTOCOL', 'PING has 3 bytes, expected 4'],
    ['advise length', fromHex('08 0003 0008'), 'ERR_MULTIFD_PROTOCOL', 'expected 16 or 0'],
    ['discard length', fromHex('08 0006 01c3'), 'ERR_MULTIFD_PROTOCOL', 'has 451 bytes, expected at most 450'],
    ['bitmap length', fromHex('08 000a 0101'), 'ERR_MULTIFD_PROTOCOL', 'has 257 bytes'],
  ])
  const payload = DISCARD.slice(5)
  badFields(t, decodePostcopyRamDiscard, [
    ['version', patched(payload, 0, '01'), 'ERR_MULTIFD_PROTOCOL', 'version of POSTCOPY_RAM_DISCARD is 1'],
    ['name', patched(payload, 1, '00'), 'ERR_MULTIFD_PROTOCOL', 'empty'],
    ['NUL', patched(payload, 8, '41'), 'ERR_MULTIFD_PROTOCOL', 'ends in 0x41'],
    ['length 0', patched(payload, 17, '0000000000000000'), 'ERR_MULTIFD_PROTOCOL', "'pc.ram' is 0x0 + 0x0"],
    ['sum', patched(payload, 9, '001fffffffffffff'), 'ERR_MULTIFD_PROTOCOL', 'discard range'],
    ['start', patched(payload, 9, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
  ])
  badFields(t, decodePostcopyAdvise, [
    ['page size', fromHex('0000000000001000 0000000000001001'), 'ERR_MULTIFD_PROTOCOL', 'is 4097'],
  ])
  badFields(t, decodeRecvBitmap, [
    ['empty name', fromHex('00'), 'ERR_MULTIFD_PROTOCOL', 'has 0 bytes'],
    ['short name', fromHex('01 7063'), 'ERR_MULTIFD_PROTOCOL', 'has 1 bytes, expected 2'],
  ])
})

t.test('what can not be encoded', async (t) => {
  const view = new DataView(new ArrayBuffer(70_000))
  const long = new Uint8Array(65_536)
  throwsCode(t, () => encodeCommand(view, 0, COMMAND.ping as CommandNumber, long), 'ERR_MULTIFD_ARGUMENT', '65536')
  const ranges = Array.from({ length: 13 }, () => ({ start: 0, length: 4096 }))
  throwsCode(t, () => encodePostcopyRamDiscard(view, 0, 'a', ranges), 'ERR_MULTIFD_ARGUMENT', '13 ranges')
})
