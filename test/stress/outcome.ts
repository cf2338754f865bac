// How a migration ended, as one side's process tells it.

import { type MigrationStatus, MultifdError } from '../../src/index.js'

export interface Outcome {
  status: MigrationStatus
  /** Of the error, where it failed. */
  code?: string
  message?: string
  /** Whether the error is one of the package's own. */
  named?: boolean
  passes?: number
}

/** Takes a migration's end apart. */
export async function outcomeOf(
  migrated: Promise<{ status: MigrationStatus; ram: { dirtySyncCount: number } }>,
  status: () => MigrationStatus,
): Promise<Outcome> {
  try {
    const { ram } = await migrated
    return { status: status(), passes: ram.dirtySyncCount }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    return { status: status(), code: code ?? '', message, named: error instanceof MultifdError }
  }
}

/** What is wrong with a failure's error, if anything. */
export function wrongWith({ status, code, message = '', named }: Outcome): string | undefined {
  if (status === 'completed') return undefined
  if (!named || code === 'ERR_MULTIFD_INTERNAL') return `the error is none of the package's: ${code} ${message}`
  if (message === '' || message.includes('\n')) return `the error is not one line: ${JSON.stringify(message)}`
  if (status !== (code === 'ERR_MULTIFD_ABORTED' ? 'cancelled' : 'failed')) return `${code}, and the state is ${status}`
  return undefined
}
