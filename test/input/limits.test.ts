// Streams that are well formed and want too much, or what nobody thought of.

import { rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readSnapshot } from '../../src/snapshot/file.js'
import { SnapshotTarget } from '../../src/snapshot/target.js'
import { encodeMappedRamHeader, layoutMappedRam } from '../../src/wire/mapped-ram.js'
import { encodeRamSetupEntry, encodeRamWord, RAM_FLAG } from '../../src/wire/ram.js'
import { encodeFooter, encodeSectionHeader, SECTION } from '../../src/wire/stream.js'
import { encodeVirtioMemEarly, VIRTIO_MEM_EARLY_SUFFIX, virtioMemEarlySize } from '../../src/wire/virtio-mem.js'
import {
  eosWord,
  pageRecord,
  RAM_SECTION_ID,
  ramIntroduction,
  ramList,
  ramSection,
  ramStart,
  streamEnd,
  streamHead,
  written,
  zeroRecord,
} from '../support/peers/stream.js'
import { concatBytes } from './bytes.js'
import { FileFeed, scratchFolder } from './feed.js'
import { type Ending, PEER_CODES, receiveMain } from './runs.js'

const MIB = 2 ** 20
const MACHINE = 'pc-i440fx-10.0'

const feed = new FileFeed()
const scratch = scratchFolder()
t.teardown(() => {
  feed.close()
  rmSync(scratch, { recursive: true })
})
const path = join(scratch, 'guest')

function receive(...parts: Uint8Array[]): Ending {
  feed.put(...parts)
  return receiveMain(feed.open(), () => new SnapshotTarget(path, undefined), 0)
}

/** The processor's time that something takes, ms. */
function took(action: () => void): number {
  const began = process.cpuUsage()
  action()
  const { user, system } = process.cpuUsage(began)
  return (user + system) / 1000
}

t.test('pages of every size that a configuration can name', async (t) => {
  for (let pageBits = 10; pageBits <= 19; pageBits++) {
    const pageSize = 2 ** pageBits
    const blocks = [{ idstr: 'pc.ram', size: 4 * MIB }]
    const data = new Uint8Array(pageSize).fill(7)
    // Data, data that is all zero, and data that is zero but for its last byte.
    const last = new Uint8Array(pageSize)
    last[pageSize - 1] = 1
    const records = [pageRecord('pc.ram', 0, data), pageRecord('pc.ram', pageSize, new Uint8Array(pageSize))]
    records.push(pageRecord('pc.ram', 2 * pageSize, last))
    for (let offset = 3 * pageSize; offset < 4 * MIB; offset += pageSize) records.push(zeroRecord('pc.ram', offset))
    const part = Buffer.concat([ramSection('part', records, 'per-section')])
    const head = streamHead(MACHINE, { pageBits })
    const ending = receive(
      head,
      ramStart(blocks, 'per-section'),
      part,
      ramSection('end', [], 'per-section'),
      streamEnd(),
    )
    if (pageBits < 12) {
      // Smaller pages than this machine's can not be mapped one by one, but whole blocks of them can.
      t.ok(PEER_CODES.has(ending.code), `${pageSize}: ${ending.code}`)
    } else t.equal(ending.code, 'end', `${pageSize} bytes: ${ending.error?.message ?? 'complete'}`)
    if (ending.code !== 'end') continue
    const { populated } = readSnapshot(path).blocks[0]!
    t.same([populated.has(0), populated.has(1), populated.has(2), populated.count()], [true, false, true, 2])
  }
})

t.test("blocks of odd lengths and names are a peer's mistake, and not the program's", async (t) => {
  const end = [ramSection('end', [], 'per-section'), streamEnd()]
  const odd = receive(
    streamHead(MACHINE, { pageBits: 10 }),
    ramStart([{ idstr: 'rom', size: 1024 }], 'per-section'),
    ...end,
  )
  t.ok(PEER_CODES.has(odd.code), `1024 bytes: ${odd.code}`)
  for (const idstr of ['\xff'.repeat(255), '\x01', 'a/../../b']) {
    const size = 4096
    const zero = ramSection('part', [zeroRecord(idstr, 0)], 'per-section')
    const { code, error } = receive(streamHead(MACHINE), ramStart([{ idstr, size }], 'per-section'), zero, ...end)
    t.equal(code, 'end', `${JSON.stringify(idstr.slice(0, 9))}: ${error?.message ?? 'complete'}`)
    t.equal(readSnapshot(path).blocks[0]?.idstr, idstr)
  }
})

t.test('RAM that no machine has is refused before memory is set aside for it', async (t) => {
  const before = process.memoryUsage().arrayBuffers
  const refused = (sizes: number[]): void => {
    const blocks = sizes.map((size, i) => ({ idstr: `block${i}`, size }))
    const ms = took(() => {
      const { code, error } = receive(streamHead(MACHINE), ramStart(blocks, 'per-section'))
      t.equal(code, 'ERR_MULTIFD_PROTOCOL', `${sizes[0]} bytes, ${sizes.length} times: ${error?.message}`)
    })
    t.ok(ms < 1000, 'at once')
  }
  for (const bits of [45, 46, 48, 50, 52]) refused([2 ** bits])
  refused([2 ** 44 + 4096])
  refused([2 ** 53 - 4096])
  refused(Array.from({ length: 512 }, () => 2 ** 43))
  t.ok(process.memoryUsage().arrayBuffers - before < 64 * MIB, 'no memory')
  // As large as can be: the disk may be too small, and the stream ends after the set-up.
  const { code } = receive(streamHead(MACHINE), ramStart([{ idstr: 'pc.ram', size: 2 ** 44 }], 'per-section'))
  t.match(code, /^ERR_MULTIFD_(BLOCK|FILE|CLOSED)$/, '16 TiB')
})

