// Random descriptions, each with a state for it.

import fc from 'fast-check'
import {
  array,
  bitmap,
  bool,
  buffer,
  type Description,
  describe,
  END_OF_LIST,
  type Field,
  i8,
  i16,
  i32,
  i64,
  pointer,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  type ValueField,
  varArray,
} from '../../src/vmstate/index.js'

export type State = Record<string, unknown>

export interface Sample {
  description: Description<object, object>
  /** What is saved, and what an empty state is after loading: subsections that are not needed are not in it. */
  state: State
}

type AnyField = ValueField<string, never, unknown>

/** A field under any name, and values for it. */
interface Kind {
  make(name: string): AnyField
  value: fc.Arbitrary<unknown>
}

const any = (field: unknown) => field as AnyField
const i64s = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const kinds: Kind[] = [
  { make: (name) => any(u8(name)), value: fc.nat(255) },
  { make: (name) => any(u16(name)), value: fc.nat(65535) },
  { make: (name) => any(u32(name)), value: fc.nat(2 ** 32 - 1) },
  { make: (name) => any(u64(name)), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) },
  { make: (name) => any(u64(name, { as: 'number' })), value: fc.maxSafeNat() },
  { make: (name) => any(i8(name)), value: fc.integer({ min: -128, max: 127 }) },
  { make: (name) => any(i16(name)), value: fc.integer({ min: -32768, max: 32767 }) },
  { make: (name) => any(i32(name)), value: fc.integer() },
  { make: (name) => any(i64(name)), value: i64s },
  { make: (name) => any(i64(name, { as: 'number' })), value: fc.maxSafeInteger() },
  { make: (name) => any(timer(name)), value: fc.oneof(fc.constant(-1n), i64s) },
  { make: (name) => any(bool(name)), value: fc.boolean() },
  { make: (name) => any(buffer(name, 5)), value: fc.uint8Array({ minLength: 5, maxLength: 5 }) },
  {
    make: (name) => any(bitmap(name, { bits: 67 })),
    value: fc
      .uint8Array({ minLength: 9, maxLength: 9 })
      .map((bytes) => bytes.map((byte, i) => (i === 8 ? byte & 7 : byte))),
  },
]

/** A kind with one value of it. */
function element(depth: number): fc.Arbitrary<{ kind: Kind; value: unknown }> {
  const plain = fc.constantFrom(...kinds).chain((kind) => kind.value.map((value) => ({ kind, value })))
  if (depth === 0) return plain
  const nested = sample(depth - 1, `in${depth}`, 'g', true).map(({ description, state }) => {
    const kind = { make: (name: string) => any(struct(name, description)), value: fc.constant<unknown>(state) }
    return { kind, value: state as unknown }
  })
  const pointed = fc.tuple(fc.oneof(plain, nested), fc.boolean()).map(([{ kind, value }, isNull]) => {
    const target = { make: (name: string) => any(pointer(kind.make(name))), value: kind.value }
    return { kind: target, value: isNull ? null : value }
  })
  return fc.oneof({ weight: 4, arbitrary: plain }, { weight: 1, arbitrary: nested }, { weight: 1, arbitrary: pointed })
}

interface Part {
  make(name: string): Field<never>
  /** Absent where the field has none. */
  value?: unknown
}

function part(depth: number): fc.Arbitrary<Part> {
  const single = element(depth).map(({ kind, value }): Part => ({ make: kind.make, value }))
  const several = fc.tuple(element(depth), fc.nat(3), fc.boolean()).chain(([{ kind, value }, more, varying]) =>
    fc.array(kind.value, { minLength: more, maxLength: more }).map(
      (others): Part => ({
        make: (name) =>
          (varying
            ? varArray(u16(`${name}_count`), kind.make(name))
            : array(kind.make(name), more + 1)) as Field<never>,
        value: [value, ...others],
      }),
    ),
  )
  const none: fc.Arbitrary<Part> = fc.constant({
    make: (name) => varArray(u8(`${name}_count`), u8(name)) as Field<never>,
    value: [],
  })
  const gap = fc.nat(3).map((size): Part => ({ make: () => unused(size) as Field<never> }))
  return fc.oneof(
    { weight: 6, arbitrary: single },
    { weight: 4, arbitrary: several },
    { weight: 1, arbitrary: none },
    { weight: 1, arbitrary: gap },
  )
}

/**
 * Descriptions of structures in structures, `depth` deep; properties begin with `prefix`.
 *
 * @param led whether the first field is a byte that begins no subsection: where two structures lie side by side, the
 * format can not tell whose subsection comes next
 */
export function sample(depth: number, name = 'dev', prefix = 'f', led = false): fc.Arbitrary<Sample> {
  const below = ['a', 'b'].map((letter) =>
    depth === 0
      ? fc.constant(null)
      : fc.option(fc.tuple(sample(depth - 1, `${name}/${letter}`, prefix + letter), fc.boolean())),
  )
  return fc.tuple(fc.array(part(depth), { maxLength: 4 }), fc.tuple(...below)).map(([parts, below]) => {
    const state: State = {}
    if (led) parts = [{ make: (name) => u8(name) as Field<never>, value: 0xee }, ...parts]
    const fields = parts.map(({ make, value }, i) => {
      if (value !== undefined) state[`${prefix}${i}`] = value
      return make(`${prefix}${i}`)
    })
    const subsections = below.flatMap((sub) => {
      if (sub === null) return []
      const [{ description, state: more }, needed] = sub
      if (needed) Object.assign(state, more)
      const { name, fields, subsections } = description
      return [describe({ name, fields, subsections, needed: () => needed } as never)]
    })
    const description = describe({ name, fields: [...fields, END_OF_LIST], subsections } as never)
    return { description: description as unknown as Description<object, object>, state }
  })
}
