// A VMState description: what of a device's state is carried, in which order, and since which version.

import { checkStructure } from './check.js'
import type { EndOfList, Field } from './field.js'

declare const INFERRED: unique symbol

/** Fields and the mark behind them. */
export type FieldList<A> = readonly [...Field<A>[], EndOfList]

/**
 * How one structure is carried. Made by {@link describe}. `A` is what a state must be for it; `I` what it is when
 * nobody says. Functions get the state itself, and are done when they return.
 */
export interface Description<in A, out I = unknown> {
  /** Its `vmsd_name` in the stream's description; of a device it is the idstr too, unless that is given. */
  readonly name: string
  /** What is written. */
  readonly versionId: number
  /** The oldest that can be read. */
  readonly minimumVersionId: number
  readonly fields: FieldList<A>
  /** Parts that are left out where `needed` says so. Their names begin with this description's name. */
  readonly subsections: readonly Description<A>[]
  /** Whether it is saved at all: of a subsection or a device. */
  readonly needed: ((state: A) => boolean) | undefined
  readonly preSave: ((state: A) => void) | undefined
  /** Called after fields and subsections, also when one of them failed. */
  readonly postSave: ((state: A) => void) | undefined
  readonly preLoad: ((state: A) => void) | undefined
  /** Called after fields and subsections; may throw when what came makes no sense. */
  readonly postLoad: ((state: A, version: number) => void) | undefined
  /** Devices with more come first in the stream. */
  readonly priority: number
  /** Saved before RAM: what the other side must know before pages come. */
  readonly early: boolean
  /** Says why the device can not be migrated; then nothing can be while it is there. */
  readonly unmigratable: string | undefined
  readonly [INFERRED]?: I
}

/** What {@link describe} takes. */
export interface DescriptionOptions<A, F extends readonly unknown[], B extends readonly unknown[]> {
  name: string
  /** Default 1. */
  versionId?: number
  /** Default: `versionId`, nothing older. */
  minimumVersionId?: number
  fields: F
  subsections?: B
  needed?: (state: A) => boolean
  preSave?: (state: A) => void
  postSave?: (state: A) => void
  preLoad?: (state: A) => void
  postLoad?: (state: A, version: number) => void
  /** Default 0. */
  priority?: number
  early?: boolean
  /** The reason. */
  unmigratable?: string
}

type Merge<T> = { [K in keyof T]: T[K] }
type Intersect<U> = (U extends unknown ? (part: U) => void : never) extends (part: infer R) => void ? R : never
/** `I` of each member: the mark behind the fields has none, and adds nothing. */
type Inferred<T> = T extends Field<never, infer I> | Description<never, infer I> ? I : object
type StateOfLists<F extends readonly unknown[], B extends readonly unknown[]> = Merge<
  Intersect<Inferred<F[number]> | Inferred<B[number]>>
>

/** The state that a description is for. */
export type StateOf<D extends Description<never>> = D extends Description<never, infer I> ? I : never

/**
 * Describes a structure, for a state type that its fields add up to.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT, naming the field: no END_OF_LIST at the end, names that are empty or
 * repeated, versions out of order, a subsection outside its parent's name
 */
export function describe<
  const F extends readonly [...Field<never>[], EndOfList],
  const B extends readonly Description<never>[] = readonly [],
>(options: DescriptionOptions<StateOfLists<F, B>, F, B>): Description<StateOfLists<F, B>, StateOfLists<F, B>>
/** Describes a structure for a state type of the program's: `describe<Uart>({ … })`. */
export function describe<S extends object>(
  options: DescriptionOptions<S, FieldList<S>, readonly Description<S>[]>,
): Description<S, S>
export function describe(
  options: DescriptionOptions<never, FieldList<never>, readonly Description<never>[]>,
): Description<never> {
  const { name, versionId = 1, minimumVersionId = versionId, fields, subsections = [] } = options
  const { needed, preSave, postSave, preLoad, postLoad, priority = 0, early = false, unmigratable } = options
  const description: Description<never> = {
    name,
    versionId,
    minimumVersionId,
    fields: Array.isArray(fields) ? (Object.freeze([...fields]) as unknown as FieldList<never>) : fields,
    subsections: Array.isArray(subsections) ? Object.freeze([...subsections]) : subsections,
    needed,
    preSave,
    postSave,
    preLoad,
    postLoad,
    priority,
    early,
    unmigratable,
  }
  checkStructure(description)
  return Object.freeze(description)
}
