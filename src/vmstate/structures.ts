// Fields made of others: structures, pointers, temporary structures; and checks between them.
//
//   struct      its fields, then its subsections
//   pointer     30 where it is null; else 31 and the value, or the value alone where it is not marked
//   tmp         the fields of the temporary structure

import { argumentError, hex, protocolError } from '../wire/bytes.js'
import { listedFields } from './check.js'
import { callHook, deviceError } from './context.js'
import type { Description } from './description.js'
import {
  type Existence,
  elementOf,
  type Field,
  type FieldOptions,
  type KeyOf,
  makeField,
  type NoOptions,
  type TestedBy,
  type ValueField,
  type ValueType,
  valueField,
} from './field.js'
import { shown } from './integers.js'
import { loadDescription } from './load.js'
import { saveDescription } from './save.js'

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

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
