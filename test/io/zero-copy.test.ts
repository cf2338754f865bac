// Zero-copy sends of one channel: what arrives, when the memory is free again, and every way that fails.
//
// A loopback copies at the receiver's end. What its receive buffer has no room for waits in ours, uncopied.

import { randomFillSync } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { channelWait } from '../../src/channel/thread.js'
import type { WaitHook } from '../../src/io/channel.js'
import { DescriptorChannel } from '../../src/io/descriptor-channel.js'
import { IoVector } from '../../src/io/iovec.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock } from '../../src/ram/block.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'
import { limited, limitedMissing } from '../os/limited.js'
import { tells } from '../support/peers/index.js'
import { connection } from './connection.js'

const PAGE = 4096
const HEAD = 100
const PATIENCE_MS = 10_000
const STALL_MS = 200

const needsLimits = { skip: limitedMissing() ?? false }

// Our end of a channel 3, which says what a stall is as every channel's thread does.
const shm = MigrationShm.create({ channels: 4, pagesPerPacket: 128, dirtyWords: 1 })
const stalls: WaitHook = channelWait(shm, 3, STALL_MS)

function opened(t: Test, most = 16): { ours: DescriptorChannel; theirs: DescriptorChannel } {
  const fds = connection()
  const ours = new DescriptorChannel(fds.ours, 3, stalls)
  const theirs = new DescriptorChannel(fds.theirs, 'main', (waitedMs) => {
    if (waitedMs > PATIENCE_MS) throw new Error('nothing comes')
  })
  t.teardown(() => {
    ours.close()
    theirs.close()
  })
  ours.enableZeroCopy(most)
  return { ours, theirs }
}

function block(pages: number): RamBlock {
  const made = RamBlock.allocate({ idstr: 'heap', size: pages * PAGE })
  made.bytes().set(randomFillSync(Buffer.alloc(made.size)))
  return made
}

const head = new PinnedBuffer(HEAD)
randomFillSync(head.bytes)

/** Head and every `step`-th page. */
function packet(ram: RamBlock, step: number): IoVector {
  const vector = new IoVector()
  vector.push({ address: head.address, size: HEAD }, 0, HEAD)
  for (let page = 0; page < ram.pages; page += step) vector.push(ram, page * PAGE, PAGE)
  return vector
}

function read(channel: DescriptorChannel, length: number): Buffer {
  const into = new PinnedBuffer(length)
  const vector = new IoVector(1)
  vector.push({ address: into.address, size: length }, 0, length)
  const got = channel.readFull(vector, 0)
  return Buffer.from(into.bytes.subarray(0, got))
}

function thrown(what: () => unknown): unknown {
  try {
    what()
  } catch (error) {
    return error
  }
  return undefined
}

t.test('128 pages that lie apart arrive in order behind their head, as one send', async (t) => {
  const { ours, theirs } = opened(t)
  const ram = block(256)
  const vector = packet(ram, 2)
  t.equal(vector.count, 129, 'an entry a page: more than a network buffer has room for')
  ours.writeZeroCopy(vector, HEAD)
  t.equal(vector.length, 0)
  const pages = Array.from({ length: 128 }, (_, page) => Buffer.from(ram.bytes(2 * page * PAGE, PAGE)))
  t.ok(read(theirs, HEAD + 128 * PAGE).equals(Buffer.concat([head.bytes, ...pages])))
  t.equal(ours.flushZeroCopy(), 1, 'one send, which the loopback copied')
  t.equal(ours.flushZeroCopy(), 0, 'nothing is under way')
})

t.test('a page that changes while it waits to be sent changes for the receiver; the head may', async (t) => {
  const { ours, theirs } = opened(t)
  const ram = block(128)
  const before = Buffer.from(ram.bytes())
  const kept = Buffer.from(head.bytes)
  ours.writeZeroCopy(packet(ram, 1), HEAD)
  ram.bytes(127 * PAGE, PAGE).fill(7)
  head.bytes.fill(7)
  const came = read(theirs, HEAD + 128 * PAGE)
  head.bytes.set(kept)
  t.ok(came.subarray(0, HEAD).equals(kept), 'the head is copied')
  t.ok(came.subarray(HEAD, HEAD + PAGE).equals(before.subarray(0, PAGE)), 'what has left stays what it was')
  t.ok(
    came.subarray(-PAGE).every((byte) => byte === 7),
    'what waited is what the page has become',
  )
  t.equal(ours.flushZeroCopy(), 1)
})

