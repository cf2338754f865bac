// What the types say: this file's worth is that it compiles, with an error wherever one is expected.

import t from 'tap'
import {
  array,
  bitmap,
  bool,
  buffer,
  type Description,
  describe,
  device,
  END_OF_LIST,
  i64,
  pointer,
  type StateOf,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  varArray,
} from '../../src/vmstate/index.js'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <_T extends true>() => true

const child = describe({ name: 'child', fields: [u8('x'), bool('on'), END_OF_LIST] })
const inferred = describe({
  name: 'all',
  versionId: 2,
  fields: [
    u32('count'),
    u64('big'),
    timer('expire', { as: 'number' }),
    i64('cpu_ticks', { key: 'cpuTicks' }),
    bool('on', { version: 2 }),
    buffer('data', 4),
    bitmap('plugged', { bits: 8 }),
    struct('child', child),
    array(u16('regs'), 4),
    varArray(u16('n'), struct('items', child)),
    pointer(struct('maybe', child)),
    unused(4),
    END_OF_LIST,
  ],
  subsections: [describe({ name: 'all/extra', fields: [u8('extra'), END_OF_LIST] })],
  needed: ({ count, extra }) => count > 0 && extra > 0,
  // @ts-expect-error: nobody said that the state has it
  preSave: ({ missing }) => missing,
})

interface Child {
  x: number
  on: boolean
}

t.test('the state is inferred from the fields', (t) => {
  same<
    Same<
      StateOf<typeof inferred>,
      {
        count: number
        big: bigint
        expire: number
        cpuTicks: bigint
        on: boolean
        data: Uint8Array
        plugged: Uint8Array
        child: Child
        regs: number[]
        items: Child[]
        maybe: Child | null
        extra: number
      }
    >
  >()
  t.equal(inferred.name, 'all')
  t.end()
})

t.test("a program's own state is checked against the fields", (t) => {
  class Machine {
    readonly regs = new Uint32Array(4)
    count = 0
    mode: 'slow' | 'fast' = 'slow'
    child: Child | null = null
    length = 0
  }
  const machine = describe<Machine>({
    name: 'machine',
    fields: [
      u32('count'),
      array(u32('regs'), 4),
      pointer(struct('child', child)),
      u8('label_length', { key: 'length', test: (state: Machine) => state.mode === 'fast' }),
      END_OF_LIST,
    ],
    postLoad: (state, version) => {
      state.count += version
      // @ts-expect-error: not a mode
      state.mode = 'warp'
    },
  })
  device(machine, new Machine())
  // @ts-expect-error: not a machine
  device(machine, { count: 0 })
  // @ts-expect-error: x is missing
  device(child, { on: true })
  const other: Description<{ count: bigint }> = describe({ name: 'o', fields: [u64('count'), END_OF_LIST] })
  // @ts-expect-error: a bigint where the field has a number
  describe<{ count: bigint }>({ name: 'p', fields: [u32('count'), END_OF_LIST] })
  // @ts-expect-error: the state has no such property
  describe<{ count: number }>({ name: 'p', fields: [u32('value'), END_OF_LIST] })
  // @ts-expect-error: a test of another state
  describe<{ a: number }>({ name: 'p', fields: [u8('a', { test: (state: Machine) => state.count > 0 }), END_OF_LIST] })
  t.ok(other)
  t.end()
})

t.test('the mark at the end is asked for by the types too', (t) => {
  // @ts-expect-error: no END_OF_LIST
  t.throws(() => describe({ name: 'p', fields: [u8('a')] }))
  // @ts-expect-error: something behind it
  t.throws(() => describe({ name: 'p', fields: [END_OF_LIST, u8('a')] }))
  t.end()
})
