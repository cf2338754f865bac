import t from 'tap'
import { MemoryReader } from '../../src/wire/reader.js'
import { decodeSectionHeader } from '../../src/wire/stream.js'
import {
  decodeVirtioMemEarly,
  encodeVirtioMemEarly,
  isPlugged,
  VIRTIO_MEM_EARLY_SUFFIX,
  virtioMemEarlySize,
} from '../../src/wire/virtio-mem.js'
import { badFields, encoded, everyTruncation, fromHex, patched } from './helpers.js'

const PAYLOAD = fromHex(`00 00 00 01 00 00 00 00  00 00 00 00 01 00 00 00  00 00 00 00 00 20 00 00
  00 00 00 00  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00`)
const decode = (bytes: Uint8Array) => decodeVirtioMemEarly(new MemoryReader(bytes))

t.test('the section of QEMU 10.0 with nothing plugged', async (t) => {
  const idstr = '0000:00:02.0/virtio-mem-device-early'
  const head = fromHex(`04 00 00 00 26 24 ${Buffer.from(idstr).toString('hex')} 00 00 00 00 00 00 00 01`)
  t.match(decodeSectionHeader(new MemoryReader(head)), { sectionId: 0x26, idstr, versionId: 1 })
  t.ok(idstr.endsWith(VIRTIO_MEM_EARLY_SUFFIX))
  const state = {
    addr: 0x100000000,
    regionSize: 0x1000000,
    blockSize: 0x200000,
    node: 0,
    size: 0,
    bitmap: new Uint8Array(8),
  }
  t.same(decode(PAYLOAD), state)
  t.equal(virtioMemEarlySize(state.regionSize, state.blockSize), PAYLOAD.length)
  t.same(
    encoded(PAYLOAD.length, (view, at) => t.equal(encodeVirtioMemEarly(view, at, state), PAYLOAD.length)),
    PAYLOAD,
  )
})

t.test('the bitmap has big-endian words, their lowest bit first', async (t) => {
  const bitmap = fromHex('8000000000000005 0000000000000100')
  const plugged = Array.from({ length: 128 }, (_, block) => block).filter((block) => isPlugged(bitmap, block))
  t.same(plugged, [0, 2, 63, 72])
  t.notOk(isPlugged(bitmap, 128), 'beyond the bitmap')
})

t.test('every truncation', async (t) => everyTruncation(t, PAYLOAD, decode))

t.test('each bad field', async (t) =>
  badFields(t, decode, [
    ['block_size', patched(PAYLOAD, 16, '0000000000200001'), 'ERR_MULTIFD_PROTOCOL', 'block_size is 2097153'],
    ['no block_size', patched(PAYLOAD, 16, '0000000000000000'), 'ERR_MULTIFD_PROTOCOL', 'block_size is 0'],
    ['region_size', patched(PAYLOAD, 8, '0000000001000001'), 'ERR_MULTIFD_PROTOCOL', 'region_size is 16777217'],
    ['no region', patched(PAYLOAD, 8, '0000000000000000'), 'ERR_MULTIFD_PROTOCOL', 'region_size is 0'],
    [
      'bitmap',
      patched(PAYLOAD, 8, '0000000100000000 0000000000000001'),
      'ERR_MULTIFD_PROTOCOL',
      '67108864 words, expected at most 1048576',
    ],
    ['size', patched(PAYLOAD, 28, '0000000001000001'), 'ERR_MULTIFD_PROTOCOL', 'size is 16777217'],
  ]),
)
