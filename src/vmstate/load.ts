// Reads a state as its description says. Nothing in the bytes tells one field from the next: what can be checked is.
//
// A subsection is told from what follows the fields by 05, a length byte and a name that begins with the name of the
// description it belongs to. No more is looked at than is needed to tell.

import { protocolError, truncatedError } from '../wire/bytes.js'
import { SECTION } from '../wire/stream.js'
import { listedFields } from './check.js'
import { callHook, deviceError, type LoadContext, within } from './context.js'
import type { Description } from './description.js'
import type { LookAheadReader } from './look-ahead.js'
import { fieldExists } from './save.js'

/**
 * Reads into `state`. What was read before an error stays in it: it is not to be used then.
 *
 * Throws ERR_MULTIFD_DEVICE for a version out of range, values that must be as here, and hooks that fail;
 * ERR_MULTIFD_PROTOCOL for bytes that are no such field; ERR_MULTIFD_TRUNCATED. `context.path` says where.
 */
export function loadDescription(
  context: LoadContext,
  description: Description<never>,
  state: object,
  version = description.versionId,
): void {
  const own = state as never
  const { name, preLoad, postLoad } = description
  checkVersion(version, description)
  if (preLoad !== undefined) callHook(`preLoad of '${name}'`, () => preLoad(own))
  for (const field of listedFields(description)) {
    if (fieldExists(field, own, version)) within(context, field.name, () => field.load(context, own))
  }
  loadSubsections(context, description, state)
  if (postLoad !== undefined) callHook(`postLoad of '${name}'`, () => postLoad(own, version))
}

/** Throws ERR_MULTIFD_DEVICE unless it is one that can be read. */
export function checkVersion(version: number, known: { versionId: number; minimumVersionId: number }): void {
  const { versionId, minimumVersionId } = known
  if (version > versionId) throw deviceError(`version ${version} is newer than ${versionId}, the newest known here`)
  if (version < minimumVersionId) {
    throw deviceError(`version ${version} is older than ${minimumVersionId}, the oldest that can be read here`)
  }
}

function loadSubsections(context: LoadContext, description: Description<never>, state: object): void {
  const { reader } = context
  const loaded = new Set<string>()
  while (subsectionFollows(reader, description.name)) {
    const length = reader.peekAt(1)
    const name = peekText(reader, 2, length)
    // The next element of an array may begin with it, when it has no fields. Otherwise nobody will take it.
    if (loaded.has(name)) {
      context.repeated = name
      return
    }
    reader.bytes(2 + length)
    const subsection = description.subsections.find((known) => known.name === name)
    if (subsection === undefined) throw protocolError(`'${description.name}' has no subsection '${name}' here`)
    loaded.add(name)
    within(context, name, () => loadDescription(context, subsection, state, reader.u32()))
  }
}

/** Text that lies ahead; where the input ends before it does, the error is ERR_MULTIFD_TRUNCATED. */
function peekText(reader: LookAheadReader, from: number, length: number): string {
  let text = ''
  for (let i = 0; i < length; i++) {
    const code = reader.peekAt(from + i)
    if (code === -1) throw truncatedError('the name of a subsection', length, i)
    text += String.fromCharCode(code)
  }
  return text
}

/** Whether the next bytes are the head of a subsection of `parent`. */
function subsectionFollows(reader: LookAheadReader, parent: string): boolean {
  if (reader.peekU8() !== SECTION.subsection) return false
  // A footer comes at the latest: an input that ends here is cut off.
  const look = (offset: number) => {
    const byte = reader.peekAt(offset)
    if (byte === -1) throw truncatedError(`the section, behind the fields of '${parent}'`, offset + 1, offset)
    return byte
  }
  if (look(1) <= parent.length) return false
  for (let i = 0; i < parent.length; i++) {
    if (look(2 + i) !== parent.charCodeAt(i)) return false
  }
  return true
}
