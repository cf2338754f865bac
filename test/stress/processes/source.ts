// The source's process: a program with a thread that writes, and its migrations.

import { setTimeout as delay } from 'node:timers/promises'
import { DEFAULT_PARAMETERS, type MigrationParameters, MigrationSource, type RamBlock } from '../../../src/index.js'
import { serve } from '../../support/calls.js'
import type { Disturbance, Run } from '../draw.js'
import { differences, makeBlocks, WriteRecord } from '../memory.js'
import { type Outcome, outcomeOf } from '../outcome.js'
import { StressWriter } from '../writer.js'
import { disturb, logger, rest } from './common.js'

const PAUSE_MS = 50

interface Program {
  run: Run
  blocks: RamBlock[]
  record: WriteRecord
  writer: StressWriter
  source: MigrationSource
}

export interface Move {
  uri: string
  parameters: Partial<MigrationParameters>
  disturbance?: Disturbance
}

let program: Program | undefined

const calls = {
  /** Makes the program's memory and starts its writer. */
  async begin({ run, folder }: { run: Run; folder: string }): Promise<void> {
    logger.info({ seed: run.seed, run: run.number }, 'begin')
    const blocks = makeBlocks(run.blocks, 'source', folder)
    const record = WriteRecord.open(run.blocks, folder)
    const writer = await StressWriter.start(blocks, run.blocks, record, run.writer)
    program = { run, blocks, record, writer, source: new MigrationSource({ ram: blocks, logger }) }
  },

  /** Whether there is a program: there is none in a process that was started anew. */
  running(): boolean {
    return program !== undefined
  },

  /** One migration. Where it completes the program stands still; otherwise it was told to go on. */
  async migrate({ uri, parameters, disturbance }: Move): Promise<Outcome> {
    const { source, writer } = program!
    source.removeAllListeners()
    source.setParameters({ ...DEFAULT_PARAMETERS, ...parameters })
    source.on('status', async (status) => {
      if (status !== 'pre-switchover') return
      await delay(PAUSE_MS)
      if (source.status === 'pre-switchover') source.continue()
    })
    const callOff = disturbance ? disturb(source, disturbance) : () => {}
    const migrated = source.migrate(uri, {
      stop: () => writer.halt(),
      resume: () => writer.resume(),
      throttle: (percentage) => writer.throttle(percentage),
    })
    const outcome = await outcomeOf(migrated, () => source.status)
    callOff()
    return outcome
  },

  /** What of the memory is not as the writer left it; it must go on afterwards. */
  async verify(): Promise<string[]> {
    const { blocks, run, record, writer } = program!
    await writer.halt()
    const wrong = differences(blocks, run.blocks, record)
    await writer.resume()
    return wrong
  },

  async end(): Promise<void> {
    if (!program) return
    const { writer, source, blocks, record } = program
    program = undefined
    await source.close()
    await writer.end()
    for (const block of blocks) block.close()
    record.close()
  },

  rest,
}

export type SourceCalls = typeof calls

serve(calls)