t.test('after the flush it does not', async (t) => {
  const { ours, theirs } = opened(t)
  const ram = block(8)
  const before = Buffer.from(ram.bytes())
  ours.writeZeroCopy(packet(ram, 1), HEAD)
  // The receiver's buffer has room for all of it: the kernel is through although nobody read.
  t.equal(ours.flushZeroCopy(), 1)
  ram.bytes().fill(7)
  t.ok(
    read(theirs, HEAD + 8 * PAGE)
      .subarray(HEAD)
      .equals(before),
  )
})

t.test('every call that moved something counts: a send in parts has several completions', async (t) => {
  const { ours, theirs } = opened(t)
  const ram = block(2048)
  // Nobody reads: the send comes back in part, and the stall of the rest ends it.
  const vector = packet(ram, 1)
  const error = thrown(() => ours.writeZeroCopy(vector, HEAD))
  tells(t, error, { code: 'ERR_MULTIFD_TIMEOUT', says: /channel 3: stalled/, channel: 3 })
  let sent = HEAD + ram.size - vector.length
  t.ok(sent > HEAD && vector.length > 0, `${sent} bytes are on their way`)
  let came = read(theirs, sent)
  // The rest goes as sends of their own, as many as the connection has no room for at once.
  while (vector.length > 0) {
    try {
      ours.writeZeroCopy(vector, 0)
    } catch (stall) {
      tells(t, stall, { code: 'ERR_MULTIFD_TIMEOUT', says: /channel 3: stalled/, channel: 3 })
    }
    const now = HEAD + ram.size - vector.length
    came = Buffer.concat([came, read(theirs, now - sent)])
    sent = now
  }
  t.ok(came.subarray(HEAD).equals(Buffer.from(ram.bytes())))
  t.ok(ours.flushZeroCopy() >= 2)
  t.equal(ours.flushZeroCopy(), 0, 'and there are no more of them')
})

t.test('completions that never come are a stall, which names its channel', async (t) => {
  const { ours } = opened(t)
  ours.writeZeroCopy(packet(block(128), 1), HEAD)
  const began = performance.now()
  const error = thrown(() => ours.flushZeroCopy())
  tells(t, error, { code: 'ERR_MULTIFD_TIMEOUT', says: /channel 3: stalled/, channel: 3 })
  t.ok(performance.now() - began < 2000, 'soon')
})

t.test('no more sends are under way than were allowed', async (t) => {
  const { ours, theirs } = opened(t, 2)
  const ram = block(128)
  ours.writeZeroCopy(packet(ram, 1), HEAD)
  ours.writeZeroCopy(packet(ram, 1), HEAD)
  const third = packet(ram, 1)
  tells(
    t,
    thrown(() => ours.writeZeroCopy(third, HEAD)),
    { code: 'ERR_MULTIFD_TIMEOUT', says: /stalled/ },
  )
  t.equal(third.length, ram.size, 'its pages wait')
  read(theirs, 2 * (HEAD + ram.size) + HEAD)
  ours.writeZeroCopy(third, 0)
  read(theirs, ram.size)
  t.equal(ours.flushZeroCopy(), 3)
})

t.test('a peer that is gone fails the flush, although the kernel gives the memory back', async (t) => {
  const { ours, theirs } = opened(t)
  ours.writeZeroCopy(packet(block(128), 1), HEAD)
  theirs.close() // with unread bytes: a reset
  tells(
    t,
    thrown(() => ours.flushZeroCopy()),
    { code: 'ERR_MULTIFD_CLOSED', says: /peer is gone/, channel: 3 },
  )
})

t.test('memory that may not be locked fails by its name', needsLimits, async (t) => {
  const { stdout } = limited(65536, fileURLToPath(new URL('./zero-copy-locked.js', import.meta.url)))
  t.match(JSON.parse(stdout), {
    code: 'ERR_MULTIFD_IO',
    errnoName: 'ENOBUFS',
    channel: 0,
    message: /channel 0: .*ENOBUFS.*RLIMIT_MEMLOCK/,
  })
})

t.test('a channel without it says what is missing', async (t) => {
  const pipe = new DescriptorChannel(0, 0, stalls)
  t.equal(pipe.features.has('zeroCopySend'), false)
  tells(
    t,
    thrown(() => pipe.enableZeroCopy(1)),
    { code: 'ERR_MULTIFD_UNSUPPORTED', says: /tcp/, channel: 0 },
  )
  const { ours, theirs } = opened(t)
  t.equal(ours.features.has('zeroCopySend'), true)
  tells(
    t,
    thrown(() => theirs.writeZeroCopy(packet(block(1), 1), HEAD)),
    {
      code: 'ERR_MULTIFD_INTERNAL',
      says: /not enabled/,
    },
  )
})
