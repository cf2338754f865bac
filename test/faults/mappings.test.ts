// The walk's eyes for mappings: what is left is told, each kind by what really leaves it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { RamBlock } from '../../src/index.js'
import { WriteTracker } from '../../src/ram/write-tracker.js'
import { makeSharedMemory, type SharedMemory } from '../../src/wasm/kernel.js'
import { noWriteTracker } from '../support/kernel.js'
import { mappingsLeft, ownMappings, sharedMemory, sharedMemoryLeft } from '../support/peers/index.js'

const MIB = 2 ** 20

// First: of what was made before, some may be garbage by now.
t.test('shared memory', async (t) => {
  const before = sharedMemory()
  const kept: SharedMemory[] = [makeSharedMemory(MIB)]
  t.ok(sharedMemory() > before)
  t.match(await sharedMemoryLeft(before), [/^shared memory, \d+ bytes of address space$/])
  kept.length = 0
  t.strictSame(await sharedMemoryLeft(before), [])
})

t.test('a file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-mappings-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'heap')
  const before = ownMappings()
  const blocks = [0, 1].map((at) => RamBlock.mapFile({ idstr: `block${at}`, path, offset: at * MIB, size: MIB }))
  // Mappings beside each other can be one.
  t.match(mappingsLeft(before)[0], path)
  blocks[0]!.close()
  t.strictSame(mappingsLeft(before), [`${path} (${MIB} bytes)`], 'one of two of the same file')
  blocks[1]!.close()
  t.strictSame(mappingsLeft(before), [])
})

t.test('memory whose writes are held up', { skip: noWriteTracker }, async (t) => {
  const block = RamBlock.allocate({ idstr: 'heap', size: MIB })
  const before = ownMappings()
  const tracker = new WriteTracker()
  tracker.start([block])
  t.strictSame(mappingsLeft(before), [`${MIB} bytes under a userfaultfd`])
  tracker.stop()
  t.strictSame(mappingsLeft(before), [])
})
