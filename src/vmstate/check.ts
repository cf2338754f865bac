// The structure check: what can be said of a description without a state. Made when one is defined, and of every
// description again when its device is registered.

import type { MultifdError } from '../errors.js'
import { argumentError } from '../wire/bytes.js'
import type { Description } from './description.js'
import { checkName, END_OF_LIST, type Field, isField } from './field.js'

/** Structures and subsections may nest this deep: as deep as a stream's description is read. */
const MAX_DEPTH = 64
const MAX_VERSION = 0xffff_ffff

/**
 * Walks a description, the structures in it and its subsections.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT, naming the place
 */
export function checkStructure(description: Description<never>): void {
  checkDescription(description, [], 0)
}

function checkDescription(description: Description<never>, parents: readonly string[], depth: number): void {
  if (typeof description !== 'object' || description === null) {
    throw wrong(parents, `has ${description === null ? 'null' : typeof description}, expected a description`)
  }
  checkName(
    description.name,
    parents.length === 0 ? "a description's name" : `name of a part of '${parents.join('.')}'`,
  )
  const path = [...parents, description.name]
  if (depth > MAX_DEPTH) throw wrong(path.slice(0, 3), `is nested more than ${MAX_DEPTH} deep`)
  checkVersions(description, path)
  checkFunctions(description, path)
  checkFields(description, path, depth)
  checkSubsections(description, path, depth)
}

function checkVersions({ versionId, minimumVersionId }: Description<never>, path: readonly string[]): void {
  for (const version of [versionId, minimumVersionId]) {
    if (!Number.isInteger(version) || version < 0 || version > MAX_VERSION) {
      throw wrong(path, `has version ${version}, expected 0..2^32 - 1`)
    }
  }
  if (minimumVersionId > versionId) {
    throw wrong(path, `reads versions from ${minimumVersionId} on and writes ${versionId}`)
  }
}

function checkFunctions(description: Description<never>, path: readonly string[]): void {
  for (const name of ['needed', 'preSave', 'postSave', 'preLoad', 'postLoad'] as const) {
    const hook = description[name]
    if (hook !== undefined && typeof hook !== 'function') throw wrong(path, `has ${name} that is no function`)
  }
  const { priority, early, unmigratable } = description
  if (!Number.isFinite(priority)) throw wrong(path, `has priority ${priority}, expected a number`)
  if (typeof early !== 'boolean') throw wrong(path, 'has early that is neither true nor false')
  if (unmigratable !== undefined && (typeof unmigratable !== 'string' || unmigratable.length === 0)) {
    throw wrong(path, 'is unmigratable without a reason')
  }
}

/** The fields of a list, without the mark behind them. Throws ERR_MULTIFD_ARGUMENT where the list does not end in it. */
export function listedFields(
  { name, fields }: Description<never>,
  path: readonly string[] = [name],
): readonly Field<never>[] {
  if (!Array.isArray(fields) || fields.at(-1) !== END_OF_LIST) {
    throw wrong(path, 'has fields that do not end in END_OF_LIST')
  }
  return fields.slice(0, -1) as Field<never>[]
}

function checkFields(description: Description<never>, path: readonly string[], depth: number): void {
  const fields = listedFields(description, path)
  const end = (fields as readonly unknown[]).indexOf(END_OF_LIST)
  if (end !== -1) throw wrong(path, `has fields behind END_OF_LIST, which is number ${end}`)
  fields.forEach((field, i) => {
    if (!isField(field)) throw wrong(path, `has something at ${i} that no field constructor made`)
    if (field.version > description.versionId) {
      throw wrong(
        path,
        `has field '${field.name}' from version ${field.version} on, and writes ${description.versionId}`,
      )
    }
    if (field.nested !== undefined) checkDescription(field.nested, [...path, field.name], depth + 1)
  })
  checkFieldNames(fields, path)
}

/** Fields of one name are told apart by their conditions only: alternatives of one another. */
function checkFieldNames(fields: readonly Field<never>[], path: readonly string[]): void {
  const names = new Map<string, Field<never>>()
  const keys = new Map<string, Field<never>>()
  for (const field of fields) {
    if (field.kind === 'unused' || field.kind === 'validate') continue
    for (const name of field.countName === undefined ? [field.name] : [field.countName, field.name]) {
      checkRepeated(names, name, field, `field '${name}'`, path)
    }
    if (field.key !== undefined) checkRepeated(keys, field.key, field, `a field for '${field.key}'`, path)
  }
}

function checkRepeated(
  seen: Map<string, Field<never>>,
  name: string,
  field: Field<never>,
  what: string,
  path: readonly string[],
): void {
  const other = seen.get(name)
  if (other !== undefined && (other.test === undefined || field.test === undefined)) {
    throw wrong(path, `has ${what} twice, and not each with a test`)
  }
  seen.set(name, field)
}

function checkSubsections({ name, subsections }: Description<never>, path: readonly string[], depth: number): void {
  if (!Array.isArray(subsections)) throw wrong(path, 'has subsections that are no array')
  const names: string[] = []
  for (const subsection of subsections as Description<never>[]) {
    checkDescription(subsection, path, depth + 1)
    const own = subsection.name
    if (own.length <= name.length || !own.startsWith(name)) {
      throw wrong(path, `has subsection '${own}', whose name does not begin with '${name}'`)
    }
    if (names.includes(own)) throw wrong(path, `has subsection '${own}' twice`)
    // Behind the shorter one, the longer one would be taken for a subsection of it.
    const taken = names.find((other) => own.startsWith(other) || other.startsWith(own))
    if (taken !== undefined)
      throw wrong(path, `has subsections '${taken}' and '${own}', one name begins with the other`)
    for (const only of ['early', 'unmigratable', 'priority'] as const) {
      if (subsection[only]) throw wrong(path, `has subsection '${own}' with ${only}, which is for devices`)
    }
    names.push(own)
  }
}

function wrong(path: readonly string[], message: string): MultifdError {
  return argumentError(`description '${path.join('.')}' ${message}`)
}
