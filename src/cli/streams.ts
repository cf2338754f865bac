// What becomes of a command whose output nobody takes: a pipe whose reader has gone, a disk that is full.

import { MultifdError } from '../errors.js'

/** As of a process that SIGPIPE ends. */
const NOBODY_READS = 141

const lost = new AbortController()
let status: number | undefined

/** Aborted once standard output takes no more. */
export const outputLost: AbortSignal = lost.signal

/** The exit status that follows from it. */
export function outputStatus(): number | undefined {
  return status
}

/**
 * For all commands, before any of them writes.
 *
 * @param failure says why, and gives the status
 */
export function watchStreams(failure: (error: MultifdError) => number): void {
  // Standard error is for whoever looks on: what is done does not depend on it.
  process.stderr.on('error', () => {})
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => {
    if (status !== undefined) return
    const { code: errnoName = 'unknown error', syscall } = cause
    status =
      errnoName === 'EPIPE'
        ? NOBODY_READS
        : failure(new MultifdError('ERR_MULTIFD_FILE', `standard output: ${errnoName}`, { errnoName, syscall, cause }))
    lost.abort()
  })
  // A write fails after the call, as a rule when the command has set its own.
  process.on('exit', () => {
    process.exitCode ||= status
  })
}
