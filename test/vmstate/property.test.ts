// Random descriptions with random states: what is saved is loaded again; what is cut off or changed is never a crash.

import { deepStrictEqual, equal, match, ok } from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { MultifdError } from '../../src/errors.js'
import { DeviceSet, DeviceStateLoader, device } from '../../src/vmstate/index.js'
import { LookAheadReader } from '../../src/vmstate/look-ahead.js'
import { packValue, unpackValue } from '../../src/vmstate/msgpack.js'
import { MemoryReader } from '../../src/wire/reader.js'
import { locateStreamEnd } from '../../src/wire/stream-end.js'
import { walkDeviceSections } from '../../src/wire/vmdesc.js'
import { loadDevices, saveDevices, sectionOf } from './helpers.js'
import { type Sample, sample } from './samples.js'

const runs = { numRuns: 300 }

function saved({ description, state }: Sample) {
  return saveDevices([device(description, state)])
}

function load({ description }: Sample, section: Uint8Array): object {
  const state = {}
  loadDevices([device(description, state)], { full: section })
  return state
}

/** What an action throws, which must be an error of ours, in a line that says where. */
function failure(action: () => unknown): MultifdError | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    ok(error instanceof MultifdError, `not an error of ours: ${(error as Error)?.stack}`)
    match(error.message, /^(section '|the source has sent no section '|a device section's header: )[^\n]*$/)
    return error
  }
}

t.test('what is saved is loaded again, into an empty state and into one that has it', (t) => {
  fc.assert(
    fc.property(sample(2), (sample) => {
      const { full } = saved(sample)
      const state = load(sample, full)
      deepStrictEqual(state, sample.state)
      loadDevices([device(sample.description, state)], { full })
      deepStrictEqual(state, sample.state)
      deepStrictEqual(saveDevices([device(sample.description, state)]).full, full)
    }),
    runs,
  )
  t.end()
})

t.test('the description gives the size of what was saved', (t) => {
  fc.assert(
    fc.property(sample(2), (sample) => {
      const { full, vmdesc } = saved(sample)
      const json = new TextEncoder().encode(JSON.stringify(vmdesc))
      const tail = Uint8Array.from([...full, 0, 6, 0, json.length >> 16, json.length >> 8, json.length, ...json])
      equal(walkDeviceSections(tail, locateStreamEnd(tail).vmdesc!).length, 1)
    }),
    runs,
  )
  t.end()
})

t.test('every truncation fails by name', (t) => {
  fc.assert(
    fc.property(sample(1), (sample) => {
      const { full } = saved(sample)
      const header = 1 + 4 + 4 + 4 + 4
      for (let length = header; length < full.length; length++) {
        const error = failure(() => load(sample, full.slice(0, length)))
        equal(error?.code, 'ERR_MULTIFD_TRUNCATED', `at ${length} of ${full.length}`)
        match(error!.message, /^section 'dev' 0[,:]/)
      }
    }),
    { numRuns: 100 },
  )
  t.end()
})

t.test('every section that was changed is loaded, or refused with a code', (t) => {
  const codes = new Map<string, number>()
  const change = fc.tuple(fc.nat(0xffff), fc.nat(255))
  fc.assert(
    fc.property(sample(2), fc.array(change, { minLength: 1, maxLength: 4 }), (sample, changes) => {
      const { full } = saved(sample)
      // Mostly in the payload: what is wrong with a header is soon found.
      for (const [place, byte] of changes) full[(place % 50 === 0 ? place : 17 + place) % full.length] = byte
      const code = failure(() => load(sample, full))?.code ?? 'loaded'
      codes.set(code, (codes.get(code) ?? 0) + 1)
    }),
    { numRuns: 2000 },
  )
  for (const code of ['loaded', 'ERR_MULTIFD_PROTOCOL', 'ERR_MULTIFD_DEVICE', 'ERR_MULTIFD_TRUNCATED']) {
    t.ok(codes.get(code), `${code}: ${codes.get(code)}`)
  }
  t.end()
})

t.test('random bytes are never a crash', (t) => {
  fc.assert(
    fc.property(sample(2), fc.uint8Array({ maxLength: 200 }), (sample, bytes) => {
      failure(() => load(sample, sectionOf('dev', 1, bytes)))
    }),
    { numRuns: 1000 },
  )
  t.end()
})

t.test('a reader that looks ahead reads what is there, however far it looked', (t) => {
  const step = fc.oneof(
    fc.record({ read: fc.constantFrom('u8', 'u16', 'u32', 'bytes', 'cstr8', 'peek' as const), n: fc.nat(9) }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 60, maxLength: 60 }), fc.array(step, { maxLength: 20 }), (bytes, steps) => {
      bytes = bytes.map((byte) => byte & 7)
      const naive = new MemoryReader(bytes)
      const reader = new LookAheadReader(new MemoryReader(bytes))
      const all = Array.from(bytes)
      for (const { read, n } of steps) {
        if (naive.remaining < 12) break
        equal(reader.peekAt(n), all[naive.position + n] ?? -1)
        equal(reader.position, naive.position)
        if (read === 'peek') equal(reader.peekU8(), naive.peekU8())
        else if (read === 'bytes') deepStrictEqual(reader.bytes(n), naive.bytes(n))
        else equal(reader[read](), naive[read]())
      }
    }),
    runs,
  )
  t.end()
})

t.test('plain values come through msgpack as they are', (t) => {
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(null, undefined, true, false),
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.integer(),
      fc.double({ noNaN: true }).map((value) => value + 0),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
      fc.uint8Array({ maxLength: 300 }),
      fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(2 ** 42) }),
      fc.array(tie('tree'), { maxLength: 20 }),
      fc.dictionary(
        fc.string().filter((key) => key !== '__proto__'),
        tie('tree'),
        { maxKeys: 20, noNullPrototype: true },
      ),
    ),
  }))
  fc.assert(
    fc.property(tree, (value) => deepStrictEqual(unpackValue(packValue(value, 2 ** 24)), value)),
    runs,
  )
  t.end()
})

t.test('msgpack that was changed is unpacked, or refused', (t) => {
  const value = { a: [1, 'two', { three: new Uint8Array(3) }], b: new Date(5), c: 4n, d: undefined }
  const packed = packValue(value, 2 ** 20).slice()
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(packed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      (changes) => {
        const bytes = packed.slice()
        for (const [at, byte] of changes) bytes[at] = byte
        try {
          unpackValue(bytes)
        } catch (error) {
          ok(error instanceof MultifdError && error.code === 'ERR_MULTIFD_PROTOCOL', `${(error as Error).stack}`)
        }
      },
    ),
    { numRuns: 5000 },
  )
  t.end()
})

t.test('a section of another source that is nothing of ours ends at its name', (t) => {
  const loader = new DeviceStateLoader(new DeviceSet([]))
  const reader = new MemoryReader(sectionOf('x', 1, new Uint8Array(3)))
  t.equal(failure(() => loader.loadSections(reader, 'full'))?.code, 'ERR_MULTIFD_DEVICE')
  t.equal(reader.position, 1 + 4 + 2 + 4 + 4)
  t.end()
})
