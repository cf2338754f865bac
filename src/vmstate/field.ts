// What a field is: a name, the condition of its existence, and how it is written, described and read.

import { argumentError, CSTR8_MAX } from '../wire/bytes.js'
import type { VmdescField, VmdescVmsd } from '../wire/vmdesc.js'
import type { LoadContext, SaveContext } from './context.js'
import type { Description } from './description.js'

declare const INFERRED: unique symbol

/** The mark that ends a field list. */
export interface EndOfList {
  readonly kind: 'end'
}

/**
 * Ends every list of fields. It is checked when a description is defined and again by each walk over it, so that a list
 * that was spliced, cut or appended to is found.
 */
export const END_OF_LIST: EndOfList = Object.freeze({ kind: 'end' })

/** A member of `fields` in the stream's JSON; a temporary structure's members stand in the field itself. */
export type DescribedField = VmdescField & Partial<VmdescVmsd>

/** When a field exists. Both must hold where both are given. */
export interface Existence<in S = never> {
  /** From this version of its description on; default 0, always. */
  version?: number
  /** Whether it exists in this state. The other side must come to the same answer before it reads the field. */
  test?: (state: S, version: number) => boolean
}

/** Options that every field with a value has. */
export interface FieldOptions<in S = never> extends Existence<S> {
  /** The property of the state, where it is not called as on the wire. */
  key?: string
}

/** No options: what stands for them where they are left out. */
export type NoOptions = Record<never, never>
/** The property that options name, or the field's own name. */
export type KeyOf<N extends string, O> = O extends { key: infer K extends string } ? K : N
/** What the test in options wants of the state. */
export type TestedBy<O> = O extends { test: infer T } ? ReadBy<T> : object
/** What a function of the state wants of it. */
export type ReadBy<T> = T extends (state: infer S extends object, ...rest: never[]) => unknown ? S : object

/**
 * One field of a description: made by the constructors, never by hand.
 * `A` is what the state must be for it, `I` what a state is when nobody says.
 */
export interface Field<in A, out I = unknown> {
  readonly kind: 'value' | 'array' | 'tmp' | 'unused' | 'validate'
  /** As in the stream's description. */
  readonly name: string
  /** The property of the state that it fills, if any. */
  readonly key: string | undefined
  readonly version: number
  readonly test: ((state: A, version: number) => boolean) | undefined
  /** Whether arrays of structures with it may be described once, as QEMU decides it. */
  readonly compressible: boolean
  /** Whether it always has the same size and looks the same in the description. */
  readonly fixed: boolean
  /** The description of the structure inside, for the structure check. */
  readonly nested: Description<never> | undefined
  /** The name of the count that an array brings along. */
  readonly countName: string | undefined
  /** Writes it; returns its members of the JSON, for `name` and any others it brings along. */
  readonly save: (context: SaveContext, state: A, name: string) => DescribedField[]
  readonly load: (context: LoadContext, state: A) => void
  readonly [INFERRED]?: I
}

/** A field with one value under one key: what arrays and pointers can be made of. */
export interface ValueField<K extends string, A, I = A, S extends object = object>
  extends Field<Record<K, A> & S, Record<K, I> & S> {
  readonly kind: 'value'
  readonly key: K
  readonly value: ValueType
}

/** A field of one value, whatever its key. */
export interface AnyValueField extends Field<never> {
  readonly kind: 'value'
  readonly key: string
  readonly value: ValueType
}

/** How one value is written and read. */
export interface ValueType {
  /** As in the stream's description. */
  readonly type: string
  readonly compressible: boolean
  readonly fixed: boolean
  readonly nested?: Description<never>
  /** Writes it; returns what its member of the JSON has besides name and size, where it is more than the type. */
  save(context: SaveContext, value: unknown, state: unknown): Partial<DescribedField> | undefined
  /** Reads one, into `current` where that can take it. */
  load(context: LoadContext, current: unknown, state: unknown): unknown
}

const fields = new WeakSet<object>()

/** Whether a constructor of ours made it. */
export function isField(value: unknown): value is Field<never> {
  return typeof value === 'object' && value !== null && fields.has(value)
}

/** Finishes a field: checks what all have in common, and freezes it. Throws ERR_MULTIFD_ARGUMENT. */
export function makeField<F extends Field<never>>(field: F): F {
  const { name, key, version, test } = field
  checkName(name, "a field's name")
  if (key !== undefined && (typeof key !== 'string' || key.length === 0)) {
    throw argumentError(`field '${name}' has an empty key`)
  }
  if (!Number.isInteger(version) || version < 0) {
    throw argumentError(`field '${name}' has version ${version}, expected a whole number from 0`)
  }
  if (test !== undefined && typeof test !== 'function') {
    throw argumentError(`field '${name}' has a test that is no function`)
  }
  fields.add(field)
  return Object.freeze(field)
}

/** Throws ERR_MULTIFD_ARGUMENT unless it is a text that the wire can carry. */
export function checkName(name: unknown, what: string): void {
  if (typeof name !== 'string') throw argumentError(`${what} is ${typeof name}, expected a text`)
  if (name.length === 0 || name.length > CSTR8_MAX) {
    throw argumentError(`${what} has ${name.length} bytes, expected 1..${CSTR8_MAX}`)
  }
  for (let i = 0; i < name.length; i++) {
    if (name.charCodeAt(i) > 0xff) throw argumentError(`${what} '${name}' has a character outside latin1`)
  }
}

/** A field whose types its constructor says: assignable to any. */
export type UntypedField = Field<unknown, never>
/** The same of one value under one key. */
export interface UntypedValueField extends UntypedField {
  readonly kind: 'value'
  readonly key: never
  readonly value: ValueType
}

/** Makes a field of one value under one key. */
export function valueField(name: string, value: ValueType, options: FieldOptions = {}): UntypedValueField {
  const key = options.key ?? name
  return makeField<UntypedValueField>({
    kind: 'value',
    name,
    key: key as never,
    version: options.version ?? 0,
    test: options.test as UntypedField['test'],
    compressible: options.test === undefined && value.compressible,
    fixed: options.test === undefined && value.fixed,
    nested: value.nested,
    countName: undefined,
    value,
    save: (context, state, described) => {
      const at = context.writer.length
      const more = value.save(context, property(state, key), state)
      return [{ name: described, type: value.type, ...more, size: context.writer.length - at }]
    },
    load: (context, state) => {
      setProperty(state, key, value.load(context, property(state, key), state))
    },
  })
}

/** A state's property. */
export function property(state: unknown, key: string): unknown {
  return (state as Record<string, unknown>)[key]
}

/** Sets a state's property, where it is another than before: one that was filled in place may be read-only. */
export function setProperty(state: unknown, key: string, value: unknown): void {
  if (!Object.is(property(state, key), value)) (state as Record<string, unknown>)[key] = value
}

/** What arrays and pointers take of the field inside: they have the conditions, not it. */
export function elementOf<F extends AnyValueField>(element: F): F {
  if (element?.kind !== 'value') throw argumentError(`'${element?.name}' is no field of one value`)
  if (element.test !== undefined || element.version !== 0) {
    throw argumentError(`'${element.name}' has a condition inside an array or pointer, expected it outside`)
  }
  return element
}
