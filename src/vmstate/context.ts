// What a walk over descriptions carries along, and how its errors say where they happened.

import { MultifdError, oneLine } from '../errors.js'
import type { LookAheadReader } from './look-ahead.js'
import type { ByteWriter } from './writer.js'

/** A walk that writes. */
export interface SaveContext {
  readonly writer: ByteWriter
  /** Names of the fields and subsections that the walk is in, outermost first. */
  readonly path: string[]
}

/** A walk that reads. */
export interface LoadContext {
  readonly reader: LookAheadReader
  readonly path: string[]
  /** The subsection that was last found where it had been loaded before. */
  repeated: string | undefined
}

/** Shorthand for the error of a device whose state does not fit. */
export function deviceError(message: string, cause?: unknown): MultifdError {
  return new MultifdError('ERR_MULTIFD_DEVICE', message, cause === undefined ? {} : { cause })
}

/**
 * Runs `walk` with `name` on the path. The path is left as it is when `walk` throws: it says where that was.
 */
export function within<T>(context: { readonly path: string[] }, name: string, walk: () => T): T {
  context.path.push(name)
  const result = walk()
  context.path.pop()
  return result
}

/** Calls a function of the program's that must do its work at once. Throws ERR_MULTIFD_DEVICE when it fails. */
export function callHook(name: string, hook: () => unknown): unknown {
  let result: unknown
  try {
    result = hook()
  } catch (error) {
    if (error instanceof MultifdError) throw error
    throw deviceError(`${name} failed: ${oneLine(error)}`, error)
  }
  if (isThenable(result)) {
    // Nobody waits for it; what becomes of it must not end the process.
    Promise.resolve(result).catch(() => {})
    throw deviceError(`${name} is asynchronous, expected a function that is done when it returns`)
  }
  return result
}

/** Any error of a walk with the device and the field in its message; what comes from the transport stays as it is. */
export function locateError(error: unknown, what: string, path: readonly string[]): MultifdError {
  const place = path.length === 0 ? what : `${what}, ${path.join('.')}`
  if (!(error instanceof MultifdError)) return deviceError(printable(`${place}: ${oneLine(error)}`), error)
  switch (error.code) {
    case 'ERR_MULTIFD_ARGUMENT':
    case 'ERR_MULTIFD_DEVICE':
    case 'ERR_MULTIFD_PROTOCOL':
    case 'ERR_MULTIFD_TRUNCATED':
      return new MultifdError(error.code, printable(`${place}: ${error.message}`), { ...error, cause: error.cause })
    default:
      return error
  }
}

/** With control characters spelled out: a peer's names stand in messages. */
function printable(text: string): string {
  return Array.from(text, (character) => {
    const code = character.charCodeAt(0)
    const control = code < 0x20 || (code >= 0x7f && code < 0xa0)
    return control ? `\\x${code.toString(16).padStart(2, '0')}` : character
  }).join('')
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
