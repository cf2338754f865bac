import fc from 'fast-check'
import t from 'tap'
import { viewOf } from '../../src/wire/bytes.js'
import {
  decodeReceivedBitmap,
  decodeReturnMessage,
  encodePong,
  encodeReceivedBitmap,
  encodeRecvBitmapReply,
  encodeReqPages,
  encodeResumeAck,
  encodeShut,
  encodeSwitchoverAck,
  RETURN_MESSAGE,
  receivedBitmapSize,
} from '../../src/wire/return-path.js'
import { badFields, encoded, fromHex, NaiveWriter, patched, throwsCode } from './helpers.js'

const decode = (bytes: Uint8Array) => decodeReturnMessage(viewOf(bytes), 0, bytes.length)
const REQUEST = fromHex('00 03 00 13 00 00 00 00 00 02 c0 00 00 00 10 00 06 70 63 2e 72 61 6d')

/** Each message as bytes, what it says, and its encoder. */
const MESSAGES: [string, object, (view: DataView, at: number) => number][] = [
  ['00020004 00000001', { type: 2, length: 4, value: 1 }, (view, at) => encodePong(view, at, 1)],
  ['00010004 00000000', { type: 1, length: 4, error: 0 }, (view, at) => encodeShut(view, at, 0)],
  ['00010004 ffffffff', { type: 1, length: 4, error: 0xffffffff }, (view, at) => encodeShut(view, at, 0xffffffff)],
  [
    '00030013 000000000002c000 00001000 0670632e72616d',
    { type: 3, length: 19, start: 0x2c000, lengthBytes: 4096, idstr: 'pc.ram' },
    (view, at) => encodeReqPages(view, at, 0x2c000, 4096, 'pc.ram'),
  ],
  [
    '0004000c 000000000004c000 00001000',
    { type: 4, length: 12, start: 0x4c000, lengthBytes: 4096 },
    (view, at) => encodeReqPages(view, at, 0x4c000, 4096),
  ],
  [
    '00050007 0670632e72616d',
    { type: 5, length: 7, idstr: 'pc.ram' },
    (view, at) => encodeRecvBitmapReply(view, at, 'pc.ram'),
  ],
  ['00060004 00000001', { type: 6, length: 4 }, encodeResumeAck],
  ['00070000', { type: 7, length: 0 }, encodeSwitchoverAck],
]

t.test('every message goes there and back', async (t) => {
  for (const [text, message, encode] of MESSAGES) {
    const bytes = fromHex(text)
    t.same(
      encoded(bytes.length, (view, at) => t.equal(encode(view, at), bytes.length)),
      bytes,
    )
    t.same(decode(bytes), message)
  }
})

t.test('a message that is not all there yet is undefined, at each of its bytes', async (t) => {
  for (const [text] of MESSAGES) {
    const bytes = fromHex(text)
    for (let available = 0; available < bytes.length; available++) {
      const received = new Uint8Array(bytes.length)
      received.set(bytes.subarray(0, available))
      t.equal(decodeReturnMessage(viewOf(received), 0, available), undefined)
    }
  }
})

t.test('messages are read one after the other', async (t) => {
  const bytes = fromHex('ffff 00070000 00020004 00000042 0001')
  const view = viewOf(bytes)
  const first = decodeReturnMessage(view, 2, bytes.length - 2)
  t.same(first, { type: RETURN_MESSAGE.switchoverAck, length: 0 })
  t.same(decodeReturnMessage(view, 6, bytes.length - 6), { type: RETURN_MESSAGE.pong, length: 4, value: 0x42 })
  t.equal(decodeReturnMessage(view, 14, bytes.length - 14), undefined)
})

t.test('requests are what a slow codec writes', async () => {
  const name = fc.string({ minLength: 1, maxLength: 255, unit: 'binary-ascii' })
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.integer({ min: 1, max: 0xffffffff }), name, (start, length, idstr) => {
      const slow = new NaiveWriter()
        .be(2, 3)
        .be(2, 13 + idstr.length)
        .be(8, start)
        .be(4, length)
        .cstr8(idstr)
        .bytes()
      const fast = encoded(slow.length, (view, at) => encodeReqPages(view, at, start, length, idstr))
      const read = decode(slow)
      return (
        Buffer.compare(fast, slow) === 0 &&
        read?.type === RETURN_MESSAGE.reqPagesId &&
        read.start === start &&
        read.lengthBytes === length &&
        read.idstr === idstr
      )
    }),
  )
})