/** The head of a virtio-mem section that has a bitmap of 8 MiB. */
function earlySection(): Uint8Array {
  const blockSize = 2 * MIB
  const regionSize = 64 * MIB * blockSize
  const bytes = new Uint8Array(256 + virtioMemEarlySize(regionSize, blockSize))
  const view = new DataView(bytes.buffer)
  const header = { sectionId: 7, idstr: `x${VIRTIO_MEM_EARLY_SUFFIX}`, instanceId: 0, versionId: 1 }
  const bitmap = new Uint8Array(virtioMemEarlySize(regionSize, blockSize) - 36)
  const state = { addr: 0, regionSize, blockSize, node: 0, size: 0, bitmap }
  const at = encodeVirtioMemEarly(view, encodeSectionHeader(view, 0, SECTION.full, header), state)
  return bytes.subarray(0, encodeFooter(view, at, 7))
}

t.test('early sections without end are not collected without end', async (t) => {
  const early = earlySection()
  const { code, error } = receive(streamHead(MACHINE), ...Array.from({ length: 40 }, () => early))
  t.equal(code, 'ERR_MULTIFD_PROTOCOL', `${error?.message}`)
  writeFileSync(path, concatBytes(streamHead(MACHINE, { capabilities: ['mapped-ram'] }), ...Array(40).fill(early)))
  t.throws(() => readSnapshot(path), { code: 'ERR_MULTIFD_SNAPSHOT', message: /early|before/ })
})

t.test('a sparse file that says it has more RAM than any machine', async (t) => {
  for (const bits of [45, 50, 52]) {
    const size = 2 ** bits
    const head = [
      streamHead(MACHINE, { capabilities: ['mapped-ram'] }),
      ramIntroduction(),
      written((view, at) => encodeRamWord(view, at, size, RAM_FLAG.memSize)),
      written((view, at) => encodeRamSetupEntry(view, at, { idstr: 'pc.ram', usedLength: size })),
    ]
    const position = head.reduce((sum, { length }) => sum + length, 0)
    const place = layoutMappedRam(position, size, 4096)
    head.push(written((view, at) => encodeMappedRamHeader(view, at, { ...place, pageSize: 4096 })))
    writeFileSync(path, concatBytes(...head))
    try {
      truncateSync(path, place.end + 4096)
    } catch {
      t.comment(`no file of 2^${bits} bytes here`)
      continue
    }
    t.ok(statSync(path).size > size)
    const ms = took(() => t.throws(() => readSnapshot(path), { code: 'ERR_MULTIFD_SNAPSHOT' }, `2^${bits} bytes`))
    t.ok(ms < 5000, `in ${ms.toFixed(0)} ms`)
  }
})

t.test('a snapshot with more places that look like its end than can be by chance is answered soon', async (t) => {
  const small = [{ idstr: 'pc.ram', usedLength: 4096 }]
  const head = [
    streamHead(MACHINE, { capabilities: ['mapped-ram'] }),
    ramIntroduction(),
    written((view, at) => encodeRamWord(view, at, 4096, RAM_FLAG.memSize)),
    written((view, at) => encodeRamSetupEntry(view, at, small[0]!)),
  ]
  const place = layoutMappedRam(
    head.reduce((sum, { length }) => sum + length, 0),
    4096,
    4096,
  )
  head.push(written((view, at) => encodeMappedRamHeader(view, at, { ...place, pageSize: 4096 })))
  const gap = place.end - head.reduce((sum, { length }) => sum + length, 0)
  const footer = written((view, at) => encodeFooter(view, at, RAM_SECTION_ID))
  const marks = Buffer.alloc(13 * 200_000)
  for (let at = 0; at < marks.length; at += 13) {
    marks[at] = SECTION.footer
    marks[at + 6] = SECTION.vmdesc
    marks.writeUInt32BE(marks.length - at - 11, at + 7)
    marks.write('{"', at + 11)
  }
  const end = [eosWord(), footer, ramSection('end', [], 'per-section'), marks]
  writeFileSync(path, concatBytes(...head, new Uint8Array(gap), ...end))
  const ms = took(() => t.throws(() => readSnapshot(path), { code: 'ERR_MULTIFD_SNAPSHOT' }))
  t.ok(ms < 3000, `in ${ms.toFixed(0)} ms`)
})

t.test('a set-up list with more blocks than there may be', async (t) => {
  const blocks = Array.from({ length: 1025 }, (_, i) => ({ idstr: `block${i}`, size: 4096 }))
  const list = Buffer.concat([ramIntroduction(), ramList(blocks), eosWord()])
  t.equal(receive(streamHead(MACHINE), list).code, 'ERR_MULTIFD_PROTOCOL')
})
