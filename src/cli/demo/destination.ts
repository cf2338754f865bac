// The demo's other process: receives the memory, and tells its checksum.

import { MultifdError, type PlainError } from '../../errors.js'
import { MigrationDestination } from '../../migration/destination.js'
import { RamBlock } from '../../ram/block.js'
import { checksum } from './memory.js'

/** The first message to the process. */
export interface DestinationOrder {
  size: number
  channels: number
}

export type DestinationAnswer =
  | { type: 'listening'; uri: string }
  | { type: 'checksum'; sha256: string }
  | { type: 'failed'; error: PlainError }

/** The name of the demo's RAM block, on both sides. */
export const DEMO_BLOCK = 'demo'

/** Serves one migration to the parent process, and ends with it. */
export function runDemoDestination(): void {
  const answer = (message: DestinationAnswer): void => {
    // A parent that is gone meanwhile needs no answer.
    if (process.connected) process.send!(message, () => {})
  }
  const abort = new AbortController()
  // On a terminal Ctrl-C reaches both processes: it is the parent's to decide.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {})
  process.once('disconnect', () => abort.abort())
  process.once('message', async (order: DestinationOrder) => {
    try {
      answer({ type: 'checksum', sha256: await receive(order, abort.signal, answer) })
    } catch (thrown) {
      answer({ type: 'failed', error: MultifdError.from(thrown).toPlain() })
    }
  })
}

async function receive(
  { size, channels }: DestinationOrder,
  signal: AbortSignal,
  answer: (message: DestinationAnswer) => void,
): Promise<string> {
  const block = RamBlock.allocate({ idstr: DEMO_BLOCK, size })
  await using destination = new MigrationDestination({ ram: [block], parameters: { multifdChannels: channels } })
  answer({ type: 'listening', uri: await destination.listen('tcp:127.0.0.1:0', { signal }) })
  await destination.completed
  return await checksum(block, signal)
}
