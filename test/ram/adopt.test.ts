// Memory of other code's, taken as it is: what can be, what is seen of it elsewhere, and what happens when it grows.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { MigrationDestination, MigrationSource, type MigrationStatistics, RamBlock } from '../../src/index.js'
import { addressOf, mapAnonymous, viewOf } from '../../src/os/memory.js'
import { noKernelLog as skip } from '../support/kernel.js'
import { leavesNothing, openDescriptors } from '../support/peers/index.js'
import { wasmProgram } from '../support/wasm.js'
import { PageWriter, stampOf } from './page-writer.js'

const PAGE = 4096
const MIB = 2 ** 20
const parameters = { multifdChannels: 2, downtimeLimit: 50 }

// The types of Node 20 leave it out.
declare const WebAssembly: {
  Memory: new (shape: {
    initial: number
    maximum: number
    shared: true
  }) => { buffer: SharedArrayBuffer; grow(pages: number): number }
}

t.test('memory that is no memory is refused by name', (t) => {
  const refused = (memory: unknown, message: RegExp): unknown =>
    t.throws(() => RamBlock.adopt({ idstr: 'heap', memory: memory as ArrayBuffer }), {
      code: 'ERR_MULTIFD_ARGUMENT',
      message,
    })
  refused(undefined, /adopt takes/)
  refused({ buffer: 'bytes' }, /adopt takes/)
  // One of them may begin on a page by chance.
  const several = Array.from({ length: 8 }, () => new SharedArrayBuffer(2 * PAGE))
  const between = several.find((buffer) => addressOf(new Uint8Array(buffer)) % PAGE !== 0)!
  refused(between, /'heap': the memory does not begin on a page/)
  refused(new Uint8Array(between), /does not begin on a page/)
  refused(new ArrayBuffer(0), /empty/)
  refused(new ArrayBuffer(5000), /not whole pages/)
  t.throws(() => RamBlock.adopt({ idstr: '', memory: wasmProgram(1).memory }), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.end()
})

t.test('what is not shared is the same memory in every thread, and is kept alive', async (t) => {
  const program = wasmProgram(16)
  const block = RamBlock.adopt({ idstr: 'heap', memory: program.memory })
  t.equal(block.dirtyLog, 'kernel')
  t.equal(block.size, MIB)
  t.equal(block.memory, undefined, 'it can not be handed to other threads')
  t.equal(block.fileBacked, false)
  program.store(5 * PAGE, 1234)
  t.equal(new DataView(block.bytes(5 * PAGE, 4).slice().buffer).getInt32(0, true), 1234)
  t.notOk(block.isZeroPage(5))
  t.ok(block.isZeroPage(6))
  await new PageWriter(block, { first: 8, count: 8, once: true }).ended()
  const words = new Int32Array(program.memory.buffer)
  for (let page = 8; page < 16; page++) t.equal(words[(page * PAGE) / 4], stampOf(page), 'written by another thread')
})

t.test('a buffer that begins on a page will do', (t) => {
  const mapping = mapAnonymous(MIB)
  const block = RamBlock.adopt({ idstr: 'heap', memory: viewOf(mapping.address, MIB), dirtyLog: 'explicit' })
  t.equal(block.address, mapping.address)
  t.equal(block.dirtyLog, 'explicit')
  t.end()
})

t.test('shared memory is handed to other threads, as a WebAssembly.Memory where it is one', async (t) => {
  const own = (): { buffer: SharedArrayBuffer } => new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true })
  const memory = own()
  const kinds = { memory, buffer: own().buffer, 'an object that has a buffer': { buffer: own().buffer } }
  for (const [kind, adopted] of Object.entries(kinds)) {
    const block = RamBlock.adopt({ idstr: 'heap', memory: adopted, dirtyLog: 'explicit' })
    const buffer = adopted instanceof SharedArrayBuffer ? adopted : adopted.buffer
    t.equal(block.memory, buffer, kind)
    t.equal(block.handle.memory, adopted === memory ? memory : undefined)
    t.equal(block.handle.keep, adopted === memory ? undefined : buffer)
    t.equal(block.fileBacked, false)
    block.bytes(5 * PAGE, 1)[0] = 1
    t.equal(block.zeroPages(0, 8), 0xff & ~(1 << 5), 'the page that is not zero')
    t.ok(block.hasZeroPage(0, 256))
    t.equal(RamBlock.from(block.handle).place(5 * PAGE, PAGE).bytes.buffer, buffer)
    await new PageWriter(block, { first: 8, count: 8, once: true }).ended()
    t.equal(new Int32Array(buffer)[(8 * PAGE) / 4], stampOf(8), 'written by another thread')
    const there = RamBlock.adopt({ idstr: 'heap', memory: own(), dirtyLog: 'explicit' })
    const destination = new MigrationDestination({ ram: [there], parameters })
    const source = new MigrationSource({ ram: [block], parameters })
    await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
    await destination.completed
    t.equal(Buffer.compare(there.bytes(), block.bytes()), 0, 'the same memory')
    await Promise.all([source.close(), destination.close()])
  }
})

