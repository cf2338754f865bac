import fc from 'fast-check'
import t from 'tap'
import { viewOf } from '../../src/wire/bytes.js'
import { decodeInitialPacket, encodeInitialPacket, INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { badFields, encoded, everyTruncation, fromHex, NaiveWriter, patched } from './helpers.js'

const CHANNEL_0 = fromHex(
  `11 22 33 44 00 00 00 01 12 34 56 78 9a bc de f0 11 22 33 44 55 66 77 88 00${'00'.repeat(39)}`,
)
const decode = (bytes: Uint8Array) => decodeInitialPacket(viewOf(bytes), 0)

t.test('the packet of channel 0 of a QEMU', async (t) => {
  const uuid = CHANNEL_0.slice(8, 24)
  t.same(decode(CHANNEL_0), { uuid: '12345678-9abc-def0-1122-334455667788', uuidBytes: uuid, id: 0 })
  t.same(
    encoded(INITIAL_PACKET_SIZE, (view, at) => encodeInitialPacket(view, at, { uuid, id: 0 })),
    CHANNEL_0,
  )
})

t.test('a source without uuid sends zeros', async (t) => {
  const bytes = encoded(INITIAL_PACKET_SIZE, (view, at) => encodeInitialPacket(view, at, { uuid: undefined, id: 7 }))
  t.match(decode(bytes), { uuid: '00000000-0000-0000-0000-000000000000', id: 7 })
})

t.test('is what a slow codec writes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(255), fc.nat(100), (uuid, id, at) => {
      const bytes = encoded(INITIAL_PACKET_SIZE, (view, to) => encodeInitialPacket(view, to, { uuid, id }), at)
      const naive = new NaiveWriter().be(4, 0x11223344).be(4, 1).raw(uuid).be(1, id).zeros(39).bytes()
      const read = decode(naive)
      return Buffer.compare(bytes, naive) === 0 && read.id === id && Buffer.compare(read.uuidBytes, uuid) === 0
    }),
  )
})

t.test('reserved bytes are not looked at', async (t) => {
  t.equal(decode(patched(CHANNEL_0, 25, 'ff'.repeat(39))).id, 0)
})

t.test('every truncation', async (t) => everyTruncation(t, CHANNEL_0, decode))

t.test('each bad field', async (t) =>
  badFields(t, decode, [
    ['magic', patched(CHANNEL_0, 0, '5145564d'), 'ERR_MULTIFD_PROTOCOL', 'magic is 0x5145564d, expected 0x11223344'],
    ['version', patched(CHANNEL_0, 4, '00000002'), 'ERR_MULTIFD_PROTOCOL', 'version is 2, expected 1'],
  ]),
)
