// Receiving a guest into memory of this process: every block of the stream gets one of its own.

import { MultifdError } from '../errors.js'
import { ALLOCATE_MAX, RamBlock, type RamBlockHandle } from '../ram/block.js'
import { type LoadBlock, MemoryLoadBlock } from '../ram/load-block.js'
import type { Configuration } from '../wire/stream.js'
import type { LoadedState, LoadSetup, LoadTarget } from './load-target.js'

/** A guest as it came: its memory, and the rest of its stream verbatim. */
export interface GuestImage extends LoadedState, Pick<LoadSetup, 'pageSize' | 'ramSectionId' | 'beforeRam' | 'uuid'> {
  configuration: Configuration
  blocks: RamBlockHandle[]
}

export class MemoryTarget implements LoadTarget {
  readonly keepsDeviceState = true
  readonly #machineType: string | undefined
  readonly #completed: (image: GuestImage) => void
  #setup: LoadSetup | undefined
  #blocks: RamBlock[] = []

  /** @param machineType refuses another one, when given */
  constructor(machineType: string | undefined, completed: (image: GuestImage) => void) {
    this.#machineType = machineType
    this.#completed = completed
  }

  setUp(setup: LoadSetup): LoadBlock[] {
    const { configuration, blocks, pageSize } = setup
    if (this.#machineType !== undefined && configuration.machineType !== this.#machineType) {
      const message = `machine type '${configuration.machineType}' is not the expected '${this.#machineType}'`
      throw new MultifdError('ERR_MULTIFD_MACHINE', message)
    }
    this.#setup = setup
    this.#blocks = blocks.map(({ idstr, usedLength }) => {
      if (usedLength > ALLOCATE_MAX) {
        const message = `block '${idstr}' has ${usedLength} bytes: one of more than 4 GiB is received into a file only`
        throw new MultifdError('ERR_MULTIFD_BLOCK', message)
      }
      return RamBlock.allocateFor({ idstr, size: usedLength, pageSize })
    })
    return this.#blocks.map((block) => new MemoryLoadBlock(block))
  }

  complete(state: LoadedState): void {
    const { configuration, pageSize, ramSectionId, beforeRam, uuid } = this.#setup!
    const blocks = this.#blocks.map(({ handle }) => handle)
    this.#completed({ configuration, pageSize, ramSectionId, beforeRam, uuid, blocks, ...state })
  }

  close(): void {
    // The memory goes when nobody holds it.
  }
}
