// Fields of many values of one kind: arrays of fixed and of variable length.
//
//   array       its elements, one after the other
//   varArray    the same, with the count before it where it is a field
//
// Elements are described once, with their number, where each looks the same; one by one elsewhere, with their index.

import { argumentError, protocolError } from '../wire/bytes.js'
import { sizeOf } from './buffers.js'
import { deviceError, type LoadContext, type SaveContext, within } from './context.js'
import {
  type AnyValueField,
  type DescribedField,
  type Existence,
  elementOf,
  type Field,
  makeField,
  type NoOptions,
  property,
  type ReadBy,
  setProperty,
  type TestedBy,
  type UntypedField,
  type ValueField,
  type ValueType,
} from './field.js'
import { shown } from './integers.js'

/** Most elements of an array, unless it says otherwise. */
const DEFAULT_MAX_ELEMENTS = 65536
const MAX_ELEMENTS = 16 * 1024 * 1024

/** What an array's state may be: an array, a typed array. */
export interface MutableArrayLike<T> {
  readonly length: number
  [index: number]: T
}

/** An array's field: `S` is what its conditions read of the state. */
type ArrayField<K extends string, A, I, S> = Field<Record<K, MutableArrayLike<A>> & S, Record<K, I[]> & S>

/** `length` values, by name and key of `element`. Loaded in place where the state has that many already. */
export function array<K extends string, A, I, const O extends Existence = NoOptions>(
  element: ValueField<K, A, I>,
  length: number,
  existence?: O,
): ArrayField<K, A, I, TestedBy<O>> {
  if (!Number.isInteger(length) || length < 0 || length > MAX_ELEMENTS) {
    throw argumentError(`array '${element.name}' has ${shown(length)} elements, expected 0..${MAX_ELEMENTS}`)
  }
  const { name, key, value } = elementOf(element)
  const common = commonOf(element, existence ?? {})
  return makeField<UntypedField>({
    ...common,
    fixed: common.test === undefined && value.fixed,
    countName: undefined,
    save: (context, state, described) => {
      const values = elementsOf(property(state, key))
      if (values.length !== length) throw deviceError(`has ${values.length} elements, expected ${length}`)
      return saveElements(context, { name, value }, values, state, described)
    },
    load: (context, state) => {
      setProperty(state, key, loadElements(context, { name, value }, property(state, key), length, state))
    },
  })
}

/** Options of an array of variable length. */
export interface VarArrayOptions extends Existence {
  /** Most elements that are saved or loaded; default 65536. */
  max?: number
}

/**
 * As many values as there are.
 *
 * @param count a `u8`, `u16` or `u32` that is written before them, and is no property of the state; or a function that
 * tells it from the state, on both sides
 */
export function varArray<
  C extends AnyValueField | ((state: never) => number),
  K extends string,
  A,
  I,
  const O extends VarArrayOptions = NoOptions,
>(count: C, element: ValueField<K, A, I>, options?: O): ArrayField<K, A, I, ReadBy<C> & TestedBy<O>> {
  const { max = DEFAULT_MAX_ELEMENTS }: VarArrayOptions = options ?? {}
  if (!Number.isInteger(max) || max < 0 || max > MAX_ELEMENTS) {
    throw argumentError(`array '${element.name}' has at most ${shown(max)} elements, expected 0..${MAX_ELEMENTS}`)
  }
  const { name, key, value } = elementOf(element)
  const counted = typeof count === 'function' ? undefined : countOf(count, name)
  return makeField<UntypedField>({
    ...commonOf(element, options ?? {}),
    fixed: false,
    countName: counted?.name,
    save: (context, state, described) => {
      const values = elementsOf(property(state, key))
      if (values.length > max) throw deviceError(`has ${values.length} elements, expected at most ${max}`)
      if (counted === undefined) {
        const length = sizeOf(count as (state: never) => number, state, max, 'elements')
        if (values.length !== length) throw deviceError(`has ${values.length} elements, expected ${length}`)
        return saveElements(context, { name, value }, values, state, described)
      }
      const at = context.writer.length
      within(context, counted.name, () => counted.value.save(context, values.length, state))
      const size = context.writer.length - at
      const countEntry = { name: counted.name, type: counted.value.type, size }
      return [countEntry, ...saveElements(context, { name, value }, values, state, described)]
    },
    load: (context, state) => {
      const length =
        counted === undefined
          ? sizeOf(count as (state: never) => number, state, max, 'elements')
          : within(context, counted.name, () => counted.value.load(context, undefined, state) as number)
      if (length > max) throw protocolError(`has ${length} elements, expected at most ${max}`)
      setProperty(state, key, loadElements(context, { name, value }, property(state, key), length, state))
    },
  })
}

