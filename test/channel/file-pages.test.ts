// Pages of a snapshot sent straight from its file: what arrives, what the file may not do, and where the kernel can not.

import { randomFillSync } from 'node:crypto'
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FilePages } from '../../src/channel/file-pages.js'
import { channelWait } from '../../src/channel/thread.js'
import { DescriptorChannel } from '../../src/io/descriptor-channel.js'
import { IoVector } from '../../src/io/iovec.js'
import { PinnedBuffer } from '../../src/os/memory.js'
import { RamBlock } from '../../src/ram/block.js'
import { SharedBitmap } from '../../src/shm/bitmap.js'
import { MigrationShm } from '../../src/shm/migration-shm.js'
import { PageRuns } from '../../src/shm/page-runs.js'
import { connection } from '../io/connection.js'

const PAGE = 4096
const PAGES = 40
const OFFSET = 3 * PAGE
const STALL_MS = 200

const shm = MigrationShm.create({ channels: 4, pagesPerPacket: 128, dirtyWords: 1 })

interface Opened {
  path: string
  block: RamBlock
  bytes: Buffer
  ours: DescriptorChannel
  read(length: number): Buffer
  theirs: DescriptorChannel
}

/** A block in the middle of a file of random bytes; pages 5, 17 and 18 of it are zero, whatever the file has there. */
function opened(t: Test): Opened {
  const path = join(t.testdir(), 'snapshot')
  const file = randomFillSync(Buffer.alloc(OFFSET + PAGES * PAGE + PAGE))
  writeFileSync(path, file)
  const populated = new SharedBitmap(PAGES)
  populated.setRange(0, PAGES)
  const bytes = file.subarray(OFFSET, OFFSET + PAGES * PAGE)
  for (const page of [5, 17, 18]) {
    populated.clear(page)
    bytes.fill(0, page * PAGE, (page + 1) * PAGE)
  }
  const block = RamBlock.mapFile({ idstr: 'ram', path, size: PAGES * PAGE, offset: OFFSET, populated, writable: false })
  const fds = connection()
  const ours = new DescriptorChannel(fds.ours, 3, channelWait(shm, 3, STALL_MS))
  const theirs = new DescriptorChannel(fds.theirs, 'main', channelWait(shm, 3, 10_000))
  t.teardown(() => {
    block.close()
    ours.close()
    theirs.close()
  })
  const read = (length: number): Buffer => {
    const buffer = new PinnedBuffer(length)
    const vector = new IoVector(1)
    vector.push({ address: buffer.address, size: length }, 0, length)
    t.equal(theirs.readFull(vector, 0), length)
    return Buffer.from(buffer.bytes)
  }
  return { path, block, bytes, ours, theirs, read }
}

function runs(...list: [first: number, count: number][]): PageRuns {
  const made = PageRuns.alone(list.length)
  for (const [first, count] of list) made.push(first, count)
  return made
}

t.test('pages arrive in order, those that are known to be zero as zeros, and none is mapped for it', async (t) => {
  const { block, bytes, ours, read } = opened(t)
  const pages = new FilePages(ours)
  t.ok(pages.takes(block))
  pages.write(runs([4, 3], [16, 4], [0, 1], [39, 1]), block)
  const expected = [bytes.subarray(4 * PAGE, 7 * PAGE), bytes.subarray(16 * PAGE, 20 * PAGE)]
  expected.push(bytes.subarray(0, PAGE), bytes.subarray(39 * PAGE))
  t.ok(read(9 * PAGE).equals(Buffer.concat(expected)))
  t.equal(mappedBytes(block), 0)
})

t.test('another thread sends from the same file', async (t) => {
  const { block, bytes, ours, read } = opened(t)
  new FilePages(ours).write(runs([0, PAGES]), RamBlock.from(block.handle))
  t.ok(read(PAGES * PAGE).equals(bytes))
})

t.test("a file that became too short is the file's fault, by code", async (t) => {
  const { path, block, ours } = opened(t)
  truncateSync(path, OFFSET + 2 * PAGE)
  t.throws(() => new FilePages(ours).write(runs([0, 4]), block), {
    code: 'ERR_MULTIFD_FILE',
    message: 'channel 3: the file that is sent can not be read: it ends too early',
  })
})

t.test('a peer that is gone, and one that reads nothing, end as with any other send', async (t) => {
  const gone = opened(t)
  gone.theirs.close()
  const pages = new FilePages(gone.ours)
  const all = runs([0, PAGES])
  t.throws(
    () => {
      for (let i = 0; i < 100; i++) pages.write(all, gone.block)
    },
    { code: 'ERR_MULTIFD_CLOSED', message: /channel 3: the peer is gone/ },
  )
  const silent = opened(t)
  t.throws(
    () => {
      for (let i = 0; i < 1000; i++) new FilePages(silent.ours).write(all, silent.block)
    },
    { code: 'ERR_MULTIFD_TIMEOUT', message: /channel 3/ },
  )
})

t.test('where the kernel can not send from a file, the pages go from the mapping, all of them', async (t) => {
  const { block, bytes, ours, read } = opened(t)
  const folder = openSync(t.testdirName, 'r')
  t.teardown(() => closeSync(folder))
  const strange = RamBlock.from({ ...block.handle, file: { fd: folder, offset: OFFSET } })
  const pages = new FilePages(ours)
  t.ok(pages.takes(strange))
  pages.write(runs([0, PAGES]), strange)
  t.ok(read(PAGES * PAGE).equals(bytes))
  t.notOk(pages.takes(strange), 'it is not tried again')
})

t.test('only what nobody changes goes this way', async (t) => {
  const { path, ours } = opened(t)
  const pages = new FilePages(ours)
  const writable = RamBlock.mapFile({ idstr: 'ram', path, size: PAGE, offset: PAGE, populated: new SharedBitmap(1) })
  const unknown = RamBlock.mapFile({ idstr: 'ram', path, size: PAGE, writable: false })
  t.teardown(() => {
    writable.close()
    unknown.close()
  })
  t.notOk(pages.takes(writable))
  t.notOk(pages.takes(unknown), 'zero pages are looked for in the memory')
  t.notOk(pages.takes(RamBlock.allocate({ idstr: 'heap', size: PAGE })))
})

/** Bytes of a block's mapping that this process has mapped pages of. */
function mappedBytes({ address }: RamBlock): number {
  const start = address.toString(16)
  const lines = readFileSync('/proc/self/smaps', 'utf8').split('\n')
  const at = lines.findIndex((line) => line.startsWith(`${start}-`))
  const rss = lines.slice(at).find((line) => line.startsWith('Rss:'))
  return Number(/\d+/.exec(rss!)![0]) * 1024
}
