// Runs one run of a row, and says what came of it.

import type { QemuVersion } from '../support/qemu/index.js'
import { Ground } from './ground.js'
import { NONE, type Result, type Run } from './table.js'

/** A result, or that the scenario fails, which no row may. */
export type Outcome = Result | { result: 'fails'; seen: string }

export async function outcome({ run }: Run, version: QemuVersion | typeof NONE): Promise<Outcome> {
  try {
    return await Ground.use(version === NONE ? '10.0' : version, run)
  } catch (error) {
    return { result: 'fails', seen: error instanceof Error ? error.message.replaceAll(/\s+/g, ' ') : String(error) }
  }
}
