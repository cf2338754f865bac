// A program's memory migrated into a snapshot, for tests of the file.

import { MigrationSource, type MigrationSourceOptions, RamBlock } from '../../src/index.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'

export const PAGE = 4096

/** A block whose pages all differ, each with its number in every word. */
export function filledBlock(idstr: string, pages: number): RamBlock {
  const block = RamBlock.allocate({ idstr, size: pages * PAGE })
  const words = new Int32Array(block.memory!, 0, block.size / 4)
  for (let page = 0; page < pages; page++) words.fill(page + 1, page * (PAGE / 4), (page + 1) * (PAGE / 4))
  return block
}

/** Migrates blocks into a file; `stop` runs before the last pass. Resolves when the source has the word. */
export async function save(
  path: string,
  source: MigrationSourceOptions,
  stop?: () => void | Promise<void>,
): Promise<{ receiver: SnapshotReceiver }> {
  const receiver = new SnapshotReceiver(path, { parameters: source.parameters ?? {} })
  try {
    const uri = await receiver.listen('tcp:127.0.0.1:0')
    await new MigrationSource(source).migrate(uri, stop ? { stop } : {})
    return { receiver }
  } catch (error) {
    await receiver.close()
    throw error
  }
}
