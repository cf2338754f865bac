// Where a migration is received into: a program's own blocks here, a snapshot file in src/snapshot.

import { MultifdError } from '../errors.js'
import type { RamBlock } from '../ram/block.js'
import { type LoadBlock, MemoryLoadBlock } from '../ram/load-block.js'
import type { RamSetupBlock } from '../wire/ram.js'
import type { Configuration } from '../wire/stream.js'
import type { CoordinatorMessage } from './messages.js'

/** What a stream said before its pages. */
export interface LoadSetup {
  configuration: Configuration
  blocks: RamSetupBlock[]
  /** Bytes of a target page. */
  pageSize: number
  ramSectionId: number
  /** Sections that came before the RAM set-up, verbatim. */
  beforeRam: Uint8Array
  /** Of the channels' initial packets; undefined when it is all zero, or there are none. */
  uuid: string | undefined
}

/** What a stream had besides pages. */
export interface LoadedState {
  /** Sections between the RAM set-up and the pages, verbatim. */
  afterRam: Uint8Array
  switchoverStart: boolean
  /** Everything after the RAM's last section, to the end of the stream. */
  deviceState: Uint8Array
}

/** What a source leaves where it is: memory that both sides map. */
export interface IgnoredShared {
  /** Names of the blocks whose pages are not sent. */
  blocks: string[]
  /** Guest addresses of the blocks, by their names; a program's have none. */
  addresses: Record<string, number>
}

export interface LoadTarget {
  /** Whether device sections are kept as they are; otherwise they are loaded into devices, which the target knows. */
  readonly keepsDeviceState: boolean
  /**
   * Makes the blocks ready to be written.
   *
   * @throws MultifdError ERR_MULTIFD_BLOCK, ERR_MULTIFD_MACHINE, ERR_MULTIFD_FILE
   */
  setUp(setup: LoadSetup): LoadBlock[]
  /** Everything came. When this returns it is kept for good. */
  complete(state: LoadedState): void
  /** Always called last, once no thread uses the blocks; undoes what was not completed. */
  close(): void
}

/** Receives into blocks that the program has already, and into its devices, which live in its own thread. */
export class ProgramTarget implements LoadTarget {
  readonly keepsDeviceState = false
  readonly #blocks: RamBlock[]
  readonly #machineType: string
  readonly #ask: (message: CoordinatorMessage) => void

  /** @param ask asks the program, and returns once it has done what it was asked */
  constructor(blocks: RamBlock[], machineType: string, ask: (message: CoordinatorMessage) => void) {
    this.#blocks = blocks
    this.#machineType = machineType
    this.#ask = ask
  }

  setUp({ configuration, blocks, pageSize, beforeRam }: LoadSetup): LoadBlock[] {
    if (configuration.machineType !== this.#machineType) {
      const message = `machine type '${configuration.machineType}' is not the expected '${this.#machineType}'`
      throw new MultifdError('ERR_MULTIFD_MACHINE', message)
    }
    if (this.#blocks.some((block) => block.pageSize !== pageSize)) {
      throw new MultifdError('ERR_MULTIFD_MACHINE', `page size ${pageSize} is not this side's`)
    }
    const loaded = blocks.map(({ idstr, usedLength }) => {
      const block = this.#blocks.find((own) => own.idstr === idstr)
      if (!block) throw new MultifdError('ERR_MULTIFD_BLOCK', `the source has a block '${idstr}', this side has none`)
      if (block.size !== usedLength) {
        const message = `block '${idstr}' has ${usedLength} bytes at the source and ${block.size} here`
        throw new MultifdError('ERR_MULTIFD_BLOCK', message)
      }
      return block
    })
    const missing = this.#blocks.find(({ idstr }) => !blocks.some((other) => other.idstr === idstr))
    if (missing) throw new MultifdError('ERR_MULTIFD_BLOCK', `the source has no block '${missing.idstr}'`)
    this.#ask({ type: 'prepare', early: beforeRam })
    return loaded.map((block) => new MemoryLoadBlock(block))
  }

  complete({ deviceState }: LoadedState): void {
    this.#ask({ type: 'load-devices', deviceState })
  }

  close(): void {
    // The blocks are the program's.
  }
}