t.test('memory that has grown is no longer the block', { skip }, async (t) => {
  const program = wasmProgram(16)
  const shared = new WebAssembly.Memory({ initial: 16, maximum: 64, shared: true })
  for (const memory of [program.memory, shared]) {
    const block = RamBlock.adopt({ idstr: 'heap', memory })
    t.doesNotThrow(() => block.checkSame())
    t.equal(memory.grow(1), 16)
    const expected = { code: 'ERR_MULTIFD_STATE', message: /'heap'.*1048576 bytes.*1114112.*must not grow/ }
    t.throws(() => block.checkSame(), expected)
    await t.rejects(new MigrationSource({ ram: [block] }).migrate('tcp:127.0.0.1:1'), expected)
    const again = RamBlock.adopt({ idstr: 'heap', memory })
    t.equal(again.size, MIB + 65536)
  }
})

/** Migrates a program's memory while `run` goes on with it; the destination's memory. */
async function migrate(
  memory: { readonly buffer: ArrayBufferLike },
  hooks: { stop?(): Promise<void> | void; resume?(): void; onPass?(pass: number): void },
): Promise<{ sent: MigrationStatistics; there: Uint8Array }> {
  const size = memory.buffer.byteLength
  const there = wasmProgram(size / 65536).memory
  const destination = new MigrationDestination({ ram: [RamBlock.adopt({ idstr: 'heap', memory: there })], parameters })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const source = new MigrationSource({ ram: [RamBlock.adopt({ idstr: 'heap', memory })], parameters })
  source.on('pass', ({ pass }) => hooks.onPass?.(pass))
  try {
    const sent = await source.migrate(uri, hooks)
    await destination.completed
    return { sent, there: new Uint8Array(there.buffer) }
  } finally {
    await destination.close()
  }
}

t.test('a WebAssembly program moves while it works, and marks nothing', { skip }, async (t) => {
  const before = openDescriptors()
  const program = wasmProgram(512)
  for (let page = 0; page < 8192; page += 2) program.store(page * PAGE, page)
  let count = 0
  const work = setInterval(() => {
    for (let at = 0; at < 50; at++) program.store(Math.floor(Math.random() * 8000) * PAGE + 64, ++count)
  }, 1)
  t.teardown(() => clearInterval(work))
  const { sent, there } = await migrate(program.memory, {
    async stop() {
      clearInterval(work)
      // After the last pass but one: only the log can tell.
      program.store(8100 * PAGE, 77)
      await delay(5)
    },
  })
  t.ok(count > 0)
  t.ok(sent.ram.normal + sent.ram.duplicate > 8192, 'pages that were written meanwhile went again')
  t.equal(Buffer.compare(there, new Uint8Array(program.memory.buffer)), 0, 'the same memory')
  await leavesNothing(t, before)
})

t.test('a program that stands still sends every page once', { skip }, async (t) => {
  const program = wasmProgram(64)
  program.store(0, 1)
  const { sent, there } = await migrate(program.memory, {})
  t.equal(sent.ram.normal + sent.ram.duplicate, 1024)
  t.equal(sent.ram.duplicate, 1023)
  t.equal(Buffer.compare(there, new Uint8Array(program.memory.buffer)), 0)
})

t.test('a memory that grows in mid-migration fails it by name, and the program goes on', { skip }, async (t) => {
  for (const when of ['pass', 'stop', 'stop without a hook'] as const) {
    const program = wasmProgram(64)
    program.store(0, 1)
    let resumed = 0
    const hooks =
      when === 'pass'
        ? { onPass: () => void program.grow(1), stop() {}, resume: () => void resumed++ }
        : when === 'stop'
          ? { stop: () => void program.grow(1), resume: () => void resumed++ }
          : { onPass: () => queueMicrotask(() => program.grow(1)) }
    await t.rejects(migrate(program.memory, hooks), { code: 'ERR_MULTIFD_STATE', message: /must not grow/ }, when)
    if (when === 'stop') t.equal(resumed, 1, 'told to go on')
    program.store(64 * 65536, 5)
    t.equal(program.memory.buffer.byteLength, 65 * 65536)
  }
})
