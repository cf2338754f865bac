// One background snapshot that is broken at a fault point, held to what the table says.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { FAULT_POINTS, type FaultPoint } from '../../src/faults.js'
import { type FaultPoints, MigrationDestination, SnapshotSender, saveSnapshot } from '../../src/index.js'
import { checksums } from '../support/peers/index.js'
import { type Broken, ended, unclear, within } from './outcome.js'
import type { Program } from './program.js'
import type { Case } from './walk.js'

// Nothing of it waits for anybody: a busy machine needs some.
const PATIENCE_MS = 15_000

export async function breakSave(one: Case, faults: FaultPoints, program: Program, folder: string): Promise<Broken> {
  const { outcome, code }: FaultPoint = FAULT_POINTS[one.point]
  const path = join(folder, 'snapshot')
  const problems: string[] = []
  const began = performance.now()
  const saved = saveAndRevive(program, path, faults).then((wrong) => void problems.push(...wrong))
  const result = (await within(ended(saved), PATIENCE_MS)) ?? { outcome: 'hangs' }
  const ms = performance.now() - began
  const expected = outcome === 'fails' ? code : 'completed'
  if (result.outcome !== expected) problems.push(`the snapshot: ${result.outcome}, expected ${expected}`)
  if (result.error) problems.push(...unclear('snapshot', result.error))
  return { ended: { snapshot: result }, ms, problems, again: () => saveAgain(program, path) }
}

async function saveAgain(program: Program, path: string): Promise<string[]> {
  try {
    return await saveAndRevive(program, path)
  } catch (error) {
    return [`the next snapshot: ${(error as Error).message}`]
  }
}

/** Saves the program, and loads the file into the place that it migrates to. Says what is wrong with that. */
async function saveAndRevive(program: Program, path: string, faults?: FaultPoints): Promise<string[]> {
  const { ram, theirs } = program
  let moment: object = {}
  const stop = async (): Promise<void> => {
    await program.halt()
    moment = checksums(ram)
  }
  await saveSnapshot({ ram, path, stop, resume: () => program.run(), ...(faults && { faults }) })
  const destination = new MigrationDestination({ ram: theirs })
  const sender = new SnapshotSender(path)
  try {
    await Promise.all([sender.send(await destination.listen('tcp:127.0.0.1:0')), destination.completed])
    return isDeepStrictEqual(checksums(theirs), moment) ? [] : ['the file is not of the moment']
  } finally {
    await Promise.all([sender.close(), destination.close()])
    rmSync(path)
  }
}
