// Writes a state as its description says, and the description of what was written.
//
//   fields            each that exists, one after the other, without a frame
//   subsections       each that is needed: 05, cstr8 name, be32 version, its fields, its own subsections
//
// Nested structures are framed neither: fields, then subsections, in the place of the field.

import { SECTION } from '../wire/stream.js'
import type { VmdescVmsd } from '../wire/vmdesc.js'
import { listedFields } from './check.js'
import { callHook, deviceError, type SaveContext, within } from './context.js'
import type { Description } from './description.js'
import type { DescribedField, Field } from './field.js'
import { shown } from './integers.js'

/**
 * Writes `state`; returns its part of the stream's description.
 *
 * Throws ERR_MULTIFD_DEVICE for values that do not fit and hooks that fail; ERR_MULTIFD_ARGUMENT for a field list
 * without its end. `context.path` says where.
 */
export function saveDescription(
  context: SaveContext,
  description: Description<never>,
  state: object,
  version = description.versionId,
): VmdescVmsd {
  const own = state as never
  const { name, preSave, postSave, subsections } = description
  if (preSave !== undefined) callHook(`preSave of '${name}'`, () => preSave(own))
  let saved: VmdescVmsd
  try {
    saved = { vmsd_name: name, version, fields: saveFields(context, description, own, version) }
    const described = subsections.flatMap((subsection) => saveSubsection(context, subsection, state))
    if (described.length > 0) saved.subsections = described
  } catch (error) {
    // What went wrong first is told; what the hook says then is a consequence.
    if (postSave !== undefined) ignoreErrors(() => postSave(own))
    throw error
  }
  if (postSave !== undefined) callHook(`postSave of '${name}'`, () => postSave(own))
  return saved
}

function saveFields(
  context: SaveContext,
  description: Description<never>,
  state: never,
  version: number,
): DescribedField[] {
  const fields = listedFields(description)
  const names = describedNames(fields)
  return fields.flatMap((field, i) => {
    if (!fieldExists(field, state, version)) return []
    return within(context, field.name, () => field.save(context, state, names[i]!))
  })
}

/** Names as the stream's description has them: one that occurs more than once is numbered. */
function describedNames(fields: readonly Field<never>[]): string[] {
  const total = new Map<string, number>()
  for (const { name } of fields) total.set(name, (total.get(name) ?? 0) + 1)
  const seen = new Map<string, number>()
  return fields.map(({ name }) => {
    if (total.get(name) === 1) return name
    const number = seen.get(name) ?? 0
    seen.set(name, number + 1)
    return `${name}[${number}]`
  })
}

/** Whether a field is there, in a state of that version. */
export function fieldExists({ name, version: since, test }: Field<never>, state: never, version: number): boolean {
  if (since > version) return false
  if (test === undefined) return true
  return asBoolean(
    callHook(`test of '${name}'`, () => test(state, version)),
    `test of '${name}'`,
  )
}

function saveSubsection(context: SaveContext, subsection: Description<never>, state: object): VmdescVmsd[] {
  if (!isNeeded(subsection, state)) return []
  return within(context, subsection.name, () => {
    context.writer.u8(SECTION.subsection)
    context.writer.cstr8(subsection.name)
    context.writer.u32(subsection.versionId)
    return [saveDescription(context, subsection, state)]
  })
}

/** Whether a subsection, or a device, is saved in this state. */
export function isNeeded({ name, needed }: Description<never>, state: object): boolean {
  if (needed === undefined) return true
  return asBoolean(
    callHook(`needed of '${name}'`, () => needed(state as never)),
    `needed of '${name}'`,
  )
}

function asBoolean(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw deviceError(`${what} says ${shown(value)}, expected true or false`)
  return value
}

function ignoreErrors(hook: () => unknown): void {
  try {
    callHook('postSave', hook)
  } catch {}
}
