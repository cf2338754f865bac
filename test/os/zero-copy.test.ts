// What the kernel says of zero-copy sends, in bytes that are made up and in its own.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { libc } from '../../src/os/libc.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { closeDescriptor } from '../../src/os/socket.js'
import {
  CompletionReader,
  canSendZeroCopy,
  decodeCompletion,
  enableZeroCopy,
  MSG_ZEROCOPY,
} from '../../src/os/zero-copy.js'
import { connection } from '../io/connection.js'
import { limited, limitedMissing } from './limited.js'

const needsLimits = { skip: limitedMissing() ?? false }

interface Fields {
  level?: number
  type?: number
  origin?: number
  code?: number
  first?: number
  last?: number
}

// By the struct's own definition, field after field.
function controlMessage({ level = 0, type = 11, origin = 5, code = 1, first = 0, last = 0 }: Fields): Buffer {
  const bytes = Buffer.alloc(48)
  bytes.writeBigUInt64LE(48n, 0)
  bytes.writeInt32LE(level, 8)
  bytes.writeInt32LE(type, 12)
  bytes.writeUInt8(origin, 20)
  bytes.writeUInt8(code, 22)
  bytes.writeUInt32LE(first, 24)
  bytes.writeUInt32LE(last, 28)
  return bytes
}

function decoded(bytes: Buffer, length = bytes.length) {
  return decodeCompletion(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), length)
}

t.test('a notification names a range of sends and whether they were copied', async (t) => {
  t.strictSame(decoded(controlMessage({ first: 3, last: 9 })), { first: 3, count: 7, copied: true })
  t.strictSame(decoded(controlMessage({ level: 41, type: 25, code: 0 })), { first: 0, count: 1, copied: false })
  t.strictSame(decoded(controlMessage({ first: 0xfffffffe, last: 1 })), { first: 0xfffffffe, count: 4, copied: true })
})

t.test('what is none is none, at every length', async (t) => {
  t.equal(decoded(controlMessage({ origin: 2 })), undefined, 'an ICMP error')
  t.equal(decoded(controlMessage({ level: 1, type: 29 })), undefined, 'a timestamp')
  const whole = controlMessage({})
  for (let length = 0; length < whole.length; length++) t.equal(decoded(whole, length), undefined)
  const endless = Buffer.from(whole)
  endless.writeBigUInt64LE(0n, 0)
  t.equal(decoded(endless), undefined, 'a message without a length')
  const behind = Buffer.concat([controlMessage({ level: 1, type: 29 }), controlMessage({ first: 5, last: 5 })])
  t.strictSame(decoded(behind), { first: 5, count: 1, copied: true }, 'the one behind another')
})

t.test('the kernel numbers every send, and tells of each once', async (t) => {
  const { ours, theirs } = connection()
  t.teardown(() => [ours, theirs].forEach(closeDescriptor))
  t.equal(canSendZeroCopy(ours), true)
  enableZeroCopy(ours)
  const reader = new CompletionReader(ours)
  t.equal(reader.next(), undefined, 'nothing yet')
  const page = new PinnedBuffer(4096)
  const vector = new PinnedBuffer(128)
  vector.view.setBigUint64(0, BigInt(page.address), true)
  vector.view.setBigUint64(8, 4096n, true)
  const message = new PinnedBuffer(128)
  message.view.setBigUint64(16, BigInt(vector.address), true)
  message.view.setBigUint64(24, 1n, true)
  const sends = 7
  for (let i = 0; i < sends; i++) t.equal(libc().sendmsg(ours, message.address, MSG_ZEROCOPY), 4096)
  const told: number[] = []
  for (const deadline = performance.now() + 10_000; told.length < sends && performance.now() < deadline; ) {
    const next = reader.next()
    if (!next) continue
    t.equal(next.copied, true, 'a loopback copies')
    for (let i = 0; i < next.count; i++) told.push(next.first + i)
  }
  t.strictSame(
    told.sort((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6],
  )
})

t.test('only tcp has it', async (t) => {
  t.equal(canSendZeroCopy(0), false, 'standard input')
  t.equal(canSendZeroCopy(-1), false, 'no descriptor')
})

t.test('the locked-memory limit is read, and does not bind those who may lock anything', needsLimits, async (t) => {
  const script = fileURLToPath(new URL('./print-limit.js', import.meta.url))
  t.equal(limited(65536, script).stdout.trim(), '65536')
  t.equal(limited(5_000_000, script).stdout.trim(), '5000000')
  const unbound = spawnSync('prlimit', ['--memlock=65536:65536', process.execPath, script], { encoding: 'utf8' })
  t.equal(unbound.stdout.trim(), 'Infinity', 'with the capability')
})
