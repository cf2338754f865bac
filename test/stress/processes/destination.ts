// The destination's process.

import {
  MigrationDestination,
  type MigrationParameters,
  type MigrationStatus,
  type RamBlock,
} from '../../../src/index.js'
import { serve } from '../../support/calls.js'
import type { Disturbance, Run } from '../draw.js'
import { differences, makeBlocks, WriteRecord } from '../memory.js'
import { type Outcome, outcomeOf } from '../outcome.js'
import { disturb, logger, rest } from './common.js'

interface Program {
  run: Run
  folder: string
  blocks: RamBlock[]
  destination: MigrationDestination
  outcome: Promise<Outcome>
}

export interface Arrival {
  run: Run
  folder: string
  uri: string
  parameters: Partial<MigrationParameters>
  disturbance?: Disturbance
}

let program: Program | undefined

const calls = {
  /** Makes memory and listens; returns the URI with the real port. */
  async begin({ run, folder, uri, parameters, disturbance }: Arrival): Promise<string> {
    await calls.end()
    logger.info({ seed: run.seed, run: run.number }, 'begin')
    const blocks = makeBlocks(run.blocks, 'destination', folder)
    const destination = new MigrationDestination({ ram: blocks, parameters, logger })
    const bound = await destination.listen(uri)
    const callOff = disturbance ? disturb(destination, disturbance) : () => {}
    const outcome = outcomeOf(destination.completed, () => destination.status).finally(callOff)
    program = { run, folder, blocks, destination, outcome }
    return bound
  },

  async outcome(): Promise<Outcome> {
    return await program!.outcome
  },

  status(): MigrationStatus {
    return program!.destination.status
  },

  cancel(): void {
    program!.destination.cancel()
  },

  /** What of the memory is not as the writer says that it left it. */
  verify(): string[] {
    const { blocks, run, folder } = program!
    const record = WriteRecord.open(run.blocks, folder)
    try {
      return differences(blocks, run.blocks, record)
    } finally {
      record.close()
    }
  },

  async end(): Promise<void> {
    if (!program) return
    const { destination, blocks } = program
    program = undefined
    await destination.close()
    for (const block of blocks) block.close()
  },

  rest,
}

export type DestinationCalls = typeof calls

serve(calls)
