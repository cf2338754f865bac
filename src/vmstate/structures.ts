// Fields made of others: structures, arrays of fixed and of variable length, pointers, temporary structures; and checks.
//
//   struct      its fields, then its subsections
//   array       its elements, one after the other
//   varArray    the same, with the count before it where it is a field
//   pointer     30 where it is null; else 31 and the value, or the value alone where it is not marked
//   tmp         the fields of the temporary structure

import { argumentError, hex, protocolError } from '../wire/bytes.js'
import { sizeOf } from './buffers.js'
import { listedFields } from './check.js'
import { callHook, deviceError, type LoadContext, type SaveContext, within } from './context.js'
import type { Description } from './description.js'
import {
  type DescribedField,
  type Existence,
  type Field,
  type FieldOptions,
  type KeyOf,
  makeField,
  type NoOptions,
  property,
  type ReadBy,
  setProperty,
  type TestedBy,
  type UntypedField,
  type ValueField,
  type ValueType,
  valueField,
} from './field.js'
import { shown } from './integers.js'
import { loadDescription } from './load.js'
import { saveDescription } from './save.js'

/** Most elements of an array, unless it says otherwise. */
const DEFAULT_MAX_ELEMENTS = 65536
const MAX_ELEMENTS = 16 * 1024 * 1024
const NULL_MARK = 0x30
const VALUE_MARK = 0x31

/** Options of a structure. */
export interface StructOptions extends FieldOptions {
  /** Makes what is loaded into where the state has nothing yet; default `{}`. */
  create?: () => object
  /** The version of the structure inside this one, where it is not its own. */
  structVersion?: number
}

/** A structure with a description of its own. It is loaded into the object that the state has. */
export function struct<
  N extends string,
  A extends object,
  I extends object,
  const O extends StructOptions & { create?: () => I } = NoOptions,
>(name: N, description: Description<A, I>, options?: O): ValueField<KeyOf<N, O>, A, I, TestedBy<O>> {
  const inner = description as unknown as Description<never>
  if (typeof inner !== 'object' || inner === null) throw argumentError(`struct '${name}' has no description`)
  const { create, structVersion }: StructOptions = options ?? {}
  const fields = listedFields(inner)
  const compressible = inner.subsections.length === 0 && fields.every((field) => field.compressible)
  const value: ValueType = {
    type: structVersion === undefined ? 'struct' : 'vstruct',
    compressible,
    fixed: compressible && fields.every((field) => field.fixed),
    nested: inner,
    save(context, state) {
      if (!isObject(state)) throw deviceError(`${shown(state)} is no object`)
      return { struct: saveDescription(context, inner, state, structVersion) }
    },
    load(context, current) {
      const state = isObject(current) ? current : (create?.() ?? {})
      loadDescription(context, inner, state, structVersion)
      return state
    },
  }
  return valueField(name, value, options)
}

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

/** A field of one value, whatever its key. */
interface AnyValueField extends Field<never> {
  readonly kind: 'value'
  readonly key: string
  readonly value: ValueType
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

/** Options of a pointer. */
export interface PointerOptions extends Existence {
  /**
   * Whether a byte says that there is a value. Without (QEMU's arrays of pointers), only null has one, and the loading
   * side must have null in the same places. Default true.
   */
  marked?: boolean
}

/** A value that may be null; name and key are those of `target`. */
export function pointer<K extends string, A, I, const O extends PointerOptions = NoOptions>(
  target: ValueField<K, A, I>,
  options?: O,
): ValueField<K, A | null, I | null, TestedBy<O>> {
  const { name, key, value } = elementOf(target)
  const { marked = true }: PointerOptions = options ?? {}
  const type: ValueType = {
    type: marked ? 'pointer' : value.type,
    compressible: value.compressible,
    fixed: false,
    ...(value.nested === undefined ? {} : { nested: value.nested }),
    save(context, pointed, state) {
      if (pointed === null || pointed === undefined) {
        context.writer.u8(NULL_MARK)
        return { type: 'nullptr' }
      }
      if (marked) context.writer.u8(VALUE_MARK)
      return value.save(context, pointed, state)
    },
    load(context, current, state) {
      const here = current === null || current === undefined
      if (!marked && !here) return value.load(context, current, state)
      const mark = context.reader.u8()
      if (mark === NULL_MARK) return null
      if (marked && mark === VALUE_MARK) return value.load(context, current, state)
      const expected = marked ? `${hex(NULL_MARK)} or ${hex(VALUE_MARK)}` : `${hex(NULL_MARK)}, null as here`
      throw protocolError(`pointer's mark is ${hex(mark)}, expected ${expected}`)
    },
  }
  return valueField(name, type, { ...options, key })
}

/** Options of a temporary structure. */
export interface TmpOptions<P extends object, T extends object> extends Existence<P> {
  /** Makes it, on either side; a reference to `parent` in it lets its own hooks read and write the state. */
  create: (parent: P) => T
  /** Default `tmp`. */
  name?: string
}

/**
 * What is carried in another form than the state has it: a structure that is there while it is saved or loaded. Its
 * `preSave` fills it from the parent, its `postLoad` brings it back there, or compares.
 */
export function withTmp<P extends object, T extends object>(
  description: Description<T>,
  options: TmpOptions<P, T>,
): Field<P, P> {
  const inner = description as unknown as Description<never>
  const { create, name = 'tmp', version = 0, test } = options
  const make = (parent: object) => {
    const tmp = callHook(`create of '${name}'`, () => create(parent as P))
    if (!isObject(tmp)) throw deviceError(`create of '${name}' gave ${shown(tmp)}, expected an object`)
    return tmp
  }
  if (typeof create !== 'function') throw argumentError(`field '${name}' has create that is no function`)
  return makeField<Field<P, P>>({
    kind: 'tmp',
    name,
    key: undefined,
    version,
    test,
    compressible: test === undefined,
    fixed: false,
    nested: inner,
    countName: undefined,
    save: (context, parent, described) => {
      const at = context.writer.length
      const vmsd = saveDescription(context, inner, make(parent))
      return [{ name: described, type: 'tmp', ...vmsd, size: context.writer.length - at }]
    },
    load: (context, parent) => loadDescription(context, inner, make(parent)),
  })
}

/** No field, but a check in the middle of them, on both sides: throws ERR_MULTIFD_DEVICE where `holds` says false. */
export function validate<S extends object>(name: string, holds: (state: S) => boolean): Field<S, S> {
  if (typeof holds !== 'function') throw argumentError(`check '${name}' is no function`)
  const check = (state: S) => {
    if (callHook(`check '${name}'`, () => holds(state)) !== true) throw deviceError(`check '${name}' does not hold`)
  }
  return makeField<Field<S, S>>({
    kind: 'validate',
    name,
    key: undefined,
    version: 0,
    test: undefined,
    compressible: true,
    fixed: true,
    nested: undefined,
    countName: undefined,
    save: (_context, state) => {
      check(state)
      return []
    },
    load: (_context, state) => check(state),
  })
}

interface Element {
  name: string
  value: ValueType
}

/** What arrays and pointers take of the field inside: they have the conditions, not it. */
function elementOf<F extends AnyValueField>(element: F): F {
  if (element?.kind !== 'value') throw argumentError(`'${element?.name}' is no field of one value`)
  if (element.test !== undefined || element.version !== 0) {
    throw argumentError(`'${element.name}' has a condition inside an array or pointer, expected it outside`)
  }
  return element
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

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
