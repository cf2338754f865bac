import t from 'tap'
import { type ByteReader, MemoryReader, skipBytes } from '../../src/wire/reader.js'
import { fromHex, throwsCode } from './helpers.js'

t.test('reads each kind of field in order, and counts what it consumed', async (t) => {
  const reader = new MemoryReader(fromHex('01 0203 04050607 0000000100000002 6162 02 6364 ff00 aabbcc 7e'), 100)
  t.equal(reader.position, 100)
  t.equal(reader.u8(), 1)
  t.equal(reader.u16(), 0x0203)
  t.equal(reader.u32(), 0x04050607)
  t.equal(reader.u64(), 0x1_0000_0002)
  t.equal(reader.text(2), 'ab')
  t.equal(reader.cstr8(), 'cd')
  t.same(reader.bytes(2), fromHex('ff00'))
  reader.skip(1)
  t.same(reader.subarray(2), fromHex('bbcc'))
  t.equal(reader.peekU8(), 0x7e)
  t.equal(reader.remaining, 1)
  t.equal(reader.u8(), 0x7e)
  t.equal(reader.peekU8(), -1)
  t.equal(reader.position, 126)
})

t.test('bytes() is a copy', async (t) => {
  const memory = fromHex('0102')
  const copy = new MemoryReader(memory).bytes(2)
  memory[0] = 9
  t.equal(copy[0], 1)
})

t.test('every method says when the input ends, and consumes nothing then', async (t) => {
  const reader = new MemoryReader(new Uint8Array(0))
  const methods: (() => unknown)[] = [
    () => reader.u8(),
    () => reader.u16(),
    () => reader.u32(),
    () => reader.u64(),
    () => reader.text(1),
    () => reader.cstr8(),
    () => reader.bytes(1),
    () => reader.subarray(1),
    () => reader.skip(1),
  ]
  for (const method of methods) throwsCode(t, method, 'ERR_MULTIFD_TRUNCATED', 'ends inside')
  t.equal(reader.position, 0)
  throwsCode(t, () => new MemoryReader(fromHex('03 6162')).cstr8(), 'ERR_MULTIFD_TRUNCATED', '3 bytes needed, 2')
})

t.test('a 64-bit field above 2^53 - 1 is refused', async (t) => {
  throwsCode(t, () => new MemoryReader(fromHex('0020000000000000')).u64(), 'ERR_MULTIFD_PROTOCOL', '2^53')
})

t.test('passes over bytes in pieces where a reader can not skip', async (t) => {
  const memory = new MemoryReader(new Uint8Array(200_000))
  const sizes: number[] = []
  const reader = {
    bytes: (length: number) => {
      sizes.push(length)
      return memory.bytes(length)
    },
  } as ByteReader
  skipBytes(reader, 150_000)
  t.equal(memory.position, 150_000)
  t.same(sizes, [65_536, 65_536, 18_928])
  skipBytes(memory, 50_000)
  t.equal(memory.remaining, 0)
})
