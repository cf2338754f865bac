// Receiving a guest into memory of this process: every block of the stream gets one of its own, or the one that was given
// for it.

import { MultifdError } from '../errors.js'
import { ALLOCATE_MAX, RamBlock, type RamBlockHandle } from '../ram/block.js'
import { type LoadBlock, MemoryLoadBlock, nothingCame } from '../ram/load-block.js'
import { PageRuns } from '../shm/page-runs.js'
import { type Configuration, IGNORE_SHARED } from '../wire/stream.js'
import type { IgnoredShared, LoadedState, LoadSetup, LoadTarget } from './load-target.js'

/** A guest as it came: its memory, and the rest of its stream verbatim. */
export interface GuestImage extends LoadedState, Pick<LoadSetup, 'pageSize' | 'ramSectionId' | 'beforeRam' | 'uuid'> {
  configuration: Configuration
  blocks: RamBlockHandle[]
  /** Where the source left shared memory out: the blocks of which nothing came. */
  ignoredShared?: IgnoredShared
}

export class MemoryTarget implements LoadTarget {
  readonly keepsDeviceState = true
  readonly #machineType: string | undefined
  readonly #completed: (image: GuestImage) => void
  readonly #given: readonly RamBlock[]
  #setup: LoadSetup | undefined
  #blocks: MemoryLoadBlock[] = []

  /**
   * @param machineType refuses another one, when given
   * @param given memory to receive into, by the blocks' names, whatever it holds
   */
  constructor(machineType: string | undefined, given: readonly RamBlock[], completed: (image: GuestImage) => void) {
    this.#machineType = machineType
    this.#given = given
    this.#completed = completed
  }

  setUp(setup: LoadSetup): LoadBlock[] {
    const { configuration, blocks, pageSize } = setup
    if (this.#machineType !== undefined && configuration.machineType !== this.#machineType) {
      const message = `machine type '${configuration.machineType}' is not the expected '${this.#machineType}'`
      throw new MultifdError('ERR_MULTIFD_MACHINE', message)
    }
    this.#setup = setup
    this.#blocks = blocks.map(({ idstr, usedLength }) => new MemoryLoadBlock(this.#place(idstr, usedLength, pageSize)))
    return this.#blocks
  }

  #place(idstr: string, size: number, pageSize: number): RamBlock {
    const given = this.#given.find((block) => block.idstr === idstr)
    if (!given) {
      if (size <= ALLOCATE_MAX) return RamBlock.allocateFor({ idstr, size, pageSize })
      const message = `block '${idstr}' has ${size} bytes: one of more than 4 GiB goes into memory that is given for it`
      throw new MultifdError('ERR_MULTIFD_BLOCK', message)
    }
    if (given.size === size && given.pageSize === pageSize) return given
    const ours = `${given.size} bytes in pages of ${given.pageSize}`
    const message = `block '${idstr}' has ${size} bytes in pages of ${pageSize}, the memory given for it ${ours}`
    throw new MultifdError('ERR_MULTIFD_BLOCK', message)
  }

  complete(state: LoadedState): void {
    const { configuration, pageSize, ramSectionId, beforeRam, uuid } = this.#setup!
    const ignoredShared = this.#ignored()
    for (const block of this.#blocks) {
      const { inPlace, idstr } = block
      if (this.#given.includes(inPlace) && !ignoredShared?.blocks.includes(idstr)) clearTheRest(block)
    }
    const blocks = this.#blocks.map(({ inPlace }) => inPlace.handle)
    const ignored = ignoredShared && { ignoredShared }
    this.#completed({ configuration, pageSize, ramSectionId, beforeRam, uuid, blocks, ...ignored, ...state })
  }

  #ignored(): IgnoredShared | undefined {
    const { configuration, blocks } = this.#setup!
    if (!configuration.capabilities?.includes(IGNORE_SHARED)) return undefined
    const addresses = blocks.map(({ idstr, guestAddress = 0 }) => [idstr, guestAddress] as const)
    const absent = this.#blocks.filter(nothingCame)
    return { blocks: absent.map(({ idstr }) => idstr), addresses: Object.fromEntries(addresses) }
  }

  close(): void {
    // The memory goes when nobody holds it.
  }
}

// Pages that never came, as a balloon's: what the memory held before is nobody's to see.
function clearTheRest(block: MemoryLoadBlock): void {
  const { received, pages } = block
  const runs = PageRuns.alone(1)
  for (let first = received.next(0, false); first < pages; first = received.next(first, false)) {
    const end = received.next(first, true)
    runs.reset()
    runs.push(first, end - first)
    block.clear(runs)
  }
}