interface Element {
  name: string
  value: ValueType
}

function commonOf(element: AnyValueField, existence: Existence) {
  return {
    kind: 'array' as const,
    name: element.name,
    key: element.key,
    version: existence.version ?? 0,
    test: existence.test as UntypedField['test'],
    compressible: existence.test === undefined && element.value.compressible,
    nested: element.value.nested,
  }
}

function countOf(count: AnyValueField, of: string): AnyValueField {
  const { name, value } = elementOf(count)
  if (!['uint8', 'uint16', 'uint32'].includes(value.type)) {
    throw argumentError(`'${name}' is ${value.type}, which can not count '${of}': expected uint8, uint16 or uint32`)
  }
  return count
}

function elementsOf(value: unknown): MutableArrayLike<unknown> {
  if (!isArrayLike(value)) throw deviceError(`${shown(value)} is no array`)
  return value
}

/**
 * Writes elements. They are described once where each looks the same and none of them may come to look otherwise; one
 * by one elsewhere, with their index.
 */
function saveElements(
  context: SaveContext,
  { name, value }: Element,
  elements: MutableArrayLike<unknown>,
  state: unknown,
  described: string,
): DescribedField[] {
  const { length } = elements
  const entries: DescribedField[] = []
  const { path, writer } = context
  for (let i = 0; i < length; i++) {
    const at = writer.length
    path[path.length - 1] = `${name}[${i}]`
    const more = value.save(context, elements[i], state)
    if (i > 0 && value.fixed) continue
    entries.push({ name: described, type: value.type, ...more, size: writer.length - at })
  }
  path[path.length - 1] = name
  if (length < 2) return entries
  const once = value.fixed || (value.compressible && entries.every((entry) => sameJson(entry, entries[0]!)))
  return once
    ? [withMember(entries[0]!, { array_len: length })]
    : entries.map((entry, index) => withMember(entry, { index }))
}

function sameJson(a: DescribedField, b: DescribedField): boolean {
  return a.size === b.size && JSON.stringify(a) === JSON.stringify(b)
}

/** With the member where QEMU has it. */
function withMember({ name, ...rest }: DescribedField, member: { array_len: number } | { index: number }) {
  return { name, ...member, ...rest }
}

function loadElements(
  context: LoadContext,
  { name, value }: Element,
  current: unknown,
  length: number,
  state: unknown,
): MutableArrayLike<unknown> {
  const here = isArrayLike(current) ? current : []
  const inPlace = here.length === length
  // Pushed, not allocated ahead: what did not come takes no room.
  const elements: MutableArrayLike<unknown> = inPlace ? here : []
  const { path } = context
  for (let i = 0; i < length; i++) {
    path[path.length - 1] = `${name}[${i}]`
    const loaded = value.load(context, here[i], state)
    if (!inPlace) (elements as unknown[]).push(loaded)
    else if (!Object.is(elements[i], loaded)) elements[i] = loaded
  }
  path[path.length - 1] = name
  return elements
}

function isArrayLike(value: unknown): value is MutableArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))
}
