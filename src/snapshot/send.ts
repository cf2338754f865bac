// Sends what a snapshot holds to a QEMU, or to anything that speaks its protocol.

import { MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import { completeParameters, type MigrationParameters } from '../migration/parameters.js'
import { MigrationSource } from '../migration/source.js'
import type { MigrationStatistics } from '../migration/statistics.js'
import { RamBlock } from '../ram/block.js'
import { isPlugged } from '../wire/virtio-mem.js'
import { readSnapshot, type Snapshot } from './file.js'
import { readSidecar } from './sidecar.js'
import { extrasOf, given } from './stream.js'

export interface SendSnapshotOptions {
  parameters?: Partial<MigrationParameters>
  /** The guest's uuid; default: the one kept beside the snapshot. */
  uuid?: string
  /** Where in the file the snapshot begins, bytes. */
  offset?: number
  logger?: Logger
}

/** A source that serves one snapshot; any number of them may serve one file. */
export class SnapshotSender {
  readonly snapshot: Snapshot
  /** The migration's source, for its events and figures. */
  readonly source: MigrationSource
  readonly #blocks: RamBlock[] = []

  /**
   * @throws MultifdError ERR_MULTIFD_FILE, ERR_MULTIFD_SNAPSHOT, ERR_MULTIFD_UNSUPPORTED, ERR_MULTIFD_ARGUMENT
   */
  constructor(path: string, options: SendSnapshotOptions = {}) {
    const { parameters = {}, logger } = options
    // What is asked for wrongly is told before the file is looked at.
    completeParameters(parameters)
    this.snapshot = readSnapshot(path, options.offset)
    const { blocks, configuration, pageSize } = this.snapshot
    const uuid = options.uuid ?? configuration.uuid ?? readSidecar(path).uuid
    try {
      for (const { idstr, size, pagesOffset: offset, populated, plugged } of blocks) {
        const place = { path, offset, pageSize, populated, writable: false }
        const sparse = plugged && { discardManager: { granuleSize: plugged.blockSize, address: plugged.addr } }
        const block = RamBlock.mapFile({ idstr, size, ...place, ...sparse })
        this.#blocks.push(block)
        // What has no content there gets none here: a destination refuses its pages, zero as they are.
        if (plugged) block.discardManager!.become((granule) => isPlugged(plugged.bitmap, granule))
      }
      const { machineType } = configuration
      const sourceOptions = { ram: this.#blocks, machineType, parameters, ...given({ uuid, logger }) }
      this.source = new MigrationSource(sourceOptions, extrasOf(this.snapshot))
    } catch (error) {
      this.#unmap()
      throw error
    }
  }

  /** Sends the snapshot; the file is not changed. @throws MultifdError as MigrationSource.migrate */
  async send(uri: string, options: { signal?: AbortSignal } = {}): Promise<MigrationStatistics> {
    if (this.#blocks.length === 0) throw new MultifdError('ERR_MULTIFD_STATE', 'the sender is closed')
    return await this.source.migrate(uri, options)
  }

  /** Cancels what runs, and unmaps the file. Idempotent. */
  async close(): Promise<void> {
    await this.source.close()
    this.#unmap()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #unmap(): void {
    for (const block of this.#blocks.splice(0)) block.close()
  }
}