t.test('each bad field', async (t) =>
  badFields(t, decode, [
    ['type 0', fromHex('0000 0000'), 'ERR_MULTIFD_PROTOCOL', 'type is 0'],
    ['type 8', fromHex('0008 0000'), 'ERR_MULTIFD_PROTOCOL', 'type is 8, expected 1..7'],
    ['SHUT length', fromHex('0001 0005'), 'ERR_MULTIFD_PROTOCOL', 'SHUT has 5 bytes, expected 4'],
    ['PONG length', fromHex('0002 0003'), 'ERR_MULTIFD_PROTOCOL', 'PONG has 3 bytes'],
    ['REQ_PAGES_ID length', fromHex('0003 000c'), 'ERR_MULTIFD_PROTOCOL', 'has 12 bytes, expected 13..268'],
    ['REQ_PAGES length', fromHex('0004 000d'), 'ERR_MULTIFD_PROTOCOL', 'REQ_PAGES has 13 bytes'],
    ['RECV_BITMAP length', fromHex('0005 0000'), 'ERR_MULTIFD_PROTOCOL', 'RECV_BITMAP has 0 bytes'],
    ['over 512', fromHex('0005 0201'), 'ERR_MULTIFD_PROTOCOL', 'has 513 bytes'],
    ['RESUME_ACK length', fromHex('0006 0000'), 'ERR_MULTIFD_PROTOCOL', 'RESUME_ACK has 0 bytes'],
    ['RESUME_ACK value', fromHex('0006 0004 00000002'), 'ERR_MULTIFD_PROTOCOL', 'says 2, expected 1'],
    ['SWITCHOVER_ACK length', fromHex('0007 0001'), 'ERR_MULTIFD_PROTOCOL', 'SWITCHOVER_ACK has 1 bytes'],
    ['start', patched(REQUEST, 4, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    ['length 0', patched(REQUEST, 12, '00000000'), 'ERR_MULTIFD_PROTOCOL', 'request at 0x2c000 has length 0'],
    ['name too long', patched(REQUEST, 16, '07'), 'ERR_MULTIFD_TRUNCATED', '7 bytes needed, 6 available'],
    ['name too short', patched(REQUEST, 16, '05'), 'ERR_MULTIFD_PROTOCOL', 'has 5 bytes, expected 6'],
    ['name empty', fromHex('0005 0001 00'), 'ERR_MULTIFD_PROTOCOL', 'has 0 bytes'],
  ]),
)

t.test('a request for a block without a name is not encoded', async (t) => {
  throwsCode(t, () => encodeReqPages(viewOf(new Uint8Array(99)), 0, 0, 4096, ''), 'ERR_MULTIFD_ARGUMENT', 'empty')
})

const BITMAP = fromHex('0000000000000008 0102030405060708 0123456789abcdef')

t.test('the received bitmap goes there and back', async (t) => {
  const bitmap = fromHex('0102030405060708')
  t.same(
    encoded(24, (view, at) => t.equal(encodeReceivedBitmap(view, at, bitmap), 24)),
    BITMAP,
  )
  t.same(decodeReceivedBitmap(viewOf(BITMAP), 0, 24, 64), { bitmapAt: 8, bitmapSize: 8, end: 24 })
  t.equal(receivedBitmapSize(65), 16)
  for (let available = 0; available < 24; available++) {
    const received = new Uint8Array(24)
    received.set(BITMAP.subarray(0, available))
    t.equal(decodeReceivedBitmap(viewOf(received), 0, available, 1), undefined)
  }
})

t.test('the received bitmap: each bad field', async (t) =>
  badFields(t, (bytes) => decodeReceivedBitmap(viewOf(bytes), 0, bytes.length, 64), [
    ['size', patched(BITMAP, 0, '0000000000000010'), 'ERR_MULTIFD_PROTOCOL', 'has 16 bytes, expected 8'],
    ['huge size', patched(BITMAP, 0, 'ffffffffffffffff'), 'ERR_MULTIFD_PROTOCOL', '2^53'],
    ['end mark', patched(BITMAP, 16, '0123456789abcdee'), 'ERR_MULTIFD_PROTOCOL', 'expected the end mark'],
    ['end mark, high', patched(BITMAP, 16, '1123456789abcdef'), 'ERR_MULTIFD_PROTOCOL', 'expected the end mark'],
  ]),
)
